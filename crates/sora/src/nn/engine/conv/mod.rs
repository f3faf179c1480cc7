//! Convolution with its epilogue: a bias, a summand, batch norm.

mod autodiff;

use burn::backend::ExtensionType;
use sora_kernels::conv::{
    Addend, Conv2d as Kernel, ConvGeometry, Direction, Epilogue as Store, Moments, Normed,
};

use super::{
    batch_norm::{Norm, NormKernels, NormPlan, NormValues},
    buffers::Output,
    extension::*,
    flex::{Stored, by_type, contiguous, dims, floats, isa, ok, output_like, sum_into, values},
    linear::channel_sums,
    packed::packed,
    recompute::Recompute,
};
use crate::{
    nn::Keep,
    profile::{self, Stage},
    ranks::scope,
};

/// The settings of a convolution, and the identity of its weights.
#[derive(Clone, Debug)]
pub struct ConvPlan {
    /// Stride in pixels, the same in both directions.
    pub stride: usize,
    /// Padding in pixels, the same on all sides.
    pub padding: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Identifies the content of the weights; packed forms are kept under this number.
    pub version: u64,
    /// Whether the mean and variance of the output are computed.
    pub moments: bool,
    /// The batch norm that computed the input, if there is one.
    pub recompute: Option<Recompute>,
    /// The batch norm of the epilogue, and the results that are read.
    pub norm: Option<(NormPlan, Keep)>,
}

