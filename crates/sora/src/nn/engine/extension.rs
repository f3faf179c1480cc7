//! What an operation of the engine takes of Burn: its backends, the steps of its backward pass, its
//! tensors.

pub(in crate::nn) use burn::{
    backend::{
        Autodiff, Backend, Dispatch,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
pub(in crate::nn) use burn_flex::{Flex, FlexTensor};

/// Records `$y`, a result on `$b`, with its backward pass if a parent needs a gradient; `$state` is
/// made in that case only.
macro_rules! record {
    ($b:ty, $strategy:ty, $backward:expr, $nodes:expr, $y:expr, $state:expr) => {
        match Backward::<$b, _>::prepare::<$strategy>($backward, $nodes).compute_bound().stateful()
        {
            OpsKind::Tracked(prep) => prep.finish($state, $y),
            OpsKind::UnTracked(prep) => prep.finish($y),
        }
    };
}

pub(in crate::nn) use record;
