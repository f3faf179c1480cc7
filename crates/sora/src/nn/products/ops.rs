//! Convolutions and matrix products as operations whose backend Burn's dispatch chooses, with their
//! backward passes.

#[cfg(feature = "gpu")]
use burn::tensor::{DType, Shape};
use burn::{
    backend::ops::{FloatTensorOps, ModuleOps},
    tensor::{FloatDType, ops::ConvOptions},
};

use crate::nn::engine::extension::*;

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
    #[fusion(dtype = DType::F32, shape = w)]
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
        sora_devices::product::matmul(a, b)
    }
}

/// The first 8 significant bits of each element, and the rest of it.
pub(super) fn parts<B: Backend>(t: FloatTensor<B>) -> [FloatTensor<B>; 2] {
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
