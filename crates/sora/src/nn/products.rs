//! The arithmetic of convolutions and matrix products on a device, and the effect of `precision` on
//! it.
//!
//! A CUDA card multiplies f32 on its tensor cores in tf32, with 11 significant bits of each
//! operand. Where f32 is requested, this module splits each operand into the sum of two parts, so
//! that three products in tf32 make one of about 18 bits (Ootomo and Yokota 2022, arXiv 2203.03341,
//! with a first part of 8 bits, to which every device can round).

#[cfg(feature = "gpu")]
use burn::tensor::Shape;
use burn::{
    backend::ops::{FloatTensorOps, ModuleOps},
    tensor::{Device, FloatDType, ops::ConvOptions},
};

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
            Self::Bf16 => conv(half(x), half(w)),
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

/// The gradients of convolutions of operands of one type.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait ConvKernels: Backend {
    /// The gradient for `x`.
    #[fusion(dtype = dy, shape = x)]
    fn conv_input_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// The gradient for `w`, in f32.
    #[fusion(dtype = burn::tensor::DType::F32, shape = w)]
    fn conv_weight_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;
}

/// The shape of a convolution's result.
#[cfg(feature = "gpu")]
fn conv_shape(x: &Shape, w: &Shape, options: &ConvOptions<2>) -> Shape {
    let ([n, _, height, width], [out, _, kernel, _]) = (x.dims::<4>(), w.dims::<4>());
    let size = |pixels: usize, axis: usize| {
        let (before, behind) = options.padding[axis];
        (pixels + before + behind - kernel) / options.stride[axis] + 1
    };
    Shape::from([n, out, size(height, 0), size(width, 1)])
}

/// The shape of a matrix product.
#[cfg(feature = "gpu")]
fn product_shape(a: &Shape, b: &Shape) -> Shape {
    let (mut shape, last) = (a.clone(), a.num_dims() - 1);
    shape[last] = b[last];
    shape
}

impl ConvKernels for Flex {
    fn conv_input_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(x, w, dy, options)
    }

    fn conv_weight_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::float_cast(Self::conv2d_weight_backward(x, w, dy, options), FloatDType::F32)
    }
}

#[cfg(feature = "gpu")]
impl ConvKernels for sora_devices::CubeBackend {
    fn conv_input_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        sora_devices::conv::input_gradient(dy, w, x.meta.shape().dims(), options)
    }

    fn conv_weight_gradient(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        sora_devices::conv::weight_gradient(x, dy, w.meta.shape().dims(), options)
    }
}

/// Products of tensors, as operations whose backend [`Dispatch`] chooses; those with `split` are of
/// f32 operands in two parts.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub trait ProductOp: Backend {
    /// Convolution of `x` `[N, in, H, W]` with `w` `[out, in / groups, k, k]`, of one type.
    #[fusion(dtype = x, shape = conv_shape(x, w, options))]
    fn conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// [`conv`](Self::conv) of split operands.
    #[fusion(default)]
    fn split_conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        split::<Self>(x, w, |x, w| Self::conv(x, w, options.clone()))
    }

    /// The matrix product over the last two dimensions of tensors of one type; the other dimensions
    /// agree.
    #[fusion(dtype = a, shape = product_shape(a, b))]
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;

    /// [`product`](Self::product) of split operands.
    #[fusion(default)]
    fn split_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        split::<Self>(a, b, |a, b| Self::product(a, b))
    }
}

impl ProductOp for Flex {
    fn conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, w, None, options)
    }

    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(a, b)
    }
}

#[cfg(feature = "gpu")]
impl ProductOp for sora_devices::CubeBackend {
    fn conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        sora_devices::conv::forward(x, w, options)
    }

    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        sora_devices::conv::matmul(a, b)
    }
}

/// The first 8 significant bits of each element, and the rest of it.
fn parts<B: Backend>(t: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let high = B::float_cast(B::float_cast(t.clone(), FloatDType::BF16), FloatDType::F32);
    let low = B::float_sub(t, high.clone());
    [high, low]
}

