//! Attention of every token to every token.

use sora_kernels::attention::Attention;

use super::{
    buffers::Output,
    extension::*,
    flex::{dims, floats, isa, ok},
};
use crate::profile::{self, Stage};

/// The kernels of attention over `heads` heads of queries, keys and values side by side, forward
/// and backward.
pub trait AttentionKernels: Backend {
    /// `[N, T, 3 F]` to `[N, T, F]`.
    fn attention_forward(qkv: &FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// Gradient by `qkv`.
    fn attention_grad(
        qkv: &FloatTensor<Self>,
        heads: usize,
        dout: &FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The kernel for `qkv` `[N, T, 3 F]`, and the shape of its output.
fn kernel(qkv: &FlexTensor, heads: usize) -> (Attention, [usize; 3]) {
    let [n, tokens, features] = dims(qkv);
    let features = features / 3;
    (Attention { tokens, heads, width: features / heads.max(1) }, [n, tokens, features])
}

impl AttentionKernels for Flex {
    fn attention_forward(qkv: &FlexTensor, heads: usize) -> FlexTensor {
        let qkv = qkv.to_contiguous();
        let (kernel, shape) = kernel(&qkv, heads);
        let mut out = Output::new(shape);
        ok(profile::time(Stage::Attention, || kernel.forward(isa(), floats(&qkv), out.as_mut())));
        out.finish()
    }

    fn attention_grad(qkv: &FlexTensor, heads: usize, dout: &FlexTensor) -> FlexTensor {
        let (qkv, dout) = (qkv.to_contiguous(), dout.to_contiguous());
        let (kernel, _) = kernel(&qkv, heads);
        let mut dqkv = Output::new(dims::<3>(&qkv));
        ok(profile::time(Stage::Attention, || {
            kernel.backward(isa(), floats(&qkv), floats(&dout), dqkv.as_mut())
        }));
        dqkv.finish()
    }
}

/// Attention, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait AttentionOp: Backend {
    /// Attention over `heads` heads: `[N, T, 3 F]` to `[N, T, F]`.
    fn attention_op(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;
}

impl AttentionOp for Flex {
    fn attention_op(qkv: FlexTensor, heads: usize) -> FlexTensor {
        Self::attention_forward(&qkv, heads)
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionKernels> Backward<B, 1> for AttentionBackward {
    /// The input and the number of heads.
    type State = (FloatTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let (qkv, heads) = &ops.state;
            grads.register::<B>(node.id, B::attention_grad(qkv, *heads, &dy));
        }
    }
}

impl<B: AttentionKernels, C: CheckpointStrategy> AttentionOp for Autodiff<B, C> {
    fn attention_op(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let (qkv, of_qkv) = qkv.into_parts();
        let y = B::attention_forward(&qkv, heads);
        record!(B, C, AttentionBackward, [of_qkv], y, (qkv, heads))
    }
}

pub(in crate::nn) fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::attention_op(qkv.into_dispatch(), heads))
}
