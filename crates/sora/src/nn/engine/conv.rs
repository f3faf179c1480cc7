//! Convolution with its epilogue: a bias, a summand, batch norm.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, ExtensionType, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use burn_flex::{Flex, FlexTensor};
use sora_kernels::conv::{
    Addend, Conv2d as Kernel, ConvGeometry, Direction, Epilogue as Store, Moments, Normed,
};

use super::{
    batch_norm::{self, Norm, NormKernels, NormPlan, NormValues},
    buffers::Output,
    flex::{Stored, by_type, contiguous, dims, floats, isa, ok, output_like, sum_into, values},
    linear::channel_sums,
    packed::packed,
    recompute::Recompute,
    record,
};
use crate::{
    nn::Keep,
    profile::{self, Stage},
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

#[derive(Debug)]
struct ConvBackward;

/// The input of a convolution, in the form in which the weight gradient finds it.
#[derive(Clone, Debug)]
enum Input<T> {
    Map(T),
    /// The input is computed again from the batch norm before it.
    Recompute(Recompute),
}

#[derive(Clone, Debug)]
struct ConvState<T> {
    /// The input, kept only where the weight gradient is needed.
    x: Option<Input<T>>,
    w: T,
    input: [usize; 4],
    plan: ConvPlan,
    third: Third,
}

/// The third parent of a convolution, where there is one.
#[derive(Clone, Copy, Debug)]
enum Third {
    Bias,
    Map,
}

/// Parents: x, w and, with N = 3, the bias or the map that is added.
impl<B: ConvKernels, const N: usize> Backward<B, N> for ConvBackward {
    type State = ConvState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ConvState { x, w, input, plan, third } = ops.state;
        let mut parents = ops.parents.into_iter();
        let (of_x, of_w, of_third) =
            (parents.next().flatten(), parents.next().flatten(), parents.next().flatten());
        let x = match x {
            Some(Input::Map(map)) => Some(map),
            Some(Input::Recompute(recompute)) => recompute.result::<B>(),
            None => None,
        };
        if let (Some(node), Some(x)) = (of_w, x) {
            let dw = B::conv_weight_grad(&x, &dy, w.shape().dims(), &plan);
            grads.register::<B>(node.id, dw);
        }
        if let Some(node) = of_x {
            match &plan.recompute {
                None => {
                    let dx = B::conv_input_grad(&dy, &w, input, &plan, None);
                    grads.register::<B>(node.id, dx);
                }
                Some(recompute) => {
                    let so_far = recompute.gradient::<B>();
                    let dx = B::conv_input_grad(&dy, &w, input, &plan, so_far);
                    if let Some(dx) = recompute.settle::<B>(dx) {
                        grads.register::<B>(node.id, dx);
                    }
                }
            }
        }
        if let Some(node) = of_third {
            let gradient = match third {
                Third::Bias => B::channel_sums(&dy),
                Third::Map => dy,
            };
            grads.register::<B>(node.id, gradient);
        }
    }
}

/// An epilogue without its records: its values, the third parent of the convolution, and the
/// parents of the batch norm other than the map.
struct Split<B: Backend> {
    epilogue: Epilogue<B>,
    third: Option<(NodeGuard, Third)>,
    norm: Option<(NormValues<B>, [NodeGuard; 2])>,
    tracked: bool,
}

fn split<B: ConvKernels, C: CheckpointStrategy>(epilogue: Epilogue<Autodiff<B, C>>) -> Split<B> {
    let norm_of = |values: NormValues<Autodiff<B, C>>| {
        let tracked = values.gamma.is_tracked() || values.beta.is_tracked();
        let (values, nodes) = values.split();
        (values, nodes, tracked)
    };
    match epilogue {
        Epilogue::Plain => {
            Split { epilogue: Epilogue::Plain, third: None, norm: None, tracked: false }
        }
        Epilogue::Bias(bias) => {
            let tracked = bias.is_tracked();
            let (bias, node) = bias.into_parts();
            let third = Some((node, Third::Bias));
            Split { epilogue: Epilogue::Bias(bias), third, norm: None, tracked }
        }
        Epilogue::Add(add) => {
            let tracked = add.is_tracked();
            let (add, node) = add.into_parts();
            let third = Some((node, Third::Map));
            Split { epilogue: Epilogue::Add(add), third, norm: None, tracked }
        }
        Epilogue::Norm(values) => {
            let (values, nodes, tracked) = norm_of(values);
            let epilogue = Epilogue::Norm(values.clone());
            Split { epilogue, third: None, norm: Some((values, nodes)), tracked }
        }
        Epilogue::AddNorm(add, values) => {
            let of_add = add.is_tracked();
            let (add, node) = add.into_parts();
            let (values, nodes, tracked) = norm_of(values);
            let epilogue = Epilogue::AddNorm(add, values.clone());
            let third = Some((node, Third::Map));
            Split { epilogue, third, norm: Some((values, nodes)), tracked: tracked || of_add }
        }
    }
}

impl<B: ConvKernels, C: CheckpointStrategy> ConvOp for Autodiff<B, C> {
    fn conv_op(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        epilogue: Epilogue<Self>,
        plan: ConvPlan,
    ) -> Convolved<Self> {
        let (input_grad, weight_grad) = (x.is_tracked(), w.is_tracked());
        let ((x, of_x), (w, of_w)) = (x.into_parts(), w.into_parts());
        let Split { epilogue, third, norm, tracked } = split(epilogue);
        if let Some(recompute) = &plan.recompute {
            recompute.announce::<B>(input_grad, weight_grad);
        }
        let fused = plan.norm.clone();
        let keep = match &fused {
            // The backward pass of the batch norm reads the map.
            _ if input_grad || weight_grad || tracked => Keep::Both,
            Some((_, keep)) => *keep,
            None => Keep::Normed,
        };
        let results = B::conv(&x, &w, &epilogue, &plan, keep);
        let recorded = |y| {
            let state = |third| {
                let input = x.shape().dims();
                let x = weight_grad.then(|| match &plan.recompute {
                    Some(recompute) if recompute.is_recorded::<B>() => {
                        Input::Recompute(recompute.clone())
                    }
                    _ => Input::Map(x),
                });
                ConvState { x, w, input, plan, third }
            };
            match third {
                None => record!(B, C, ConvBackward, [of_x, of_w], y, state(Third::Map)),
                Some((node, third)) => {
                    record!(B, C, ConvBackward, [of_x, of_w, node], y, state(third))
                }
            }
        };
        match results {
            Convolved::Map(map) => Convolved::Map(recorded(map)),
            Convolved::Moments { map, mean, variance } => Convolved::Moments {
                map: recorded(map),
                mean: FloatTensor::<Self>::new(mean),
                variance: FloatTensor::<Self>::new(variance),
            },
            Convolved::Normed { map, normed } => {
                let map = recorded(map);
                let normed = match (fused, norm) {
                    (Some((plan, _)), Some((values, nodes))) => {
                        batch_norm::record_normed::<B, C>(map.clone(), values, nodes, plan, normed)
                    }
                    _ => FloatTensor::<Self>::new(normed),
                };
                Convolved::Normed { map, normed }
            }
        }
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