/// A bilinear function of `a` and `b` as the sum of three products of their parts. The large parts
/// are exact in tf32; the small products are summed first.
fn split<B: Backend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    f: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let [a_high, a_low] = parts::<B>(a);
    let [b_high, b_low] = parts::<B>(b.clone());
    let small = B::float_add(f(a_low, b), f(a_high.clone(), b_low));
    B::float_add(small, f(a_high, b_high))
}

#[derive(Debug)]
struct ConvBackward {
    split: bool,
}

/// Parents: x and w.
impl<B: ConvKernels> Backward<B, 2> for ConvBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, ConvOptions<2>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w, options) = ops.state;
        let [of_x, of_w] = ops.parents;
        let product = |a, b, f: &dyn Fn(_, _) -> FloatTensor<B>| {
            if self.split { split::<B>(a, b, f) } else { f(a, b) }
        };
        if let Some(node) = of_x {
            let dx = product(dy.clone(), w.clone(), &|dy, w| {
                B::conv_input_gradient(x.clone(), w, dy, options.clone())
            });
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = of_w {
            let dw =
                product(dy, x, &|dy, x| B::conv_weight_gradient(x, w.clone(), dy, options.clone()));
            grads.register::<B>(node.id, dw);
        }
    }
}

#[derive(Debug)]
struct MatmulBackward {
    split: bool,
}

/// Parents: a and b.
impl<B: ProductOp> Backward<B, 2> for MatmulBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (a, b) = ops.state;
        let [of_a, of_b] = ops.parents;
        let product = |a, b| if self.split { B::split_matmul(a, b) } else { B::product(a, b) };
        if let Some(node) = of_a {
            grads.register::<B>(node.id, product(dy.clone(), B::float_transpose(b)));
        }
        if let Some(node) = of_b {
            grads.register::<B>(node.id, product(B::float_transpose(a), dy));
        }
    }
}

