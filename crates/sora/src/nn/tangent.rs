//! Directional derivatives carried forward through the layers that are not linear.
//!
//! They are built from Burn's own operations, so that a backward pass differentiates them once
//! more: the gradient for the weights of a derivative for the input, without second-order autodiff.

use burn::tensor::Tensor;

use super::layers::BN_EPSILON;

/// Derivative of batch norm (and ReLU) at `x` along `tangent`. `statistics` are the running mean
/// and variance in eval mode; without them those of the batch, which move along too. `channels` is
/// the dimension of the channels.
pub(super) fn batch_norm(
    x: Tensor<4>,
    tangent: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    statistics: Option<[Tensor<1>; 2]>,
    channels: usize,
    relu: bool,
) -> Tensor<4> {
    let mut shape = [1; 4];
    shape[channels] = x.dims()[channels];
    let wide = |t: Tensor<1>| t.reshape(shape);
    let (normalised, slope) = match statistics {
        Some([mean, variance]) => {
            let scale = (wide(variance) + BN_EPSILON).sqrt().recip();
            ((x - wide(mean)) * scale.clone(), tangent * scale)
        }
        None => {
            let average = |t: Tensor<4>| {
                (0..4).filter(|&dim| dim != channels).fold(t, |t, dim| t.mean_dim(dim))
            };
            let centred = x.clone() - average(x);
            let scale = (average(centred.clone().square()) + BN_EPSILON).sqrt().recip();
            let normalised = centred * scale.clone();
            let common = average(normalised.clone() * tangent.clone());
            let slope = (tangent.clone() - average(tangent) - normalised.clone() * common) * scale;
            (normalised, slope)
        }
    };
    let slope = slope * wide(gamma.clone());
    if !relu {
        return slope;
    }
    // ReLU's derivative is a constant almost everywhere.
    let active = (normalised * wide(gamma) + wide(beta)).inner().sign().clamp_min(0.0);
    slope * active
}
