//! The engine's operations on Burn's CPU backend, without autodiff.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};
use sora_kernels::{
    Isa, ShapeError,
    batch_norm::{BatchNorm, Statistics},
    channels::channel_moments,
    conv::{Addend, Conv2d, ConvGeometry, Direction, Epilogue, Moments},
    layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc},
    pool as pooling,
    sgd::Sgd,
};

use super::{ConvPlan, Engine, NormPlan, packed::packed, pool::Output};
use crate::profile::{self, Part};

/// PyTorch's default epsilon in the denominator of batch norm.
const BN_EPSILON: f32 = 1e-5;

/// A contiguous tensor's floats.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.storage::<f32>()
}

/// Shape of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// The instruction set of this process. The command line has refused a wrong setting before any tensor exists.
pub(super) fn isa() -> Isa {
    Isa::current().unwrap_or(Isa::Portable)
}

/// Shapes come from the network's own structure: a mismatch is a mistake in this module, as it would be in any tensor operation.
#[track_caller]
pub(super) fn ok<T>(result: Result<T, ShapeError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("engine: {e}"),
    }
}

/// The kernel for `x` and `w`, and the batch size.
pub(super) fn kernel([h, w, n, cin]: [usize; 4], [cout, _, kh, kw]: [usize; 4], plan: ConvPlan) -> (Conv2d, usize) {
    let geometry = ConvGeometry {
        in_channels: cin,
        out_channels: cout,
        input: [h, w],
        kernel: [kh, kw],
        stride: [plan.stride; 2],
        padding: [plan.padding; 2],
        groups: 1,
    };
    (ok(Conv2d::new(geometry, isa())), n)
}

/// Convolution plus `add`.
pub(super) fn conv(x: &FlexTensor, w: &FlexTensor, add: Option<&FlexTensor>, plan: ConvPlan) -> (FlexTensor, FlexTensor, FlexTensor) {
    let shape: [usize; 4] = dims(w);
    let (kernel, n) = kernel(dims(x), shape, plan);
    let [oh, ow] = kernel.geometry().output();
    let cout = shape[0];
    let weights = ok(packed(&kernel, floats(w), Direction::Forward, plan.version));
    let mut y = Output::new([oh, ow, n, cout]);
    let moments = if plan.moments { cout } else { 0 };
    let (mut mean, mut variance) = (Output::new([moments]), Output::new([moments]));
    let epilogue = Epilogue {
        bias: None,
        add: add.map_or(Addend::None, |add| Addend::Tensor(floats(add))),
        moments: plan.moments.then(|| Moments { mean: mean.as_mut(), variance: variance.as_mut() }),
    };
    ok(profile::time(Part::ConvForward, || kernel.forward(n, floats(x), &weights, y.as_mut(), epilogue)));
    (y.finish(), mean.finish(), variance.finish())
}

/// Gradient of a convolution for its input of shape `input`.
pub(super) fn conv_input_grad(dy: &FlexTensor, w: &FlexTensor, input: [usize; 4], plan: ConvPlan) -> FlexTensor {
    let (kernel, n) = kernel(input, dims(w), plan);
    let weights = ok(packed(&kernel, floats(w), Direction::InputGrad, plan.version));
    let mut dx = Output::new(input);
    ok(profile::time(Part::ConvInputGrad, || kernel.input_grad(n, floats(dy), &weights, dx.as_mut(), Addend::None)));
    dx.finish()
}

/// Gradient of a convolution for its weights of shape `shape`.
pub(super) fn conv_weight_grad(x: &FlexTensor, dy: &FlexTensor, shape: [usize; 4], plan: ConvPlan) -> FlexTensor {
    let (kernel, n) = kernel(dims(x), shape, plan);
    let mut dw = Output::new(shape);
    ok(profile::time(Part::ConvWeightGrad, || kernel.weight_grad(n, floats(x), floats(dy), dw.as_mut())));
    dw.finish()
}

/// The per-channel values of a batch norm.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) gamma: FlexTensor,
    pub(super) beta: FlexTensor,
    pub(super) mean: FlexTensor,
    pub(super) variance: FlexTensor,
    pub(super) relu: bool,
}