impl<B: ProductOp + ConvKernels, C: CheckpointStrategy> ProductOp for Autodiff<B, C> {
    fn conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let ((x, of_x), (w, of_w)) = (x.into_parts(), w.into_parts());
        let y = B::conv(x.clone(), w.clone(), options.clone());
        record!(B, C, ConvBackward { split: false }, [of_x, of_w], y, (x, w, options))
    }

    fn split_conv(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let ((x, of_x), (w, of_w)) = (x.into_parts(), w.into_parts());
        let y = B::split_conv(x.clone(), w.clone(), options.clone());
        record!(B, C, ConvBackward { split: true }, [of_x, of_w], y, (x, w, options))
    }

    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((a, of_a), (b, of_b)) = (a.into_parts(), b.into_parts());
        let y = B::product(a.clone(), b.clone());
        record!(B, C, MatmulBackward { split: false }, [of_a, of_b], y, (a, b))
    }

    fn split_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((a, of_a), (b, of_b)) = (a.into_parts(), b.into_parts());
        let y = B::split_matmul(a.clone(), b.clone());
        record!(B, C, MatmulBackward { split: true }, [of_a, of_b], y, (a, b))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData};

    use super::*;

    fn noise<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn host<const D: usize>(t: &Tensor<D>) -> Vec<f32> {
        t.clone().into_data().try_to_vec().unwrap()
    }

    /// Value and gradients of a bilinear function, with a weight on each element of the result.
    fn pulled_back<const D: usize>(
        [a, b]: [&Tensor<D>; 2],
        f: impl Fn(Tensor<D>, Tensor<D>) -> Tensor<D>,
    ) -> [Vec<f32>; 3] {
        let [a, b] = [a, b].map(|t| t.clone().autodiff().require_grad());
        let y = f(a.clone(), b.clone());
        let len: usize = y.dims().iter().product();
        let ramp: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
        let weight = Tensor::from_data(TensorData::new(ramp, y.dims()), &y.device());
        let mut gradients = (y.clone() * weight).sum().backward();
        let [da, db] = [a, b].map(|t| host(&t.grad_remove(&mut gradients).unwrap()));
        [host(&y.inner()), da, db]
    }

    fn agree(whole: [Vec<f32>; 3], split: [Vec<f32>; 3], tolerance: f32) {
        for (what, (whole, split)) in ["y", "da", "db"].iter().zip(whole.iter().zip(&split)) {
            let scale = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
            let off = whole.iter().zip(split).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(scale > 0.1 && off < tolerance * scale, "{what}: off by {off} of {scale}");
        }
    }

    #[test]
    fn split_products_are_the_whole_ones_forward_and_backward() {
        for (stride, groups) in [(1, 1), (2, 1), (1, 2)] {
            let (x, w) = (noise([2, 4, 7, 6]), noise([6, 4 / groups, 3, 3]));
            let options = || ConvOptions::new([stride; 2], [1; 2], [1; 2], groups);
            let by = |products: Products| {
                pulled_back([&x, &w], |x, w| products.conv2d(x, w, None, options()))
            };
            agree(by(Products::Whole), by(Products::Split), 1e-5);
        }
        let (a, b) = (noise([2, 5, 8]), noise([2, 8, 3]));
        let by = |products: Products| pulled_back([&a, &b], |a, b| products.matmul(a, b));
        agree(by(Products::Whole), by(Products::Split), 1e-5);
    }

    #[test]
    fn products_in_bf16_round_their_operands_and_little_else() {
        let (x, w) = (noise([2, 4, 7, 6]), noise([6, 4, 3, 3]));
        let options = || ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
        let by = |products: Products| {
            pulled_back([&x, &w], |x, w| wide(products.conv2d(x, w, None, options())))
        };
        let (whole, rounded) = (by(Products::Whole), by(Products::Bf16));
        assert_ne!(whole[0], rounded[0]);
        agree(whole, rounded, 0.02);
    }

    #[test]
    fn a_bias_and_more_dimensions_make_no_difference() {
        let (x, weight, bias) = (noise([2, 3, 8]), noise([8, 5]), noise([5]));
        let whole = Products::Whole.linear(x.clone(), weight.clone(), Some(bias.clone()));
        let split = Products::Split.linear(x, weight, Some(bias));
        assert_eq!(split.dims(), [2, 3, 5]);
        let (whole, split) = (host(&whole), host(&split));
        assert!(whole.iter().zip(&split).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    /// An operand as tensor cores take it: 10 bits after the leading one, rounded to nearest.
    fn tf32(v: f32) -> f64 {
        f64::from(f32::from_bits((v.to_bits() + 0x1000) & !0x1fff))
    }

    #[test]
    fn three_products_in_tf32_have_about_18_bits() {
        let (a, b) = (noise([512]), noise([512]));
        let as_parts = |t: &Tensor<1>| {
            parts::<Dispatch>(t.clone().into_dispatch())
                .map(|part| host(&Tensor::<1>::from_dispatch(part)))
        };
        let ([a_high, a_low], [b_high, b_low]) = (as_parts(&a), as_parts(&b));
        let (a, b) = (host(&a), host(&b));
        let (mut one, mut three) = (0f64, 0f64);
        for i in 0..a.len() {
            assert_eq!(a_high[i] + a_low[i], a[i], "the parts are all there is");
            let exact = f64::from(a[i]) * f64::from(b[i]);
            let of = |a: f32, b: f32| tf32(a) * tf32(b);
            one = one.max((of(a[i], b[i]) / exact - 1.0).abs());
            let sum = of(a_low[i], b[i]) + of(a_high[i], b_low[i]) + of(a_high[i], b_high[i]);
            three = three.max((sum / exact - 1.0).abs());
        }
        assert!(one > 2f64.powi(-13), "{one}: a single product has 11 bits");
        // A rest is at most 2^-8 of its operand and loses at most 2^-11 of itself, and so does the
        // other factor.
        assert!(three < 3.0 * 2f64.powi(-19), "{three}");
    }

    #[test]
    fn the_cpu_has_no_tf32() {
        let device = Device::flex();
        assert_eq!(Products::of(Precision::F32, &device).unwrap(), Products::Whole);
        assert_eq!(Products::of(Precision::Bf16, &device).unwrap(), Products::Bf16);
        let error = Products::of(Precision::Tf32, &device).unwrap_err().to_string();
        assert!(error.contains("tf32") && error.contains("f32 or bf16"), "{error}");
    }
}
