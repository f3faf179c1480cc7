//! Batch norm and the ReLU behind it.

use burn::backend::{ExtensionType, autodiff::ops::NodeGuard};
use sora_kernels::{
    batch_norm::{BatchNorm as Kernel, Statistics},
    channels::channel_moments,
};

use super::{
    buffers::Output,
    extension::*,
    flex::{by_type, contiguous, dims, floats, isa, ok, output_like, sum_into, values},
    over_ranks::RankKernels,
    recompute::{Readers, Recompute},
};
use crate::{
    nn::NormInput,
    profile::{self, Stage},
};

/// PyTorch's default epsilon in the denominator.
pub(super) const EPSILON: f32 = 1e-5;

/// The settings of a batch norm, including its part in the backward pass.
#[derive(Clone, Debug)]
pub struct NormPlan {
    /// The statistics that it normalises with.
    pub statistics: NormStatistics,
    /// The other readers of `x`.
    pub input: NormInput,
    /// The state that it shares with the convolutions that read `x`, if any may do so.
    pub shared: Option<Recompute>,
    /// Whether ReLU follows.
    pub relu: bool,
    /// The state that it shares with the convolutions that read the result.
    pub recompute: Recompute,
}

/// The source of a batch norm's mean and variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormStatistics {
    /// They are the statistics of `x`, so gradients flow through them.
    Batch,
    /// They are constants.
    Running,
}

/// The values of a batch norm, `[C]` each.
#[derive(Clone, Debug, ExtensionType)]
pub struct NormValues<B: Backend> {
    /// Scale.
    pub gamma: FloatTensor<B>,
    /// Shift.
    pub beta: FloatTensor<B>,
    /// Mean.
    pub mean: FloatTensor<B>,
    /// Biased variance.
    pub variance: FloatTensor<B>,
}

impl<B: Backend, C: CheckpointStrategy> NormValues<Autodiff<B, C>> {
    /// Returns the values without their records, and the records of gamma and beta.
    pub(super) fn split(self) -> (NormValues<B>, [NodeGuard; 2]) {
        let Self { gamma, beta, mean, variance } = self;
        let ((gamma, of_gamma), (beta, of_beta)) = (gamma.into_parts(), beta.into_parts());
        let (mean, variance) = (mean.into_primitive(), variance.into_primitive());
        (NormValues { gamma, beta, mean, variance }, [of_gamma, of_beta])
    }
}

impl NormValues<Flex> {
    pub(super) fn contiguous(self) -> Self {
        let Self { gamma, beta, mean, variance } = self;
        let [gamma, beta, mean, variance] = [gamma, beta, mean, variance].map(contiguous);
        Self { gamma, beta, mean, variance }
    }
}

/// A batch norm with its values.
#[derive(Clone, Debug)]
pub struct Norm<B: Backend> {
    values: NormValues<B>,
    relu: bool,
}

impl<B: Backend> Norm<B> {
    pub(super) fn new(values: NormValues<B>, relu: bool) -> Self {
        Self { values, relu }
    }
}

impl Norm<Flex> {
    pub(super) fn contiguous(&self) -> Self {
        Self { values: self.values.clone().contiguous(), relu: self.relu }
    }

    /// The kernel, for values that are contiguous.
    pub(super) fn kernel(&self) -> Kernel<'_> {
        let NormValues { gamma, beta, mean, variance } = &self.values;
        Kernel {
            mean: floats(mean),
            variance: floats(variance),
            gamma: floats(gamma),
            beta: floats(beta),
            epsilon: EPSILON,
            relu: self.relu,
        }
    }
}

/// The kernels of a batch norm, forward and backward.
pub trait NormKernels: RankKernels {
    /// Computes `gamma (x - mean) / sqrt(variance + epsilon) + beta` over the last dimension of `x`
    /// `[H, W, N, C]`, then ReLU if there is one. The time counts for `stage`.
    fn norm(norm: &Norm<Self>, x: &FloatTensor<Self>, stage: Stage) -> FloatTensor<Self>;

