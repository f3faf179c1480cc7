//! The engine's operations on Burn's CPU backend, without autodiff.

use burn::{
    backend::tensor::IntTensor,
    tensor::{DType, Tensor},
};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;
use sora_kernels::{
    Element, Isa, ShapeError, activation,
    attention::Attention,
    batch_norm::{BatchNorm, Statistics},
    bf16, channels,
    conv::{Addend, Conv2d, ConvGeometry, Direction, Epilogue, Moments, Normed},
    layer_norm::LayerNorm,
    layout::{Dimensions, hwnc_to_nchw, nchw_to_hwnc},
    loss::softmax_cross_entropy,
    pool as pooling,
    sgd::Sgd,
};

use super::{ConvNormPlan, ConvPlan, Engine, NormPlan, PoolPlan, packed::packed, pool::Output};
use crate::profile::{self, Stage};

/// PyTorch's default epsilon in the denominator of batch norm.
pub(super) const BN_EPSILON: f32 = 1e-5;

/// The type that feature maps are stored in.
pub(super) fn map_type(half: bool) -> DType {
    if half { DType::BF16 } else { DType::F32 }
}

/// A contiguous tensor's floats.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.storage::<f32>()
}

/// A type that feature maps and their gradients are stored in; everything else is f32.
pub(super) trait Stored: Element + burn::tensor::Element + bytemuck::Pod {}

impl Stored for f32 {}
impl Stored for bf16 {}

/// A contiguous tensor's elements.
fn values<E: Stored>(tensor: &FlexTensor) -> &[E] {
    tensor.storage::<E>()
}

/// Runs `$body` with `$element` the type that `$tensor` is stored in.
macro_rules! by_type {
    ($tensor:expr, $element:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::BF16 => {
                type $element = bf16;
                $body
            }
            _ => {
                type $element = f32;
                $body
            }
        }
    };
}

/// Memory for a result that is stored like `like`.
fn output_like<const D: usize>(shape: [usize; D], like: &FlexTensor) -> Output {
    Output::of(shape.into(), like.dtype())
}

/// Shape of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// The instruction set of this process. The command line has refused a wrong setting before any
/// tensor exists.
pub(super) fn isa() -> Isa {
    Isa::current().unwrap_or(Isa::Portable)
}

/// Shapes come from the network's own structure: a mismatch is a mistake in this module, as it
/// would be in any tensor operation.
#[track_caller]
pub(super) fn ok<T>(result: Result<T, ShapeError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("engine: {e}"),
    }
}

/// `(x - mean) scale` for each channel of `[N, C, H, W]`; without a mean, `x scale`.
pub(super) fn normalize(x: &FlexTensor, mean: Option<&[f32]>, scale: &[f32]) -> FlexTensor {
    let shape @ [_, c, h, w] = dims::<4>(x);
    let plane = h * w;
    let mut y = Output::new(shape);
    profile::time(Stage::Layout, || {
        let images = y
            .as_mut()
            .par_chunks_mut((c * plane).max(1))
            .zip(floats(x).par_chunks((c * plane).max(1)));
        images.for_each(|(y, x)| {
            let planes = y.chunks_mut(plane).zip(x.chunks(plane)).zip(scale).enumerate();
            planes.for_each(|(channel, ((y, x), &scale))| {
                match mean.and_then(|mean| mean.get(channel)) {
                    Some(&mean) => y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale),
                    None => y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * scale),
                }
            });
        });
    });
    y.finish()
}

/// `[N, C, H, W]` in f32 to `[H, W, N, C]` stored as `dtype`.
pub(super) fn enter(x: &FlexTensor, dtype: DType) -> FlexTensor {
    let [n, c, h, w] = dims(x);
    let mut y = Output::of([h, w, n, c].into(), dtype);
    by_type!(y, E => ok(profile::time(Stage::Layout, || nchw_to_hwnc(Dimensions { n, c, h, w }, floats(x), y.elements::<E>()))));
    y.finish()
}

/// `[H, W, N, C]` to `[N, C, H, W]` in f32.
pub(super) fn leave(x: &FlexTensor) -> FlexTensor {
    let [h, w, n, c] = dims(x);
    let mut y = Output::new([n, c, h, w]);
    by_type!(x, E => ok(profile::time(Stage::Layout, || hwnc_to_nchw(Dimensions { n, c, h, w }, values::<E>(x), y.as_mut()))));
    y.finish()
}

