//! Figures of a whole batch whose images are spread over ranks: the moments of batch norm, the sums
//! of its backward pass, and sums that a method computes with.

use burn::tensor::TensorData;

use super::{
    buffers::Output,
    extension::*,
    flex::{dims, floats},
};
use crate::ranks::scope;

/// The kernels of a sum over ranks.
pub trait RankKernels: Backend {
    /// Sums over the ranks, `[M]`.
    fn sum_over_ranks(values: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// The means over the ranks that share the statistics of batch norm.
    fn shared_means(values: [FloatTensor<Self>; 2]) -> [FloatTensor<Self>; 2];
}

fn tensor(values: impl ExactSizeIterator<Item = f64>) -> FlexTensor {
    let mut output = Output::new([values.len()]);
    output.as_mut().iter_mut().zip(values).for_each(|(out, value)| *out = value as f32);
    output.finish()
}

impl RankKernels for Flex {
    fn sum_over_ranks(values: &FlexTensor) -> FlexTensor {
        let values = values.to_contiguous();
        let mut sums: Vec<f64> = floats(&values).iter().map(|&v| f64::from(v)).collect();
        scope::sum_values(&mut sums);
        tensor(sums.into_iter())
    }

    fn shared_means([first, second]: [FlexTensor; 2]) -> [FlexTensor; 2] {
        let Some(ranks) = scope::sharing_statistics() else { return [first, second] };
        let (first, second) = (first.to_contiguous(), second.to_contiguous());
        let [len] = dims(&first);
        let mut sums: Vec<f64> =
            floats(&first).iter().chain(floats(&second)).map(|&v| f64::from(v)).collect();
        scope::sum_values(&mut sums);
        let world = ranks.world() as f64;
        let means = |part: &[f64]| tensor(part.iter().map(|sum| sum / world));
        [means(&sums[..len]), means(&sums[len..])]
    }
}

/// A sum over ranks, for [`Dispatch`] to choose the backend of.
#[backend_extension(Autodiff, Flex)]
pub trait RankOp: Backend {
    /// Sums over the ranks, `[M]`.
    fn sum_over_ranks_op(values: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl RankOp for Flex {
    fn sum_over_ranks_op(values: FlexTensor) -> FlexTensor {
        Self::sum_over_ranks(&values)
    }
}

#[derive(Debug)]
struct SumBackward;

/// Every rank's loss depends on the sum, and the sum on every rank's values.
impl<B: RankKernels> Backward<B, 1> for SumBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = B::sum_over_ranks(&grads.consume::<B>(&ops.node));
        if let [Some(values)] = ops.parents {
            grads.register::<B>(values.id, dy);
        }
    }
}

impl<B: RankKernels, C: CheckpointStrategy> RankOp for Autodiff<B, C> {
    fn sum_over_ranks_op(values: FloatTensor<Self>) -> FloatTensor<Self> {
        let (values, node) = values.into_parts();
        let sums = B::sum_over_ranks(&values);
        record!(B, C, SumBackward, [node], sums, ())
    }
}

/// Sums over the ranks of this thread, `[M]`, on the CPU.
pub(crate) fn sum_over_ranks(values: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::sum_over_ranks_op(values.into_dispatch()))
}

/// Mean and biased variance over the images of all ranks that share them, from those of each, and
/// how many ranks that are.
pub(in crate::nn) fn moments([mean, variance]: [Tensor<1>; 2]) -> ([Tensor<1>; 2], usize) {
    let Some(ranks) = scope::sharing_statistics() else { return ([mean, variance], 1) };
    let [means, variances] = [&mean, &variance].map(|values| scope::values_of(&ranks, values));
    // f64 keeps 29 bits more than f32: the square of an f32 mean is exact in it, and sum and
    // difference keep all bits of an f32 variance that is not below 2^-29 of that square.
    let squares = means.iter().zip(&variances).map(|(&mean, &variance)| {
        let mean = f64::from(mean);
        f64::from(variance) + mean * mean
    });
    let mut sums: Vec<f64> = means.iter().map(|&mean| f64::from(mean)).chain(squares).collect();
    scope::sum_values(&mut sums);
    let world = ranks.world() as f64;
    let (first, second) = sums.split_at(means.len());
    let tensor = |values: Vec<f32>| {
        let len = values.len();
        Tensor::from_data(TensorData::new(values, [len]), &mean.device())
    };
    let new_means = first.iter().map(|sum| (sum / world) as f32).collect();
    let new_variances = first.iter().zip(second).map(|(mean, square)| {
        let mean = mean / world;
        let variance = square / world - mean * mean;
        // `max` would turn NaN into 0 and hide a diverged network.
        if variance < 0.0 { 0.0 } else { variance as f32 }
    });
    ([tensor(new_means), tensor(new_variances.collect())], ranks.world())
}
