//! The arithmetic of convolutions and matrix products on a device, and the effect of `precision` on
//! it.
//!
//! A CUDA card multiplies f32 on its tensor cores in tf32, with 11 significant bits of each
//! operand. Where f32 is requested, this module splits each operand into the sum of two parts, so
//! that three products in tf32 make one of about 18 bits (Ootomo and Yokota 2022, arXiv 2203.03341,
//! with a first part of 8 bits, to which every device can round).

mod ops;

use burn::tensor::{Device, FloatDType, ops::ConvOptions};
use ops::ProductOp as _;

use super::{Backend as Layers, Precision, engine::extension::*};
use crate::{
    device,
    error::{Error, Result},
};

/// The way in which the operands of a convolution or a matrix product are multiplied; sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// The operands are multiplied as the device multiplies f32.
    Whole,
    /// The operands are split into two parts, each multiplied as in [`Whole`](Self::Whole): f32 on
    /// a device that multiplies in tf32.
    Split,
    /// bf16 operands are multiplied.
    Bf16,
}

impl Products {
    /// The products for f32 on `device`.
    pub(crate) fn of_f32(device: &Device) -> Self {
        if device::multiplies_in_tf32(device) { Self::Split } else { Self::Whole }
    }

    /// The products for `precision` on `device`.
    ///
    /// # Errors
    /// [`Error`] for a precision that the device does not have.
    pub fn of(precision: Precision, device: &Device) -> Result<Self> {
        let refused = |problem| Err(Error::setting("precision", precision, problem));
        match precision {
            Precision::F32 => Ok(Self::of_f32(device)),
            Precision::Tf32 if device::multiplies_in_tf32(device) => Ok(Self::Whole),
            Precision::Tf32 => {
                refused("tf32 is how CUDA cards from Ampere on multiply; expected f32 or bf16")
            }
            Precision::Bf16
                if Layers::of(device) == Layers::Burn
                    && !device.supports_dtype(FloatDType::BF16) =>
            {
                refused("the device does not compute in bf16; expected f32")
            }
            Precision::Bf16 => Ok(Self::Bf16),
        }
    }

    /// Convolution by Burn's operations of `x` `[N, in, H, W]` with `w` `[out, in / groups, k, k]`
    /// and bias `[out]`. The result is bf16 if the products are.
    pub fn conv2d(
        self,
        x: Tensor<4>,
        w: Tensor<4>,
        bias: Option<Tensor<1>>,
        options: ConvOptions<2>,
    ) -> Tensor<4> {
        let conv = |x: Tensor<4>, w: Tensor<4>| {
            Tensor::from_dispatch(Dispatch::conv(
                x.into_dispatch(),
                w.into_dispatch(),
                options.clone(),
            ))
        };
        let y = match self {
            Self::Whole => conv(x, w),
            Self::Split => Tensor::from_dispatch(Dispatch::split_conv(
                x.into_dispatch(),
                w.into_dispatch(),
                options,
            )),
            Self::Bf16 => conv(half(x), half_weight(w)),
        };
        let Some(bias) = bias else { return y };
        let channels = bias.dims()[0];
        wide(y) + bias.reshape([1, channels, 1, 1])
    }

    /// The matrix product in f32 over the last two dimensions of tensors whose other dimensions
    /// agree.
    pub(super) fn matmul<const D: usize>(self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        let product = |a: Tensor<D>, b: Tensor<D>| {
            Tensor::from_dispatch(Dispatch::product(a.into_dispatch(), b.into_dispatch()))
        };
        match self {
            Self::Whole => product(a, b),
            Self::Split => {
                Tensor::from_dispatch(Dispatch::split_matmul(a.into_dispatch(), b.into_dispatch()))
            }
            Self::Bf16 => wide(product(half(a), half(b))),
        }
    }

    /// A fully connected layer over the last dimension of `x`; weight `[in, out]`, bias `[out]`.
    pub(super) fn linear<const D: usize>(
        self,
        x: Tensor<D>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let mut shape = x.dims();
        let [features, out] = weight.dims();
        let rows: usize = shape[..D - 1].iter().product();
        shape[D - 1] = out;
        let y = self.matmul(x.reshape([rows, features]), weight);
        bias.map_or(y.clone(), |bias| y + bias.reshape([1, out])).reshape(shape)
    }
}

/// `t` in f32; the tensor itself if it is f32 already.
pub(super) fn wide<const D: usize>(t: Tensor<D>) -> Tensor<D> {
    t.cast(FloatDType::F32)
}

/// `t` in bf16, rounded to nearest even.
pub(super) fn half<const D: usize>(t: Tensor<D>) -> Tensor<D> {
    t.cast(FloatDType::BF16)
}

/// The weight `[out, in, k, k]` in bf16, with the channels next to each other in memory, as the kernels
/// of devices read it: one kernel where rounding it first would be two.
fn half_weight(w: Tensor<4>) -> Tensor<4> {
    half(w.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}

#[cfg(test)]
mod tests;
