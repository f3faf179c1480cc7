//! The entry of images into the network: their normalisation, and the layout of the kernels.

use rayon::prelude::*;
use sora_kernels::layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc};

use super::{
    buffers::Output,
    extension::*,
    flex::{by_type, dims, floats, map_type, ok, values},
};
use crate::{
    nn::Precision,
    profile::{self, Stage},
};

/// The kernels of normalisation and layout, forward and backward.
pub trait LayoutKernels: Backend {
    /// `(x - mean) scale` for each channel of `[N, C, H, W]`; without a mean, `x scale`.
    fn normalize(x: &FloatTensor<Self>, mean: Option<&[f32]>, scale: &[f32]) -> FloatTensor<Self>;

    /// `[N, C, H, W]` in f32 to `[H, W, N, C]`, stored in bf16 (`half`) or f32.
    fn enter(x: &FloatTensor<Self>, half: bool) -> FloatTensor<Self>;

    /// `[H, W, N, C]` to `[N, C, H, W]` in f32.
    fn leave(x: &FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LayoutKernels for Flex {
    fn normalize(x: &FlexTensor, mean: Option<&[f32]>, scale: &[f32]) -> FlexTensor {
        let x = x.to_contiguous();
        let shape @ [_, c, h, w] = dims::<4>(&x);
        let plane = h * w;
        let mut y = Output::new(shape);
        profile::time(Stage::Layout, || {
            let images = y
                .as_mut()
                .par_chunks_mut((c * plane).max(1))
                .zip(floats(&x).par_chunks((c * plane).max(1)));
            images.for_each(|(y, x)| {
                let planes = y.chunks_mut(plane).zip(x.chunks(plane)).zip(scale).enumerate();
                planes.for_each(|(channel, ((y, x), &scale))| {
                    match mean.and_then(|mean| mean.get(channel)) {
                        Some(&mean) => {
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale)
                        }
                        None => y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * scale),
                    }
                });
            });
        });
        y.finish()
    }

    fn enter(x: &FlexTensor, half: bool) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, h, w] = dims(&x);
        let mut y = Output::of([h, w, n, c].into(), map_type(half));
        by_type!(y, E => ok(profile::time(Stage::Layout, || {
            nchw_to_hwnc(Dimensions { n, c, h, w }, floats(&x), y.elements::<E>())
        })));
        y.finish()
    }

    fn leave(x: &FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let [h, w, n, c] = dims(&x);
        let mut y = Output::new([n, c, h, w]);
        by_type!(x, E => ok(profile::time(Stage::Layout, || {
            hwnc_to_nchw(Dimensions { n, c, h, w }, values::<E>(&x), y.as_mut())
        })));
        y.finish()
    }
}

/// Normalisation and entry, as operations whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait LayoutOp: Backend {
    /// `(x - mean) scale` for each channel of `[N, C, H, W]`.
    fn normalize_op(x: FloatTensor<Self>, mean: Vec<f32>, scale: Vec<f32>) -> FloatTensor<Self>;

    /// `[N, C, H, W]` in f32 to `[H, W, N, C]`, stored in bf16 (`half`) or f32. Later layers keep
    /// the storage type of the map that they get.
    fn enter_op(x: FloatTensor<Self>, half: bool) -> FloatTensor<Self>;
}

impl LayoutOp for Flex {
    fn normalize_op(x: FlexTensor, mean: Vec<f32>, scale: Vec<f32>) -> FlexTensor {
        Self::normalize(&x, Some(&mean), &scale)
    }

    fn enter_op(x: FlexTensor, half: bool) -> FlexTensor {
        Self::enter(&x, half)
    }
}

#[derive(Debug)]
struct NormalizeBackward;

impl<B: LayoutKernels> Backward<B, 1> for NormalizeBackward {
    /// The scale.
    type State = Vec<f32>;

    fn backward(self, ops: Ops<Vec<f32>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::normalize(&dy, None, &ops.state));
        }
    }
}

#[derive(Debug)]
struct EnterBackward;

impl<B: LayoutKernels> Backward<B, 1> for EnterBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::leave(&dy));
        }
    }
}

impl<B: LayoutKernels, C: CheckpointStrategy> LayoutOp for Autodiff<B, C> {
    fn normalize_op(x: FloatTensor<Self>, mean: Vec<f32>, scale: Vec<f32>) -> FloatTensor<Self> {
        let (x, of_x) = x.into_parts();
        let y = B::normalize(&x, Some(&mean), &scale);
        record!(B, C, NormalizeBackward, [of_x], y, scale)
    }

    fn enter_op(x: FloatTensor<Self>, half: bool) -> FloatTensor<Self> {
        let (x, of_x) = x.into_parts();
        let y = B::enter(&x, half);
        record!(B, C, EnterBackward, [of_x], y, ())
    }
}

pub(in crate::nn) fn normalize(x: Tensor<4>, mean: &[f32], std: &[f32]) -> Tensor<4> {
    let scale = std.iter().map(|s| s.recip()).collect();
    Tensor::from_dispatch(Dispatch::normalize_op(x.into_dispatch(), mean.to_vec(), scale))
}

pub(in crate::nn) fn enter(x: Tensor<4>, precision: Precision) -> Tensor<4> {
    let half = precision == Precision::Bf16;
    Tensor::from_dispatch(Dispatch::enter_op(x.into_dispatch(), half))
}
