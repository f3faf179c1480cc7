//! What the tests share. They run on Vulkan: scripts/gpu/lavapipe.sh has one for the CPU.

use burn::{
    backend::ops::FloatTensorOps,
    tensor::{Shape, TensorData},
};
use burn_cubecl::{CubeBackend, CubeDevice, tensor::CubeTensor};

pub(crate) fn tensor(values: &[f32], shape: impl Into<Shape>) -> CubeTensor {
    let data = TensorData::new(values.to_vec(), shape.into());
    CubeBackend::float_from_data(data, &device())
}

pub(crate) fn device() -> CubeDevice {
    cubecl::wgpu::WgpuDevice::default().on(cubecl::wgpu::WgpuBackend::Vulkan).into()
}

pub(crate) fn read(t: CubeTensor) -> Vec<f32> {
    let data = cubecl::future::block_on(CubeBackend::float_into_data(t)).expect("a working device");
    data.try_to_vec_as::<f32>().expect("values in f32")
}

/// Values in (-1, 1) that look random.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; len];
    let key = sora_rng::Key::new(seed, sora_rng::Purpose::Diagnose(0));
    sora_rng::fill_uniform(&mut values, key, &[0]);
    values.iter().map(|v| v * 2.0 - 1.0).collect()
}

#[track_caller]
pub(crate) fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "{at}: {found}, not {expected}");
    }
}
