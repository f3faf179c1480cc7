//! Helpers that the kernels share on Burn's CPU backend: tensors as slices, and memory for results.

use burn::tensor::{DType, Tensor};
use burn_flex::{Flex, FlexTensor};
use sora_kernels::{Element, Isa, ShapeError, bf16, conv::Addend};

use super::buffers::Output;

/// A storage type of feature maps and their gradients; all other values are f32.
pub(super) trait Stored: Element + burn::tensor::Element + bytemuck::Pod {}

impl Stored for f32 {}
impl Stored for bf16 {}

/// Runs `$body` with `$element` as the storage type of `$tensor`.
macro_rules! by_type {
    ($tensor:expr, $element:ident => $body:expr) => {
        match $tensor.dtype() {
            burn::tensor::DType::BF16 => {
                type $element = sora_kernels::bf16;
                $body
            }
            _ => {
                type $element = f32;
                $body
            }
        }
    };
}

pub(super) use by_type;

/// A contiguous tensor's floats.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.storage::<f32>()
}

/// A contiguous tensor's elements.
pub(super) fn values<E: Stored>(tensor: &FlexTensor) -> &[E] {
    tensor.storage::<E>()
}

/// `tensor` as one contiguous piece. The result's memory has no other owner if `tensor`'s had none.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// Shape of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// Memory for a result of `shape` with the storage type of `like`.
pub(super) fn output_like<const D: usize>(shape: [usize; D], like: &FlexTensor) -> Output {
    Output::of(shape.into(), like.dtype())
}

/// Adds the result of `run`, which has `shape` and the storage type of `like`, to `so_far`, in
/// place where `so_far` has no other owner.
pub(super) fn sum_into<E: Stored>(
    shape: [usize; 4],
    like: &FlexTensor,
    so_far: Option<FlexTensor>,
    mut run: impl FnMut(&mut Output, Addend<'_, E>),
) -> FlexTensor {
    let mut result;
    match so_far.map(Output::reuse) {
        None => {
            result = output_like(shape, like);
            run(&mut result, Addend::None);
        }
        Some(Ok(sum)) => {
            result = sum;
            run(&mut result, Addend::Output);
        }
        Some(Err(read)) => {
            result = output_like(shape, like);
            run(&mut result, Addend::Tensor(values(&read)));
        }
    }
    result.finish()
}

/// The storage type of feature maps.
pub(super) fn map_type(half: bool) -> DType {
    if half { DType::BF16 } else { DType::F32 }
}

/// The instruction set of this process. A program refuses a wrong setting before any tensor exists.
pub(super) fn isa() -> Isa {
    Isa::current().unwrap_or(Isa::Portable)
}

/// Unwraps a kernel's result. Shapes come from the network's own structure, so a mismatch is a
/// defect of this module, as in any tensor operation.
#[allow(clippy::panic, reason = "a mistake of this crate, out of reach of any input")]
#[track_caller]
pub(super) fn ok<T>(result: Result<T, ShapeError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("engine: {e}"),
    }
}

/// A tensor on the CPU without autodiff; the caller has checked the device.
#[allow(clippy::panic, reason = "a mistake of this crate, out of reach of any input")]
pub(super) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.try_into_primitive::<Flex>() {
        Ok(primitive) => primitive.to_contiguous(),
        Err(e) => panic!("engine: {e:?}"),
    }
}