/// The kernel for `x` and `w`, and the batch size.
fn kernel<E: Stored>(
    [h, w, n, cin]: [usize; 4],
    [cout, _, kh, kw]: [usize; 4],
    plan: &ConvPlan,
) -> (Conv2d<E>, usize) {
    let geometry = ConvGeometry {
        in_channels: cin,
        out_channels: cout,
        input: [h, w],
        kernel: [kh, kw],
        stride: [plan.stride; 2],
        padding: [plan.padding; 2],
        groups: plan.groups,
    };
    (ok(Conv2d::new(geometry, isa())), n)
}

/// What a convolution adds to its result.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    Nothing,
    Map(&'a FlexTensor),
    Bias(&'a FlexTensor),
}

impl<'a> Operand<'a> {
    fn epilogue<E: Stored>(self) -> Epilogue<'a, E> {
        match self {
            Self::Nothing => Epilogue::default(),
            Self::Map(add) => Epilogue { add: Addend::Tensor(values(add)), ..Epilogue::default() },
            Self::Bias(bias) => Epilogue { bias: Some(floats(bias)), ..Epilogue::default() },
        }
    }
}

/// Convolution plus `operand`, and the moments of that where they are wanted.
pub(super) fn conv(
    x: &FlexTensor,
    w: &FlexTensor,
    operand: Operand<'_>,
    plan: &ConvPlan,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    by_type!(x, E => conv_as::<E>(x, w, operand, plan))
}

fn conv_as<E: Stored>(
    x: &FlexTensor,
    w: &FlexTensor,
    operand: Operand<'_>,
    plan: &ConvPlan,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let shape: [usize; 4] = dims(w);
    let (kernel, n) = kernel::<E>(dims(x), shape, plan);
    let [oh, ow] = kernel.geometry().output();
    let cout = shape[0];
    let weights = ok(packed(&kernel, floats(w), Direction::Forward, plan.version));
    let mut y = output_like([oh, ow, n, cout], x);
    let moments = if plan.moments { cout } else { 0 };
    let (mut mean, mut variance) = (Output::new([moments]), Output::new([moments]));
    let moments =
        plan.moments.then(|| Moments { mean: mean.as_mut(), variance: variance.as_mut() });
    let epilogue = Epilogue { moments, ..operand.epilogue() };
    ok(profile::time(Stage::ConvForward, || {
        kernel.forward(n, values(x), &weights, y.elements(), epilogue)
    }));
    (y.finish(), mean.finish(), variance.finish())
}

/// Convolution plus `operand`, empty unless `keep`, and the batch norm of that.
pub(super) fn conv_norm(
    x: &FlexTensor,
    w: &FlexTensor,
    operand: Operand<'_>,
    plan: &ConvPlan,
    norm: &Norm,
    keep: bool,
) -> [FlexTensor; 2] {
    by_type!(x, E => {
        let shape: [usize; 4] = dims(w);
        let (kernel, n) = kernel::<E>(dims(x), shape, plan);
        let [oh, ow] = kernel.geometry().output();
        let weights = ok(packed(&kernel, floats(w), Direction::Forward, plan.version));
        let mut normed = output_like([oh, ow, n, shape[0]], x);
        let mut y = output_like(if keep { [oh, ow, n, shape[0]] } else { [0; 4] }, x);
        let (first, second) = if keep { (&mut y, Some(normed.elements())) } else { (&mut normed, None) };
        let epilogue = Epilogue { norm: Some(Normed { norm: norm.kernel(), y: second }), ..operand.epilogue() };
        ok(profile::time(Stage::ConvForward, || kernel.forward(n, values::<E>(x), &weights, first.elements(), epilogue)));
        [y.finish(), normed.finish()]
    })
}

/// Gradient of a convolution for its input of shape `input`, plus `so_far`, whose memory it takes
/// if it can.
pub(super) fn conv_input_grad(
    dy: &FlexTensor,
    w: &FlexTensor,
    input: [usize; 4],
    plan: &ConvPlan,
    so_far: Option<FlexTensor>,
) -> FlexTensor {
    by_type!(dy, E => {
        let (kernel, n) = kernel::<E>(input, dims(w), plan);
        let weights = ok(packed(&kernel, floats(w), Direction::InputGrad, plan.version));
        sum_into::<E>(input, dy, so_far, |dx, add| {
            ok(profile::time(Stage::ConvInputGrad, || kernel.input_grad(n, values(dy), &weights, dx.elements(), add.into())));
        })
    })
}

