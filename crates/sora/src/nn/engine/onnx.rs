//! The graph of an ONNX file as one operation, from images to logits.

use std::sync::Arc;

use sora_onnx::{Shape, Tape, Trainable, Values, Wanted};

use super::{
    buffers::Output,
    extension::*,
    flex::{dims, floats},
};

/// A graph and the values of its weights.
#[derive(Clone, Debug)]
pub struct OnnxPlan {
    pub graph: Arc<Trainable>,
    pub values: Vec<Values>,
}

/// The passes of a graph, forward and backward.
pub trait OnnxKernels: Backend {
    /// Logits `[N, classes]` of images `[N, C, H, W]`.
    fn onnx_logits(x: &FloatTensor<Self>, plan: &OnnxPlan) -> FloatTensor<Self>;

    /// The same, with the record of the pass; none for a pass that failed.
    fn onnx_record(x: &FloatTensor<Self>, plan: &OnnxPlan) -> (FloatTensor<Self>, Option<Tape>);

    /// The gradients by the images and by the trained weights, one after the other, as far as they
    /// are wanted.
    fn onnx_gradients(
        dy: &FloatTensor<Self>,
        state: OnnxState,
        wanted: Wanted,
    ) -> [Option<FloatTensor<Self>>; 2];
}

/// What a backward pass needs.
#[derive(Clone, Debug)]
pub struct OnnxState {
    plan: OnnxPlan,
    tape: Option<Tape>,
}

/// A result of the graph. A graph passes on images of every shape that it was tried with when it
/// was read. Where one fails nevertheless, the result is not finite, with which training stops.
fn or_not_finite<T>(result: sora_onnx::Result<T>) -> Option<T> {
    result.inspect_err(|e| tracing::error!("{e}")).ok()
}

fn filled<const D: usize>(shape: [usize; D], values: &[f32]) -> FlexTensor {
    let mut out = Output::new(shape);
    let target = out.as_mut();
    match values.len() == target.len() {
        true => target.copy_from_slice(values),
        false => target.fill(f32::NAN),
    }
    out.finish()
}

fn logits(x: &FlexTensor, plan: &OnnxPlan, values: &[f32]) -> FlexTensor {
    filled([dims::<4>(x)[0], plan.graph.shape().classes], values)
}

impl OnnxKernels for Flex {
    fn onnx_logits(x: &FlexTensor, plan: &OnnxPlan) -> FlexTensor {
        let x = x.to_contiguous();
        let found = or_not_finite(plan.graph.logits(&plan.values, floats(&x)));
        logits(&x, plan, &found.unwrap_or_default())
    }

    fn onnx_record(x: &FlexTensor, plan: &OnnxPlan) -> (FlexTensor, Option<Tape>) {
        let x = x.to_contiguous();
        let recorded = or_not_finite(plan.graph.record(&plan.values, floats(&x)));
        let (found, tape) = recorded.unzip();
        (logits(&x, plan, &found.unwrap_or_default()), tape)
    }

    fn onnx_gradients(
        dy: &FlexTensor,
        state: OnnxState,
        wanted: Wanted,
    ) -> [Option<FlexTensor>; 2] {
        let OnnxState { plan, tape } = state;
        let dy = dy.to_contiguous();
        let Shape { channels, height, width, .. } = plan.graph.shape();
        let images = [dims::<2>(&dy)[0], channels, height, width];
        let found =
            tape.and_then(|tape| or_not_finite(plan.graph.pull_back(tape, floats(&dy), wanted)));
        let sora_onnx::Gradients { input, weights } = found.unwrap_or_default();
        [
            (wanted != Wanted::Weights).then(|| filled(images, &input)),
            (wanted != Wanted::Input).then(|| filled([plan.graph.trained_len()], &weights)),
        ]
    }
}

/// The graph as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait OnnxOp: Backend {
    /// Logits `[N, classes]` of `x` `[N, C, H, W]`; `weights` are the trained weights, one after the
    /// other, where their gradient is needed, else empty.
    fn onnx_op(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        plan: OnnxPlan,
    ) -> FloatTensor<Self>;
}

impl OnnxOp for Flex {
    fn onnx_op(x: FlexTensor, _weights: FlexTensor, plan: OnnxPlan) -> FlexTensor {
        Self::onnx_logits(&x, &plan)
    }
}

#[derive(Debug)]
struct OnnxBackward;

/// Parents: x, weights.
impl<B: OnnxKernels> Backward<B, 2> for OnnxBackward {
    type State = OnnxState;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [of_x, of_weights] = ops.parents;
        let wanted = match (&of_x, &of_weights) {
            (Some(_), Some(_)) => Wanted::Both,
            (None, Some(_)) => Wanted::Weights,
            (Some(_), None) => Wanted::Input,
            (None, None) => return,
        };
        let [dx, dw] = B::onnx_gradients(&dy, ops.state, wanted);
        for (node, gradient) in [(of_x, dx), (of_weights, dw)] {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: OnnxKernels, C: CheckpointStrategy> OnnxOp for Autodiff<B, C> {
    fn onnx_op(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        plan: OnnxPlan,
    ) -> FloatTensor<Self> {
        let tracked = x.is_tracked() || weights.is_tracked();
        let ((x, of_x), (_, of_weights)) = (x.into_parts(), weights.into_parts());
        let (y, tape) = match tracked {
            true => B::onnx_record(&x, &plan),
            false => (B::onnx_logits(&x, &plan), None),
        };
        let state = || OnnxState { plan, tape };
        record!(B, C, OnnxBackward, [of_x, of_weights], y, state())
    }
}

/// Logits `[N, classes]` of `x` `[N, C, H, W]`, which the graph takes as they are.
pub(in crate::nn) fn onnx(x: Tensor<4>, weights: Tensor<1>, plan: OnnxPlan) -> Tensor<2> {
    let y = Dispatch::onnx_op(x.into_dispatch(), weights.into_dispatch(), plan);
    Tensor::from_dispatch(y)
}
