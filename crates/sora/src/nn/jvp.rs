//! Jacobian-vector products: tensors that carry their derivative along the pass's tangent, and the
//! rules by which derivatives go through layers.
//!
//! The rules are made of Burn's own operations, so that a backward pass can differentiate them once
//! more. This gives the gradient by the weights of a derivative by the input, without second-order
//! autodiff.

use burn::tensor::{Tensor, activation};

use super::{Activation, Flat, Pass, conv_layers::BN_EPSILON, sum_over_ranks};
use crate::ranks::scope;

/// A value and, where the pass has a tangent, its derivative along it: the value's Jacobian-vector
/// product. `None` stands for a derivative of zero.
#[derive(Clone, Debug)]
pub struct Jvp<const D: usize> {
    /// The value.
    pub value: Tensor<D>,
    /// Its derivative along the tangent.
    pub tangent: Option<Tensor<D>>,
}

impl From<Flat> for Jvp<2> {
    fn from(flat: Flat) -> Self {
        Self { value: flat.values, tangent: flat.tangent }
    }
}

impl From<Jvp<2>> for Flat {
    fn from(jvp: Jvp<2>) -> Self {
        Self { values: jvp.value, tangent: jvp.tangent }
    }
}

impl<const D: usize> Jvp<D> {
    /// Applies a linear function to the value and to the derivative.
    pub fn linear<const E: usize>(self, f: impl Fn(Tensor<D>) -> Tensor<E>) -> Jvp<E> {
        Jvp { tangent: self.tangent.map(&f), value: f(self.value) }
    }

    /// The sum of two values of the same shape.
    pub fn plus(self, other: Self) -> Self {
        let tangent = match (self.tangent, other.tangent) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { value: self.value + other.value, tangent }
    }

    /// Adds a weight, which may be broadcast, to the value.
    pub fn shift(self, weight: Tensor<D>) -> Self {
        Self { value: self.value + weight, tangent: self.tangent }
    }

    /// Multiplies the value by a weight, which may be broadcast.
    pub fn scale(self, weight: Tensor<D>) -> Self {
        self.linear(|t| t * weight.clone())
    }

    /// Multiplies element by element; `other` may be broadcast.
    pub fn times(self, other: Self) -> Self {
        self.product(other, |a, b| a * b)
    }

    /// The matrix product over the last two dimensions.
    pub fn matmul(self, other: Self, pass: &Pass) -> Self {
        self.product(other, |a, b| pass.products.matmul(a, b))
    }

    fn product(self, other: Self, f: impl Fn(Tensor<D>, Tensor<D>) -> Tensor<D>) -> Self {
        let left = self.tangent.map(|t| f(t, other.value.clone()));
        let right = other.tangent.map(|t| f(self.value.clone(), t));
        let tangent = match (left, right) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { value: f(self.value, other.value), tangent }
    }

    /// Applies an activation function.
    pub fn activate(self, activation: Activation, pass: &Pass) -> Self {
        let tangent = self.tangent.map(|t| t * activation.slope(self.value.clone()));
        Self { value: activation.apply(self.value, pass), tangent }
    }

    /// Applies the logistic function.
    pub fn sigmoid(self) -> Self {
        let value = activation::sigmoid(self.value);
        let tangent = self.tangent.map(|t| t * value.clone() * (value.clone().neg() + 1.0));
        Self { value, tangent }
    }

    /// Applies softmax over dimension `dim`.
    pub fn softmax(self, dim: usize) -> Self {
        let value = activation::softmax(self.value, dim);
        let tangent = self.tangent.map(|t| {
            let mean = (value.clone() * t.clone()).sum_dim(dim);
            value.clone() * (t - mean)
        });
        Self { value, tangent }
    }

    /// Normalises to mean 0 and variance 1 (biased, plus `epsilon`) over the last dimension: layer
    /// norm without its scale and shift.
    pub fn standardise(self, epsilon: f64) -> Self {
        let last = D - 1;
        let centred = self.value.clone() - self.value.mean_dim(last);
        let scale = (centred.clone().square().mean_dim(last) + epsilon).sqrt().recip();
        let value = centred * scale.clone();
        let tangent = self.tangent.map(|t| {
            let common = (value.clone() * t.clone()).mean_dim(last);
            (t.clone() - t.mean_dim(last) - value.clone() * common) * scale
        });
        Self { value, tangent }
    }
}

/// The mean of `means` over the ranks that share the statistics of batch norm.
fn over_ranks(means: Tensor<4>) -> Tensor<4> {
    match scope::sharing_statistics() {
        None => means,
        Some(ranks) => {
            let shape = means.dims();
            let flat = means.reshape([shape.iter().product::<usize>()]);
            sum_over_ranks(flat).div_scalar(ranks.world() as f32).reshape(shape)
        }
    }
}

/// Derivative of batch norm (and ReLU) at `x` along `tangent`. `statistics` holds the running mean
/// and variance in eval mode; `None` stands for the batch's statistics, which have a derivative
/// too. `channels` is the dimension of the channels.
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
                over_ranks((0..4).filter(|&dim| dim != channels).fold(t, |t, dim| t.mean_dim(dim)))
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