/// The result of `run`, of `shape` and stored like `like`, added to `so_far` in place where nobody
/// else reads that.
fn sum_into<E: Stored>(
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

/// Gradient of a convolution for its weights of shape `shape`.
pub(super) fn conv_weight_grad(
    x: &FlexTensor,
    dy: &FlexTensor,
    shape: [usize; 4],
    plan: &ConvPlan,
) -> FlexTensor {
    let mut dw = Output::new(shape);
    by_type!(x, E => {
        let (kernel, n) = kernel::<E>(dims(x), shape, plan);
        ok(profile::time(Stage::ConvWeightGrad, || kernel.weight_grad(n, values(x), values(dy), dw.as_mut())));
    });
    dw.finish()
}

/// Sum of each channel, the last dimension: the gradient of a bias.
pub(super) fn channel_sums(dy: &FlexTensor) -> FlexTensor {
    let channels = dy.layout().shape().as_slice().last().copied().unwrap_or(0);
    let mut sums = Output::new([channels]);
    by_type!(dy, E => ok(profile::time(Stage::Linear, || channels::channel_sums(isa(), values::<E>(dy), sums.as_mut()))));
    sums.finish()
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
    /// From gamma, beta, mean and variance.
    pub(super) fn new(parameters: [FlexTensor; 4], relu: bool) -> Self {
        let [gamma, beta, mean, variance] = parameters.map(|values| values.to_contiguous());
        Self { gamma, beta, mean, variance, relu }
    }

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

    pub(super) fn forward(&self, x: &FlexTensor, part: Stage) -> FlexTensor {
        let mut y = output_like(dims::<4>(x), x);
        by_type!(x, E => ok(profile::time(part, || self.kernel().forward(isa(), values::<E>(x), y.elements()))));
        y.finish()
    }

    /// Gradients of gamma and beta.
    pub(super) fn parameter_grads(&self, x: &FlexTensor, dy: &FlexTensor) -> [FlexTensor; 2] {
        let channels = dims(&self.gamma);
        let (mut dgamma, mut dbeta) = (Output::new::<1>(channels), Output::new::<1>(channels));
        by_type!(x, E => ok(profile::time(Stage::NormBackward, || {
            self.kernel().parameter_grads(isa(), values::<E>(x), values(dy), dgamma.as_mut(), dbeta.as_mut())
        })));
        [dgamma.finish(), dbeta.finish()]
    }

    /// Gradient of x (plus `add`, whose memory it takes if it can); `batch` has the gradients of
    /// gamma and beta where the statistics are the batch's.
    pub(super) fn input_grad(
        &self,
        x: &FlexTensor,
        dy: FlexTensor,
        batch: Option<&[FlexTensor; 2]>,
        add: Option<FlexTensor>,
    ) -> FlexTensor {
        let kernel = self.kernel();
        let statistics = || match batch {
            Some([dgamma, dbeta]) => {
                Statistics::Batch { dgamma: floats(dgamma), dbeta: floats(dbeta) }
            }
            None => Statistics::Constant,
        };
        by_type!(x, E => {
            let sum = |dy: &FlexTensor, add: Option<FlexTensor>| {
                sum_into::<E>(dims(x), x, add, |dx, add| {
                    ok(profile::time(Stage::NormBackward, || kernel.input_grad(isa(), values(x), values(dy), statistics(), dx.elements(), add)));
                })
            };
            match add {
                Some(add) => sum(&dy, Some(add)),
                None => match Output::reuse(dy) {
                    Ok(mut gradient) => {
                        ok(profile::time(Stage::NormBackward, || {
                            kernel.input_grad_in_place(isa(), values::<E>(x), gradient.elements(), statistics(), None)
                        }));
                        gradient.finish()
                    }
                    Err(dy) => sum(&dy, None),
                },
            }
        })
    }
}

/// Mean over all pixels: `[H, W, N, C]` to `[N, C]` in f32.
pub(super) fn global_pool(x: &FlexTensor) -> FlexTensor {
    let [h, w, n, c] = dims(x);
    let mut y = Output::new([n, c]);
    by_type!(x, E => ok(profile::time(Stage::Pool, || pooling::global_average(h * w, values::<E>(x), y.as_mut()))));
    y.finish()
}

/// Gradient of the mean over all pixels for a map of shape `input` stored as `dtype`.
pub(super) fn global_pool_grad(dy: &FlexTensor, input: [usize; 4], dtype: DType) -> FlexTensor {
    let mut dx = Output::of(input.into(), dtype);
    by_type!(dx, E => ok(profile::time(Stage::Pool, || {
        pooling::global_average_grad(input[0] * input[1], floats(dy), dx.elements::<E>())
    })));
    dx.finish()
}

/// The pooled map and, for largest values, where they came from.
pub(super) fn pool(x: &FlexTensor, plan: PoolPlan) -> (FlexTensor, Vec<u32>) {
    let [h, w, n, c] = dims(x);
    let window = plan.window([h, w]);
    let [oh, ow] = window.output();
    let mut y = output_like([oh, ow, n, c], x);
    let mut indices = vec![0; if plan.max { oh * ow * n * c } else { 0 }];
    by_type!(x, E => ok(profile::time(Stage::Pool, || {
        if plan.max {
            window.max(n * c, values::<E>(x), y.elements(), &mut indices)
        } else {
            window.average(n * c, values::<E>(x), y.elements())
        }
    })));
    (y.finish(), indices)
}

/// Gradient of [`pool`] for a map of shape `input`.
pub(super) fn pool_grad(
    dy: &FlexTensor,
    input: [usize; 4],
    indices: &[u32],
    plan: PoolPlan,
) -> FlexTensor {
    let [h, w, n, c] = input;
    let window = plan.window([h, w]);
    let mut dx = output_like(input, dy);
    by_type!(dy, E => ok(profile::time(Stage::Pool, || {
        if plan.max {
            window.max_grad(n * c, values::<E>(dy), indices, dx.elements())
        } else {
            window.average_grad(n * c, values::<E>(dy), dx.elements())
        }
    })));
    dx.finish()
}

/// A fully connected layer is a 1x1 convolution of one pixel.
fn dense(w: &FlexTensor) -> Conv2d<f32> {
    let [out, inputs] = dims(w);
    ok(Conv2d::new(ConvGeometry::square(inputs, out, [1, 1], 1, 1), isa()))
}

/// `x w^T + bias`.
pub(super) fn linear(
    x: &FlexTensor,
    w: &FlexTensor,
    bias: &FlexTensor,
    version: u64,
) -> FlexTensor {
    let ([n, _], [out, _]) = (dims(x), dims::<2>(w));
    let kernel = dense(w);
    let weights = ok(packed(&kernel, floats(w), Direction::Forward, version));
    let mut y = Output::new([n, out]);
    let epilogue = Epilogue { bias: Some(floats(bias)), ..Epilogue::default() };
    ok(profile::time(Stage::Linear, || {
        kernel.forward(n, floats(x), &weights, y.as_mut(), epilogue)
    }));
    y.finish()
}

pub(super) fn linear_input_grad(dy: &FlexTensor, w: &FlexTensor, version: u64) -> FlexTensor {
    let ([n, _], [_, inputs]) = (dims(dy), dims::<2>(w));
    let kernel = dense(w);
    let weights = ok(packed(&kernel, floats(w), Direction::InputGrad, version));
    let mut dx = Output::new([n, inputs]);
    ok(profile::time(Stage::Linear, || {
        kernel.input_grad(n, floats(dy), &weights, dx.as_mut(), Epilogue::default())
    }));
    dx.finish()
}

pub(super) fn linear_weight_grad(x: &FlexTensor, dy: &FlexTensor, w: &FlexTensor) -> FlexTensor {
    let [n, _] = dims(x);
    let mut dw = Output::new(dims::<2>(w));
    ok(profile::time(Stage::Linear, || {
        dense(w).weight_grad(n, floats(x), floats(dy), dw.as_mut())
    }));
    dw.finish()
}

pub(super) fn layer_norm(
    x: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    epsilon: f32,
) -> FlexTensor {
    let mut y = Output::new(dims::<2>(x));
    let kernel = LayerNorm { gamma: floats(gamma), beta: floats(beta), epsilon };
    ok(profile::time(Stage::Pointwise, || kernel.forward(floats(x), y.as_mut())));
    y.finish()
}

/// Gradients of x, gamma and beta.
pub(super) fn layer_norm_grad(
    x: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    epsilon: f32,
    dy: &FlexTensor,
) -> [FlexTensor; 3] {
    let (mut dx, mut dgamma, mut dbeta) =
        (Output::new(dims::<2>(x)), Output::new(dims::<1>(gamma)), Output::new(dims::<1>(beta)));
    let kernel = LayerNorm { gamma: floats(gamma), beta: floats(beta), epsilon };
    ok(profile::time(Stage::Pointwise, || {
        kernel.backward(floats(x), floats(dy), dx.as_mut(), dgamma.as_mut(), dbeta.as_mut())
    }));
    [dx.finish(), dgamma.finish(), dbeta.finish()]
}

pub(super) fn gelu(x: &FlexTensor) -> FlexTensor {
    let mut y = Output::of(x.layout().shape().clone(), DType::F32);
    ok(profile::time(Stage::Pointwise, || activation::gelu(isa(), floats(x), y.as_mut())));
    y.finish()
}

pub(super) fn gelu_grad(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let mut dx = Output::of(x.layout().shape().clone(), DType::F32);
    ok(profile::time(Stage::Pointwise, || {
        activation::gelu_grad(isa(), floats(x), floats(dy), dx.as_mut())
    }));
    dx.finish()
}

/// The kernel for `qkv` `[N, T, 3 F]`, and the shape of its output.
fn attention_of(qkv: &FlexTensor, heads: usize) -> (Attention, [usize; 3]) {
    let [n, tokens, features] = dims(qkv);
    let features = features / 3;
    (Attention { tokens, heads, width: features / heads.max(1) }, [n, tokens, features])
}

pub(super) fn attention(qkv: &FlexTensor, heads: usize) -> FlexTensor {
    let (kernel, shape) = attention_of(qkv, heads);
    let mut out = Output::new(shape);
    ok(profile::time(Stage::Attention, || kernel.forward(isa(), floats(qkv), out.as_mut())));
    out.finish()
}

pub(super) fn attention_grad(qkv: &FlexTensor, heads: usize, dout: &FlexTensor) -> FlexTensor {
    let (kernel, _) = attention_of(qkv, heads);
    let mut dqkv = Output::new(dims::<3>(qkv));
    ok(profile::time(Stage::Attention, || {
        kernel.backward(isa(), floats(qkv), floats(dout), dqkv.as_mut())
    }));
    dqkv.finish()
}

/// The loss of each sample, and its gradient for that sample's logits.
pub(super) fn cross_entropy(
    logits: &FlexTensor,
    labels: &IntTensor<Flex>,
    smoothing: f32,
) -> (FlexTensor, FlexTensor) {
    let [n, classes] = dims(logits);
    let labels = labels.to_contiguous();
    // A negative label is refused with those that are too large.
    let label = |v: i64| u32::try_from(v).unwrap_or(u32::MAX);
    let labels: Vec<u32> = match labels.dtype() {
        DType::I64 => labels.storage::<i64>().iter().map(|&v| label(v)).collect(),
        DType::I32 => labels.storage::<i32>().iter().map(|&v| label(i64::from(v))).collect(),
        other => panic!("engine: labels of type {other:?}"),
    };
    let (mut loss, mut gradient) = (Output::new([n]), Output::new([n, classes]));
    ok(softmax_cross_entropy(
        floats(logits),
        &labels,
        classes,
        smoothing,
        loss.as_mut(),
        Some((gradient.as_mut(), 1.0)),
    ));
    (loss.finish(), gradient.finish())
}

/// `x[i][..] factor[i]`.
pub(super) fn scale_rows(x: &FlexTensor, factor: &FlexTensor) -> FlexTensor {
    let shape @ [_, columns] = dims::<2>(x);
    let mut y = Output::new(shape);
    let rows = y
        .as_mut()
        .chunks_mut(columns.max(1))
        .zip(floats(x).chunks(columns.max(1)))
        .zip(floats(factor));
    rows.for_each(|((y, x), factor)| y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor));
    y.finish()
}