impl Norm {
    fn kernel(&self) -> BatchNorm<'_> {
        BatchNorm {
            mean: floats(&self.mean),
            variance: floats(&self.variance),
            gamma: floats(&self.gamma),
            beta: floats(&self.beta),
            epsilon: BN_EPSILON,
            relu: self.relu,
        }
    }

    pub(super) fn forward(&self, x: &FlexTensor) -> FlexTensor {
        let mut y = Output::new(dims::<4>(x));
        ok(profile::time(Part::NormForward, || self.kernel().forward(isa(), floats(x), y.as_mut())));
        y.finish()
    }

    /// Gradients of x (plus `add`), gamma and beta.
    pub(super) fn backward(&self, x: &FlexTensor, dy: &FlexTensor, batch: bool, add: Option<&FlexTensor>) -> [FlexTensor; 3] {
        let channels = dims(&self.gamma);
        let (mut dx, mut dgamma, mut dbeta) = (Output::new(dims::<4>(x)), Output::new::<1>(channels), Output::new::<1>(channels));
        let kernel = self.kernel();
        ok(profile::time(Part::NormBackward, || {
            kernel.parameter_grads(isa(), floats(x), floats(dy), dgamma.as_mut(), dbeta.as_mut())?;
            let statistics =
                if batch { Statistics::Batch { dgamma: dgamma.as_mut(), dbeta: dbeta.as_mut() } } else { Statistics::Constant };
            kernel.input_grad(
                isa(),
                floats(x),
                floats(dy),
                statistics,
                dx.as_mut(),
                add.map_or(Addend::None, |add| Addend::Tensor(floats(add))),
            )
        }));
        [dx.finish(), dgamma.finish(), dbeta.finish()]
    }
}

/// `[N, C, H, W]` to `[H, W, N, C]`.
pub(super) fn enter(x: &FlexTensor) -> FlexTensor {
    let [n, c, h, w] = dims(x);
    let mut y = Output::new([h, w, n, c]);
    ok(profile::time(Part::Layout, || nchw_to_hwnc(Dimensions { n, c, h, w }, floats(x), y.as_mut())));
    y.finish()
}

/// `[H, W, N, C]` to `[N, C, H, W]`.
pub(super) fn leave(x: &FlexTensor) -> FlexTensor {
    let [h, w, n, c] = dims(x);
    let mut y = Output::new([n, c, h, w]);
    ok(profile::time(Part::Layout, || hwnc_to_nchw(Dimensions { n, c, h, w }, floats(x), y.as_mut())));
    y.finish()
}

/// Gradient of the mean over all pixels for a map of shape `input`.
pub(super) fn global_pool_grad(dy: &FlexTensor, input: [usize; 4]) -> FlexTensor {
    let mut dx = Output::new(input);
    ok(profile::time(Part::Pool, || pooling::global_average_grad(input[0] * input[1], floats(dy), dx.as_mut())));
    dx.finish()
}

/// One fused SGD update of `[value, buffer]` with `gradient`, in place where nobody else holds them. All are on the CPU.
pub(crate) fn sgd_step(sgd: &Sgd, value: Tensor<1>, buffer: Tensor<1>, gradient: Tensor<1>) -> [Tensor<1>; 2] {
    let primitive = |tensor: Tensor<1>| match tensor.try_into_primitive::<Flex>() {
        Ok(primitive) => primitive.to_contiguous(),
        // The optimizer asks the device before it comes here.
        Err(e) => panic!("engine: {e:?}"),
    };
    let (mut value, mut buffer, gradient) = (primitive(value), primitive(buffer), primitive(gradient));
    ok(sgd.step(isa(), value.storage_mut(), floats(&gradient), buffer.storage_mut()));
    [value, buffer].map(Tensor::from_primitive::<Flex>)
}

impl Engine for Flex {
    fn engine_enter(x: FlexTensor) -> FlexTensor {
        enter(&x.to_contiguous())
    }

    fn engine_conv(x: FlexTensor, w: FlexTensor, plan: ConvPlan) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv(&x.to_contiguous(), &w.to_contiguous(), None, plan)
    }

    fn engine_conv_add(x: FlexTensor, w: FlexTensor, add: FlexTensor, plan: ConvPlan) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv(&x.to_contiguous(), &w.to_contiguous(), Some(&add.to_contiguous()), plan)
    }

    fn engine_moments(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let [_, _, _, c] = dims(&x);
        let (mut mean, mut variance) = (Output::new([c]), Output::new([c]));
        ok(channel_moments(isa(), floats(&x), mean.as_mut(), variance.as_mut()));
        (mean.finish(), variance.finish())
    }

    fn engine_bn_relu(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        plan: NormPlan,
    ) -> FlexTensor {
        let norm = Norm {
            gamma: gamma.to_contiguous(),
            beta: beta.to_contiguous(),
            mean: mean.to_contiguous(),
            variance: variance.to_contiguous(),
            relu: plan.relu,
        };
        norm.forward(&x.to_contiguous())
    }

    fn engine_global_pool(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let [h, w, n, c] = dims(&x);
        let mut y = Output::new([n, c]);
        ok(profile::time(Part::Pool, || pooling::global_average(h * w, floats(&x), y.as_mut())));
        y.finish()
    }
}