/// The operation on a convolution's sum before it is stored.
#[derive(Clone, Debug, ExtensionType)]
pub enum Epilogue<B: Backend> {
    /// No operation.
    Plain,
    /// Adds a bias `[out]` at every pixel.
    Bias(FloatTensor<B>),
    /// Adds a map of the result's shape.
    Add(FloatTensor<B>),
    /// Batch norm on running statistics, in one pass over memory.
    Norm(#[extension_type] NormValues<B>),
    /// Adds a map, then applies batch norm.
    AddNorm(FloatTensor<B>, #[extension_type] NormValues<B>),
}

/// The results of a convolution.
#[derive(Clone, Debug, ExtensionType)]
pub enum Convolved<B: Backend> {
    /// The map `[H, W, N, out]`.
    Map(FloatTensor<B>),
    /// The map, and mean and biased variance of each channel.
    Moments { map: FloatTensor<B>, mean: FloatTensor<B>, variance: FloatTensor<B> },
    /// The map, empty unless it is kept, and its batch norm.
    Normed { map: FloatTensor<B>, normed: FloatTensor<B> },
}

/// The kernels of a convolution, forward and backward.
pub trait ConvKernels: NormKernels {
    /// Computes the convolution of `x` `[H, W, N, in]` with `w` `[out, in / groups, k, k]`; `keep`
    /// says whether the map of a [`Convolved::Normed`] is read.
    fn conv(
        x: &FloatTensor<Self>,
        w: &FloatTensor<Self>,
        epilogue: &Epilogue<Self>,
        plan: &ConvPlan,
        keep: Keep,
    ) -> Convolved<Self>;

    /// Computes the gradient by the input of shape `input`, plus `so_far`, whose memory is reused
    /// if possible.
    fn conv_input_grad(
        dy: &FloatTensor<Self>,
        w: &FloatTensor<Self>,
        input: [usize; 4],
        plan: &ConvPlan,
        so_far: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// Computes the gradient by the weights of shape `shape`.
    fn conv_weight_grad(
        x: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
        shape: [usize; 4],
        plan: &ConvPlan,
    ) -> FloatTensor<Self>;

    /// Sums each channel, the last dimension, for the gradient of a bias.
    fn channel_sums(dy: &FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The kernel for `x` and `w`, and the batch size.
fn kernel<E: Stored>(
    [h, w, n, cin]: [usize; 4],
    [cout, _, kh, kw]: [usize; 4],
    plan: &ConvPlan,
) -> (Kernel<E>, usize) {
    let geometry = ConvGeometry {
        in_channels: cin,
        out_channels: cout,
        input: [h, w],
        kernel: [kh, kw],
        stride: [plan.stride; 2],
        padding: [plan.padding; 2],
        groups: plan.groups,
    };
    (ok(Kernel::new(geometry, isa())), n)
}

fn conv_as<E: Stored>(
    x: &FlexTensor,
    w: &FlexTensor,
    epilogue: &Epilogue<Flex>,
    plan: &ConvPlan,
    keep: Keep,
) -> Convolved<Flex> {
    let shape: [usize; 4] = dims(w);
    let (kernel, n) = kernel::<E>(dims(x), shape, plan);
    let [oh, ow] = kernel.geometry().output();
    let (cout, out) = (shape[0], [oh, ow, n, shape[0]]);
    let weights = ok(packed(&kernel, floats(w), Direction::Forward, plan.version));
    let run = |y: &mut [E], store: Store<'_, E>| {
        ok(profile::time(Stage::ConvForward, || kernel.forward(n, values(x), &weights, y, store)));
    };
    let (store, norm) = match epilogue {
        Epilogue::Plain => (Store::default(), None),
        Epilogue::Bias(bias) => (Store { bias: Some(floats(bias)), ..Store::default() }, None),
        Epilogue::Add(add) => {
            (Store { add: Addend::Tensor(values(add)), ..Store::default() }, None)
        }
        Epilogue::Norm(norm) => (Store::default(), Some(norm)),
        Epilogue::AddNorm(add, norm) => {
            (Store { add: Addend::Tensor(values(add)), ..Store::default() }, Some(norm))
        }
    };
    if let Some(norm) = norm {
        let relu = plan.norm.as_ref().is_some_and(|(norm, _)| norm.relu);
        let norm = Norm::new(norm.clone(), relu);
        let mut normed = output_like(out, x);
        let mut map = output_like(if keep == Keep::Both { out } else { [0; 4] }, x);
        let (first, second) = match keep {
            Keep::Both => (&mut map, Some(normed.elements())),
            Keep::Normed => (&mut normed, None),
        };
        run(
            first.elements(),
            Store { norm: Some(Normed { norm: norm.kernel(), y: second }), ..store },
        );
        return Convolved::Normed { map: map.finish(), normed: normed.finish() };
    }
    let mut map = output_like(out, x);
    if !plan.moments {
        run(map.elements(), store);
        return Convolved::Map(map.finish());
    }
    let (mut mean, mut variance) = (Output::new([cout]), Output::new([cout]));
    let moments = Some(Moments { mean: mean.as_mut(), variance: variance.as_mut() });
    run(map.elements(), Store { moments, ..store });
    Convolved::Moments { map: map.finish(), mean: mean.finish(), variance: variance.finish() }
}

impl ConvKernels for Flex {
    fn conv(
        x: &FlexTensor,
        w: &FlexTensor,
        epilogue: &Epilogue<Self>,
        plan: &ConvPlan,
        keep: Keep,
    ) -> Convolved<Self> {
        let (x, w) = (x.to_contiguous(), w.to_contiguous());
        let norm = |norm: &NormValues<Self>| norm.clone().contiguous();
        let epilogue = match epilogue {
            Epilogue::Plain => Epilogue::Plain,
            Epilogue::Bias(bias) => Epilogue::Bias(bias.to_contiguous()),
            Epilogue::Add(add) => Epilogue::Add(add.to_contiguous()),
            Epilogue::Norm(values) => Epilogue::Norm(norm(values)),
            Epilogue::AddNorm(add, values) => Epilogue::AddNorm(add.to_contiguous(), norm(values)),
        };
        by_type!(x, E => conv_as::<E>(&x, &w, &epilogue, plan, keep))
    }

    fn conv_input_grad(
        dy: &FlexTensor,
        w: &FlexTensor,
        input: [usize; 4],
        plan: &ConvPlan,
        so_far: Option<FlexTensor>,
    ) -> FlexTensor {
        let (dy, w) = (dy.to_contiguous(), w.to_contiguous());
        by_type!(dy, E => {
            let (kernel, n) = kernel::<E>(input, dims(&w), plan);
            let weights = ok(packed(&kernel, floats(&w), Direction::InputGrad, plan.version));
            sum_into::<E>(input, &dy, so_far.map(contiguous), |dx, add| {
                let dy = values(&dy);
                ok(profile::time(Stage::ConvInputGrad, || {
                    kernel.input_grad(n, dy, &weights, dx.elements(), add.into())
                }));
            })
        })
    }

    fn conv_weight_grad(
        x: &FlexTensor,
        dy: &FlexTensor,
        shape: [usize; 4],
        plan: &ConvPlan,
    ) -> FlexTensor {
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let mut dw = Output::new(shape);
        by_type!(x, E => {
            let (kernel, n) = kernel::<E>(dims(&x), shape, plan);
            ok(profile::time(Stage::ConvWeightGrad, || {
                kernel.weight_grad(n, values(&x), values(&dy), dw.as_mut())
            }));
        });
        scope::offer(plan.version, dw.as_mut());
        dw.finish()
    }

    fn channel_sums(dy: &FlexTensor) -> FlexTensor {
        channel_sums(dy)
    }
}

/// Convolution with an epilogue, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait ConvOp: Backend {
    /// Convolution of `x` `[H, W, N, in]` with `w` `[out, in / groups, k, k]`.
    fn conv_op(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        #[extension_type] epilogue: Epilogue<Self>,
        plan: ConvPlan,
    ) -> Convolved<Self>;
}

impl ConvOp for Flex {
    fn conv_op(
        x: FlexTensor,
        w: FlexTensor,
        epilogue: Epilogue<Self>,
        plan: ConvPlan,
    ) -> Convolved<Self> {
        let keep = plan.norm.as_ref().map_or(Keep::Normed, |(_, keep)| *keep);
        Self::conv(&x, &w, &epilogue, &plan, keep)
    }
}

/// Output of a convolution: the map and, if requested, the mean and biased variance of each
/// channel.
#[derive(Clone, Debug)]
pub(in crate::nn) struct MapAndMoments {
    pub(in crate::nn) map: Tensor<4>,
    pub(in crate::nn) moments: Option<[Tensor<1>; 2]>,
}

/// The summand of a convolution.
pub(in crate::nn) enum Plus {
    Nothing,
    Map(Tensor<4>),
    Bias(Tensor<1>),
}

pub(in crate::nn) fn conv(x: Tensor<4>, w: Tensor<4>, plus: Plus, plan: ConvPlan) -> MapAndMoments {
    let epilogue = match plus {
        Plus::Nothing => Epilogue::Plain,
        Plus::Map(add) => Epilogue::Add(add.into_dispatch()),
        Plus::Bias(bias) => Epilogue::Bias(bias.into_dispatch()),
    };
    match Dispatch::conv_op(x.into_dispatch(), w.into_dispatch(), epilogue, plan) {
        Convolved::Map(map) | Convolved::Normed { map, .. } => {
            MapAndMoments { map: Tensor::from_dispatch(map), moments: None }
        }
        Convolved::Moments { map, mean, variance } => MapAndMoments {
            map: Tensor::from_dispatch(map),
            moments: Some([mean, variance].map(Tensor::from_dispatch)),
        },
    }
}

/// Computes the convolution of `x`, plus `add`, and the batch norm of the sum on running
/// statistics, in one pass over memory. The first result is empty unless the plan keeps it.
pub(in crate::nn) fn conv_norm(
    x: Tensor<4>,
    w: Tensor<4>,
    add: Option<Tensor<4>>,
    [gamma, beta, mean, variance]: [Tensor<1>; 4],
    plan: ConvPlan,
) -> [Tensor<4>; 2] {
    let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(Tensor::into_dispatch);
    let norm = NormValues { gamma, beta, mean, variance };
    let epilogue = match add {
        Some(add) => Epilogue::AddNorm(add.into_dispatch(), norm),
        None => Epilogue::Norm(norm),
    };
    match Dispatch::conv_op(x.into_dispatch(), w.into_dispatch(), epilogue, plan) {
        Convolved::Normed { map, normed } => [map, normed].map(Tensor::from_dispatch),
        Convolved::Map(map) | Convolved::Moments { map, .. } => {
            let map = Tensor::from_dispatch(map);
            [map.clone(), map]
        }
    }
}