/// One fused SGD update of `[value, buffer]` with `gradient`, in place where nobody else holds
/// them. All are on the CPU.
pub(crate) fn sgd_step(
    sgd: &Sgd,
    value: Tensor<1>,
    buffer: Tensor<1>,
    gradient: Tensor<1>,
) -> [Tensor<1>; 2] {
    let (mut value, mut buffer, gradient) =
        (primitive(value), primitive(buffer), primitive(gradient));
    ok(sgd.step(isa(), value.storage_mut(), floats(&gradient), buffer.storage_mut()));
    [value, buffer].map(Tensor::from_primitive::<Flex>)
}

/// A tensor on the CPU without autodiff; whoever calls has asked its device.
pub(super) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.try_into_primitive::<Flex>() {
        Ok(primitive) => primitive.to_contiguous(),
        Err(e) => panic!("engine: {e:?}"),
    }
}

impl Engine for Flex {
    fn engine_normalize(x: FlexTensor, mean: Vec<f32>, scale: Vec<f32>) -> FlexTensor {
        normalize(&x.to_contiguous(), Some(&mean), &scale)
    }

    fn engine_enter(x: FlexTensor, half: bool) -> FlexTensor {
        enter(&x.to_contiguous(), map_type(half))
    }

    fn engine_conv(
        x: FlexTensor,
        w: FlexTensor,
        plan: ConvPlan,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv(&x.to_contiguous(), &w.to_contiguous(), Operand::Nothing, &plan)
    }

