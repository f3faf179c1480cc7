//! Cross-entropy of each sample with label smoothing.

use burn::{
    backend::tensor::IntTensor,
    tensor::{DType, Int},
};
use sora_kernels::loss::softmax_cross_entropy;

use super::{
    buffers::Output,
    extension::*,
    flex::{dims, floats, ok},
};

/// The kernels of the loss, forward and backward.
pub trait LossKernels: Backend {
    /// Computes the loss of each sample, `[N]`, and its gradient by the sample's logits, `[N, K]`.
    fn cross_entropy(
        logits: &FloatTensor<Self>,
        labels: &IntTensor<Self>,
        smoothing: f32,
    ) -> [FloatTensor<Self>; 2];

    /// Computes `x[i][..] factor[i]` for each row i.
    fn scale_rows(x: &FloatTensor<Self>, factor: &FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LossKernels for Flex {
    fn cross_entropy(
        logits: &FlexTensor,
        labels: &IntTensor<Flex>,
        smoothing: f32,
    ) -> [FlexTensor; 2] {
        let (logits, labels) = (logits.to_contiguous(), labels.to_contiguous());
        let [n, classes] = dims(&logits);
        // A negative label becomes one that is too large, which is refused.
        let label = |v: i64| u32::try_from(v).unwrap_or(u32::MAX);
        let labels: Vec<u32> = match labels.dtype() {
            DType::I64 => labels.storage::<i64>().iter().map(|&v| label(v)).collect(),
            DType::I32 => labels.storage::<i32>().iter().map(|&v| label(i64::from(v))).collect(),
            #[allow(clippy::panic, reason = "labels are made by this crate, of one type")]
            other => panic!("engine: labels of type {other:?}"),
        };
        let (mut loss, mut gradient) = (Output::new([n]), Output::new([n, classes]));
        ok(softmax_cross_entropy(
            floats(&logits),
            &labels,
            classes,
            smoothing,
            loss.as_mut(),
            Some((gradient.as_mut(), 1.0)),
        ));
        [loss.finish(), gradient.finish()]
    }

    fn scale_rows(x: &FlexTensor, factor: &FlexTensor) -> FlexTensor {
        let (x, factor) = (x.to_contiguous(), factor.to_contiguous());
        let shape @ [_, columns] = dims::<2>(&x);
        let mut y = Output::new(shape);
        let rows = y
            .as_mut()
            .chunks_mut(columns.max(1))
            .zip(floats(&x).chunks(columns.max(1)))
            .zip(floats(&factor));
        rows.for_each(|((y, x), factor)| y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor));
        y.finish()
    }
}

/// The loss, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait LossOp: Backend {
    /// Cross-entropy of each row of `logits` `[N, K]` against `(1 - smoothing) onehot(label) +
    /// smoothing / K`: `[N]`.
    fn cross_entropy_op(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        smoothing: f32,
    ) -> FloatTensor<Self>;
}

impl LossOp for Flex {
    fn cross_entropy_op(logits: FlexTensor, labels: IntTensor<Flex>, smoothing: f32) -> FlexTensor {
        let [loss, _] = Self::cross_entropy(&logits, &labels, smoothing);
        loss
    }
}

#[derive(Debug)]
struct LossBackward;

impl<B: LossKernels> Backward<B, 1> for LossBackward {
    /// The gradient of each sample's loss by its logits, `[N, K]`.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(logits)] = ops.parents {
            grads.register::<B>(logits.id, B::scale_rows(&ops.state, &dy));
        }
    }
}

impl<B: LossKernels, C: CheckpointStrategy> LossOp for Autodiff<B, C> {
    fn cross_entropy_op(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        let (logits, of_logits) = logits.into_parts();
        let [loss, gradient] = B::cross_entropy(&logits, &labels, smoothing);
        record!(B, C, LossBackward, [of_logits], loss, gradient)
    }
}

/// Cross-entropy of each sample with label smoothing, on the CPU.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    smoothing: f32,
) -> Tensor<1> {
    let (logits, labels) = (logits.into_dispatch(), labels.into_dispatch());
    Tensor::from_dispatch(Dispatch::cross_entropy_op(logits, labels, smoothing))
}