    /// Computes the gradients by gamma and beta.
    fn norm_parameter_grads(
        norm: &Norm<Self>,
        x: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// Computes the gradient by x, plus `add`, whose memory is reused if possible. `batch` holds
    /// the gradients by gamma and beta where the statistics are the batch's.
    fn norm_input_grad(
        norm: &Norm<Self>,
        x: &FloatTensor<Self>,
        dy: FloatTensor<Self>,
        batch: Option<&[FloatTensor<Self>; 2]>,
        add: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self>;

    /// Mean and biased variance of each channel of `x` `[H, W, N, C]`.
    fn moments(x: &FloatTensor<Self>) -> [FloatTensor<Self>; 2];
}

impl NormKernels for Flex {
    fn norm(norm: &Norm<Self>, x: &FlexTensor, stage: Stage) -> FlexTensor {
        let (norm, x) = (norm.contiguous(), x.to_contiguous());
        let mut y = output_like(dims::<4>(&x), &x);
        by_type!(x, E => ok(profile::time(stage, || {
            norm.kernel().forward(isa(), values::<E>(&x), y.elements())
        })));
        y.finish()
    }

    fn norm_parameter_grads(norm: &Norm<Self>, x: &FlexTensor, dy: &FlexTensor) -> [FlexTensor; 2] {
        let (norm, x, dy) = (norm.contiguous(), x.to_contiguous(), dy.to_contiguous());
        let channels = dims(&norm.values.gamma);
        let (mut dgamma, mut dbeta) = (Output::new::<1>(channels), Output::new::<1>(channels));
        by_type!(x, E => ok(profile::time(Stage::NormBackward, || {
            let (x, dy) = (values::<E>(&x), values(&dy));
            norm.kernel().parameter_grads(isa(), x, dy, dgamma.as_mut(), dbeta.as_mut())
        })));
        [dgamma.finish(), dbeta.finish()]
    }

    fn norm_input_grad(
        norm: &Norm<Self>,
        x: &FlexTensor,
        dy: FlexTensor,
        batch: Option<&[FlexTensor; 2]>,
        add: Option<FlexTensor>,
    ) -> FlexTensor {
        let (x, dy, add) = (x.to_contiguous(), contiguous(dy), add.map(contiguous));
        let norm = norm.contiguous();
        let kernel = norm.kernel();
        let statistics = || match batch {
            Some([dgamma, dbeta]) => {
                Statistics::Batch { dgamma: floats(dgamma), dbeta: floats(dbeta) }
            }
            None => Statistics::Constant,
        };
        by_type!(x, E => {
            let sum = |dy: &FlexTensor, add: Option<FlexTensor>| {
                sum_into::<E>(dims(&x), &x, add, |dx, add| {
                    let (x, dy) = (values(&x), values(dy));
                    ok(profile::time(Stage::NormBackward, || {
                        kernel.input_grad(isa(), x, dy, statistics(), dx.elements(), add)
                    }));
                })
            };
            match add {
                Some(add) => sum(&dy, Some(add)),
                None => match Output::reuse(dy) {
                    Ok(mut gradient) => {
                        let x = values::<E>(&x);
                        ok(profile::time(Stage::NormBackward, || {
                            let dx = gradient.elements();
                            kernel.input_grad_in_place(isa(), x, dx, statistics(), None)
                        }));
                        gradient.finish()
                    }
                    Err(dy) => sum(&dy, None),
                },
            }
        })
    }

    fn moments(x: &FlexTensor) -> [FlexTensor; 2] {
        let x = x.to_contiguous();
        let [_, _, _, c] = dims(&x);
        let (mut mean, mut variance) = (Output::new([c]), Output::new([c]));
        by_type!(x, E => ok(profile::time(Stage::NormForward, || {
            channel_moments(isa(), values::<E>(&x), mean.as_mut(), variance.as_mut())
        })));
        [mean.finish(), variance.finish()]
    }
}

/// Batch norm, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait NormOp: Backend {
    /// Batch norm of `x` `[H, W, N, C]`, with or without ReLU as `plan` says.
    fn norm_op(
        x: FloatTensor<Self>,
        #[extension_type] values: NormValues<Self>,
        plan: NormPlan,
    ) -> FloatTensor<Self>;

    /// Mean and biased variance of each channel; no gradient flows through them.
    fn moments_op(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl NormOp for Flex {
    fn norm_op(x: FlexTensor, values: NormValues<Self>, plan: NormPlan) -> FlexTensor {
        Self::norm(&Norm::new(values.contiguous(), plan.relu), &x, Stage::NormForward)
    }

    fn moments_op(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        Self::moments(&x).into()
    }
}

#[derive(Debug)]
struct NormBackward;

#[derive(Clone, Debug)]
struct NormState<B: Backend> {
    x: FloatTensor<B>,
    norm: Norm<B>,
    statistics: NormStatistics,
    input: NormInput,
    shared: Option<Recompute>,
}

/// Parents: x, gamma, beta.
impl<B: NormKernels> Backward<B, 3> for NormBackward {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let NormState { x, norm, statistics, input, shared: readers } = ops.state;
        let [of_x, of_gamma, of_beta] = ops.parents;
        // The gradient of x so far, to which this one is added in the same pass over memory, and who
        // takes the sum if not x.
        let (mut add, mut taker) = (None, None);
        if let Some(node) = &of_x {
            match readers.as_ref().map_or(Readers::Nobody, Recompute::readers::<B>) {
                // Backward steps run from the last operation to the first, and the layer that adds
                // the shortcut comes after this one, so its gradient exists.
                Readers::Nobody if input == NormInput::Shortcut => {
                    add = Some(grads.consume::<B>(node));
                }
                Readers::Nobody => {}
                Readers::Registered => add = Some(grads.consume::<B>(node)),
                Readers::Awaited(so_far) => (add, taker) = (so_far, readers),
            }
        }
        let batch = statistics == NormStatistics::Batch;
        let wanted = batch || of_gamma.is_some() || of_beta.is_some();
        let parameters = wanted.then(|| B::norm_parameter_grads(&norm, &x, &dy));
        // Through the statistics every image of the batch moves this one, on whichever rank.
        let shared = parameters.clone().filter(|_| batch).map(B::shared_means);
        let dx = B::norm_input_grad(&norm, &x, dy, shared.as_ref(), add);
        let dx = match taker {
            Some(readers) => readers.deposit::<B>(dx),
            None => Some(dx),
        };
        let [dgamma, dbeta] = match parameters {
            Some(gradients) => gradients.map(Some),
            None => [None, None],
        };
        for (node, gradient) in [of_x, of_gamma, of_beta].into_iter().zip([dx, dgamma, dbeta]) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// Records the batch norm `y` of `x` on autodiff.
pub(super) fn record_normed<B: NormKernels, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    values: NormValues<B>,
    [of_gamma, of_beta]: [NodeGuard; 2],
    plan: NormPlan,
    y: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let NormPlan { statistics, input, shared, relu, recompute } = plan;
    let (x, of_x) = x.into_parts();
    let norm = Norm::new(values, relu);
    record!(B, C, NormBackward, [of_x, of_gamma, of_beta], y, {
        recompute.record::<B>(x.clone(), norm.clone());
        NormState { x, norm, statistics, input, shared }
    })
}

impl<B: NormKernels, C: CheckpointStrategy> NormOp for Autodiff<B, C> {
    fn norm_op(
        x: FloatTensor<Self>,
        values: NormValues<Self>,
        plan: NormPlan,
    ) -> FloatTensor<Self> {
        let (values, nodes) = values.split();
        let norm = Norm::new(values.clone(), plan.relu);
        let y = B::norm(&norm, x.primitive(), Stage::NormForward);
        record_normed::<B, C>(x, values, nodes, plan, y)
    }

    fn moments_op(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [mean, variance] = B::moments(x.primitive());
        (FloatTensor::<Self>::new(mean), FloatTensor::<Self>::new(variance))
    }
}

pub(in crate::nn) fn moments(x: Tensor<4>) -> [Tensor<1>; 2] {
    let (mean, variance) = Dispatch::moments_op(x.into_dispatch());
    [mean, variance].map(Tensor::from_dispatch)
}

pub(in crate::nn) fn batch_norm(x: Tensor<4>, values: [Tensor<1>; 4], plan: NormPlan) -> Tensor<4> {
    let [gamma, beta, mean, variance] = values.map(Tensor::into_dispatch);
    let values = NormValues { gamma, beta, mean, variance };
    Tensor::from_dispatch(Dispatch::norm_op(x.into_dispatch(), values, plan))
}