    fn engine_conv_add(
        x: FlexTensor,
        w: FlexTensor,
        add: FlexTensor,
        plan: ConvPlan,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv(&x.to_contiguous(), &w.to_contiguous(), Operand::Map(&add.to_contiguous()), &plan)
    }

    fn engine_conv_bias(
        x: FlexTensor,
        w: FlexTensor,
        bias: FlexTensor,
        plan: ConvPlan,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        conv(&x.to_contiguous(), &w.to_contiguous(), Operand::Bias(&bias.to_contiguous()), &plan)
    }

    fn engine_conv_norm(
        x: FlexTensor,
        w: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        plan: ConvNormPlan,
    ) -> (FlexTensor, FlexTensor) {
        let norm = Norm::new([gamma, beta, mean, variance], plan.norm.relu);
        conv_norm(
            &x.to_contiguous(),
            &w.to_contiguous(),
            Operand::Nothing,
            &plan.conv,
            &norm,
            plan.keep,
        )
        .into()
    }

    fn engine_conv_add_norm(
        x: FlexTensor,
        w: FlexTensor,
        add: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        plan: ConvNormPlan,
    ) -> (FlexTensor, FlexTensor) {
        let norm = Norm::new([gamma, beta, mean, variance], plan.norm.relu);
        let add = add.to_contiguous();
        conv_norm(
            &x.to_contiguous(),
            &w.to_contiguous(),
            Operand::Map(&add),
            &plan.conv,
            &norm,
            plan.keep,
        )
        .into()
    }

