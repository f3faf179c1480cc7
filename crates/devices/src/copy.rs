//! Copies into memory that keeps its place.

use burn::{
    backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
    tensor::Tensor,
};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{
    prelude::*,
    std::tensor::layout::linear::{LinearView, LinearViewMut},
};

use crate::{contiguous, elem, one_each};

#[cube(launch)]
fn copy_kernel<E: Numeric>(
    source: LinearView<'_, E>,
    mut target: LinearViewMut<'_, E>,
    #[define(E)] _dtype: ElemType,
) {
    if !target.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    target.write(ABSOLUTE_POS, source.read(ABSOLUTE_POS));
}

fn copy(source: CubeTensor, target: &CubeTensor) {
    let client = source.client.clone();
    let (cube_count, cube_dim) = one_each(&client, source.meta.num_elements());
    let dtype = elem(&source);
    copy_kernel::launch(
        &client,
        cube_count,
        cube_dim,
        source.into_linear_view(),
        target.clone().into_linear_view(),
        dtype,
    );
}

/// Copies as operations of a backend.
#[backend_extension(Cube, Fusion)]
trait CopyOp: Backend {
    /// Copies `source` over the memory of `target`, of the same shape and type, and returns `target`.
    #[fusion(dtype = target, shape = target)]
    fn overwrite(target: FloatTensor<Self>, source: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Copies `source` to memory of its own.
    #[fusion(dtype = source, shape = source)]
    fn snapshot(source: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl CopyOp for CubeBackend {
    fn overwrite(target: FloatTensor<Self>, source: FloatTensor<Self>) -> FloatTensor<Self> {
        copy(source, &target);
        target
    }

    fn snapshot(source: FloatTensor<Self>) -> FloatTensor<Self> {
        let target = contiguous(&source, source.meta.shape().clone(), source.dtype);
        copy(source, &target);
        target
    }
}

/// Copies `source` over the memory of `target` (same shape and type, no autodiff) and returns
/// `target`. The copy takes place at the latest when the result is dropped or read.
pub(crate) fn overwrite<const D: usize>(target: Tensor<D>, source: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::overwrite(target.into_dispatch(), source.into_dispatch()))
}

/// A copy of `source` (no autodiff) in memory of its own.
pub fn snapshot<const D: usize>(source: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::snapshot(source.into_dispatch()))
}
