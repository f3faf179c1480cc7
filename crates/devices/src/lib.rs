//! What sora does itself on GPUs, beside Burn's operations: kernels in CubeCL, one source for CUDA,
//! Vulkan, Metal and ROCm, and launches that are recorded once and replayed.
//!
//! Without the feature `gpu` the crate is empty.

#![cfg(feature = "gpu")]

pub mod conv;
mod copy;
pub mod draws;
pub mod figures;
pub mod norm;
pub mod normal;
mod patches;
pub mod product;
mod read_back;
mod recording;
#[cfg(all(test, feature = "vulkan"))]
mod testing;
mod tiles;
pub mod update;

pub use burn_cubecl::CubeBackend;
pub use copy::snapshot;
pub use read_back::{Asked, ask};
pub use recording::{Recording, Slot};

use burn::tensor::{DType, Shape};
use burn_cubecl::{ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor};
use cubecl::{
    calculate_cube_count_elemwise,
    client::Client,
    ir::ElemType,
    prelude::{CubeCount, CubeDim},
};

/// Whether a launch was taken. Why the device refused it is told to who asks for details (`-v`).
fn taken<T, E: std::fmt::Debug>(kernel: impl FnOnce() -> String, launched: Result<T, E>) -> bool {
    if let Err(e) = &launched {
        tracing::debug!("{} refused: {e:?}", kernel());
    }
    launched.is_ok()
}

/// The storage type of `t`, as kernels name it.
fn elem(t: &CubeTensor) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(t.dtype)
}

/// Memory without content on the device of `like`.
fn contiguous(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// The cubes and their threads for `threads` pieces of work that do not depend on each other.
fn one_each(client: &Client, threads: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, threads);
    (calculate_cube_count_elemwise(client, threads, dim), dim)
}