    fn engine_moments(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let [_, _, _, c] = dims(&x);
        let (mut mean, mut variance) = (Output::new([c]), Output::new([c]));
        by_type!(x, E => ok(profile::time(Stage::NormForward, || {
            channels::channel_moments(isa(), values::<E>(&x), mean.as_mut(), variance.as_mut())
        })));
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
        let norm = Norm::new([gamma, beta, mean, variance], plan.relu);
        norm.forward(&x.to_contiguous(), Stage::NormForward)
    }

    fn engine_global_pool(x: FlexTensor) -> FlexTensor {
        global_pool(&x.to_contiguous())
    }

    fn engine_pool(x: FlexTensor, plan: PoolPlan) -> FlexTensor {
        pool(&x.to_contiguous(), plan).0
    }

    fn engine_linear(x: FlexTensor, w: FlexTensor, bias: FlexTensor, version: u64) -> FlexTensor {
        linear(&x.to_contiguous(), &w.to_contiguous(), &bias.to_contiguous(), version)
    }

    fn engine_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        layer_norm(&x.to_contiguous(), &gamma.to_contiguous(), &beta.to_contiguous(), epsilon)
    }

    fn engine_gelu(x: FlexTensor) -> FlexTensor {
        gelu(&x.to_contiguous())
    }

    fn engine_attention(qkv: FlexTensor, heads: usize) -> FlexTensor {
        attention(&qkv.to_contiguous(), heads)
    }

    fn engine_cross_entropy(
        logits: FlexTensor,
        labels: IntTensor<Flex>,
        smoothing: f32,
    ) -> FlexTensor {
        cross_entropy(&logits.to_contiguous(), &labels, smoothing).0
    }
}
