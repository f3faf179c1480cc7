//! A residual branch of a transformer block as one operation: layer norm, a fully connected layer,
//! attention or GELU, a fully connected layer, and the sum with the branch's input.

use std::sync::Arc;

use burn::backend::{ExtensionType, autodiff::ops::NodeGuard};
use sora_kernels::{
    branch::{Branch, Gradients as BranchGradients, Parameters, WeightOperands},
    conv::{Direction, PackedWeights},
    layer_norm::LayerNorm,
    linear::Linear,
};

pub use sora_kernels::branch::Middle;

use super::{
    buffers::Output,
    extension::*,
    flex::{Stored, by_type, contiguous, dims, floats, isa, map_type, ok, values},
    linear::channel_sums,
    packed::packed,
};
use crate::{
    profile::{self, Stage},
    ranks::scope,
};

/// What a branch computes.
#[derive(Clone, Copy, Debug)]
pub struct BranchPlan {
    /// What lies between the fully connected layers.
    pub middle: Middle,
    /// Value that the layer norm adds to the variance.
    pub epsilon: f32,
    /// Whether to keep values in bf16, and to multiply them where the processor can.
    pub half: bool,
    /// The versions of the content of the two weights.
    pub versions: [u64; 2],
}

impl BranchPlan {
    /// The stage to which the time of the branch counts.
    fn stage(&self) -> Stage {
        match self.middle {
            Middle::Gelu { .. } => Stage::Linear,
            Middle::Attention { .. } => Stage::Attention,
        }
    }

    /// The kernel for tokens `x`.
    fn kernel<E: Stored>(&self, x: &FlexTensor) -> Branch<E> {
        let [_, tokens, features] = dims(x);
        ok(Branch::new(tokens, features, self.middle, isa()))
    }
}

/// The parameters of a branch: scale and shift of the norm, weights `[out, in]` and biases of the
/// fully connected layers.
#[derive(Clone, Debug, ExtensionType)]
pub struct BranchValues<B: Backend> {
    /// Scale of the norm.
    pub gamma: FloatTensor<B>,
    /// Shift of the norm.
    pub beta: FloatTensor<B>,
    /// The first layer's weight.
    pub first: FloatTensor<B>,
    /// The first layer's bias.
    pub first_bias: FloatTensor<B>,
    /// The second layer's weight.
    pub second: FloatTensor<B>,
    /// The second layer's bias.
    pub second_bias: FloatTensor<B>,
}

impl<B: Backend, C: CheckpointStrategy> BranchValues<Autodiff<B, C>> {
    /// Returns the values without their records, and their records in the order of the fields.
    fn split(self) -> (BranchValues<B>, [NodeGuard; 6]) {
        let (gamma, of_gamma) = self.gamma.into_parts();
        let (beta, of_beta) = self.beta.into_parts();
        let (first, of_first) = self.first.into_parts();
        let (first_bias, of_first_bias) = self.first_bias.into_parts();
        let (second, of_second) = self.second.into_parts();
        let (second_bias, of_second_bias) = self.second_bias.into_parts();
        (
            BranchValues { gamma, beta, first, first_bias, second, second_bias },
            [of_gamma, of_beta, of_first, of_first_bias, of_second, of_second_bias],
        )
    }
}

impl BranchValues<Flex> {
    fn contiguous(self) -> Self {
        Self {
            gamma: contiguous(self.gamma),
            beta: contiguous(self.beta),
            first: contiguous(self.first),
            first_bias: contiguous(self.first_bias),
            second: contiguous(self.second),
            second_bias: contiguous(self.second_bias),
        }
    }

    /// Weights packed for `direction` of the layers of `kernel`.
    fn packed<E: Stored>(
        &self,
        kernel: &Branch<E>,
        direction: Direction,
        versions: [u64; 2],
    ) -> [Arc<PackedWeights>; 2] {
        let [first, second] = kernel.layers().map(Linear::as_conv);
        [
            ok(packed(first, floats(&self.first), direction, versions[0])),
            ok(packed(second, floats(&self.second), direction, versions[1])),
        ]
    }

    fn parameters<'a>(
        &'a self,
        epsilon: f32,
        weights: &'a [Arc<PackedWeights>; 2],
    ) -> Parameters<'a> {
        let (gamma, beta) = (floats(&self.gamma), floats(&self.beta));
        Parameters {
            norm: LayerNorm { gamma, beta, epsilon },
            weights: [&*weights[0], &*weights[1]],
            biases: [floats(&self.first_bias), floats(&self.second_bias)],
        }
    }
}

/// The gradient by the tokens, and those by the values in the order of their fields; weights and
/// biases have none where nobody wants theirs.
pub type BranchGrads<T> = (T, [Option<T>; 6]);

/// The kernels of a branch, forward and backward.
pub trait BranchKernels: Backend {
    /// The branch of tokens `x` `[N, T, features]`, and what its backward pass needs, if `keep`.
    fn branch_forward(
        x: &FloatTensor<Self>,
        values: BranchValues<Self>,
        plan: BranchPlan,
        keep: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);

    /// The gradients; those of weights and biases if `weights`.
    fn branch_grad(
        x: &FloatTensor<Self>,
        values: BranchValues<Self>,
        plan: BranchPlan,
        kept: &FloatTensor<Self>,
        dy: &FloatTensor<Self>,
        weights: bool,
    ) -> BranchGrads<FloatTensor<Self>>;
}

impl BranchKernels for Flex {
    fn branch_forward(
        x: &FlexTensor,
        values: BranchValues<Self>,
        plan: BranchPlan,
        keep: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let (x, values) = (x.to_contiguous(), values.contiguous());
        if plan.half {
            forward::<sora_kernels::bf16>(&x, &values, plan, keep)
        } else {
            forward::<f32>(&x, &values, plan, keep)
        }
    }

    fn branch_grad(
        x: &FlexTensor,
        values: BranchValues<Self>,
        plan: BranchPlan,
        kept: &FlexTensor,
        dy: &FlexTensor,
        weights: bool,
    ) -> BranchGrads<FlexTensor> {
        let (x, dy, values) = (x.to_contiguous(), dy.to_contiguous(), values.contiguous());
        by_type!(kept, E => backward::<E>(&x, &values, plan, kept, &dy, weights))
    }
}

fn forward<E: Stored>(
    x: &FlexTensor,
    values: &BranchValues<Flex>,
    plan: BranchPlan,
    keep: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let shape @ [n, tokens, _] = dims::<3>(x);
    let kernel = plan.kernel::<E>(x);
    let packed = values.packed(&kernel, Direction::Forward, plan.versions);
    let mut y = Output::new(shape);
    let kept_shape = [n, tokens, kernel.inner()[0]].into();
    let mut kept = keep.then(|| Output::of(kept_shape, map_type(plan.half)));
    ok(profile::time(plan.stage(), || {
        let parameters = values.parameters(plan.epsilon, &packed);
        let kept = kept.as_mut().map(Output::elements);
        kernel.forward(floats(x), parameters, kept, y.as_mut())
    }));
    (y.finish(), kept.map(Output::finish))
}

fn backward<E: Stored>(
    x: &FlexTensor,
    values: &BranchValues<Flex>,
    plan: BranchPlan,
    kept: &FlexTensor,
    dy: &FlexTensor,
    weights: bool,
) -> BranchGrads<FlexTensor> {
    let shape @ [n, tokens, features] = dims::<3>(x);
    let kernel = plan.kernel::<E>(x);
    let packed = values.packed(&kernel, Direction::InputGrad, plan.versions);
    let (mut dx, mut gamma, mut beta) =
        (Output::new(shape), Output::new([features]), Output::new([features]));
    let [inner, outer] = kernel.inner();
    let like = |width: usize| Output::of([n, tokens, width].into(), map_type(plan.half));
    let mut factors = weights.then(|| [like(features), like(inner), like(outer), like(features)]);
    ok(profile::time(plan.stage(), || {
        let gradients =
            BranchGradients { x: dx.as_mut(), gamma: gamma.as_mut(), beta: beta.as_mut() };
        let operands = factors.as_mut().map(|[normed, inner, outer, dy]| WeightOperands {
            normed: normed.elements(),
            inner: inner.elements(),
            outer: outer.elements(),
            dy: plan.half.then(|| dy.elements()),
        });
        let parameters = values.parameters(plan.epsilon, &packed);
        let kept = self::values::<E>(kept);
        kernel.backward(floats(x), parameters, kept, floats(dy), gradients, operands)
    }));
    let [gamma, beta] = [gamma, beta].map(|sums| Some(sums.finish()));
    let gradients = match factors {
        None => [gamma, beta, None, None, None, None],
        Some([normed, inner, outer, rounded]) => {
            let [first, second] = kernel.layers();
            let (normed, inner, outer) = (normed.finish(), inner.finish(), outer.finish());
            let rounded = if plan.half { rounded.finish() } else { dy.clone() };
            let (first, first_bias) = layer_grads::<E>(first, &normed, &inner, plan.versions[0]);
            let (second, second_bias) =
                layer_grads::<E>(second, &outer, &rounded, plan.versions[1]);
            [gamma, beta, Some(first), Some(first_bias), Some(second), Some(second_bias)]
        }
    };
    (dx.finish(), gradients)
}

/// The gradients by the weight, whose content has `version`, and by the bias of a fully connected
/// layer.
fn layer_grads<E: Stored>(
    layer: &Linear<E>,
    x: &FlexTensor,
    dy: &FlexTensor,
    version: u64,
) -> (FlexTensor, FlexTensor) {
    let [n, tokens, inputs] = dims(x);
    let [_, _, outputs] = dims::<3>(dy);
    let mut dw = Output::new([outputs, inputs]);
    ok(profile::time(Stage::Linear, || {
        layer.weight_grad(n * tokens, values::<E>(x), values::<E>(dy), dw.as_mut())
    }));
    scope::offer(version, dw.as_mut());
    (dw.finish(), channel_sums(dy))
}

/// A branch, as an operation whose backend [`Dispatch`] chooses.
#[backend_extension(Autodiff, Flex)]
pub trait BranchOp: Backend {
    /// The branch of tokens `x` `[N, T, features]`.
    fn branch_op(
        x: FloatTensor<Self>,
        #[extension_type] values: BranchValues<Self>,
        plan: BranchPlan,
    ) -> FloatTensor<Self>;
}

impl BranchOp for Flex {
    fn branch_op(x: FlexTensor, values: BranchValues<Self>, plan: BranchPlan) -> FlexTensor {
        Self::branch_forward(&x, values, plan, false).0
    }
}

#[derive(Debug)]
struct BranchBackward;

#[derive(Clone, Debug)]
struct BranchState<B: Backend> {
    x: FloatTensor<B>,
    values: BranchValues<B>,
    plan: BranchPlan,
    kept: FloatTensor<B>,
}

/// Parents: x, and the values in the order of their fields.
impl<B: BranchKernels> Backward<B, 7> for BranchBackward {
    type State = Option<BranchState<B>>;

    fn backward(self, ops: Ops<Self::State, 7>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Some(BranchState { x, values, plan, kept }) = ops.state else { return };
        let [of_x, of_values @ ..] = ops.parents;
        let weights = of_values[2..].iter().any(Option::is_some);
        let (dx, gradients) = B::branch_grad(&x, values, plan, &kept, &dy, weights);
        let gradients = std::iter::once(Some(dx)).chain(gradients);
        for (node, gradient) in std::iter::once(of_x).chain(of_values).zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: BranchKernels, C: CheckpointStrategy> BranchOp for Autodiff<B, C> {
    fn branch_op(
        x: FloatTensor<Self>,
        values: BranchValues<Self>,
        plan: BranchPlan,
    ) -> FloatTensor<Self> {
        let tracked = [&values.gamma, &values.beta, &values.first, &values.first_bias]
            .into_iter()
            .chain([&values.second, &values.second_bias, &x])
            .any(|value| value.is_tracked());
        let (x, of_x) = x.into_parts();
        let (values, [a, b, c, d, e, f]) = values.split();
        let (y, kept) = B::branch_forward(&x, values.clone(), plan, tracked);
        let state = || kept.map(|kept| BranchState { x, values, plan, kept });
        record!(B, C, BranchBackward, [of_x, a, b, c, d, e, f], y, state())
    }
}

/// The branch of tokens `x` `[N, T, features]` with scale and shift of its norm, and weight and bias
/// of each layer.
pub(in crate::nn) fn branch(
    x: Tensor<3>,
    [gamma, beta]: [Tensor<1>; 2],
    [(first, first_bias), (second, second_bias)]: [(Tensor<2>, Tensor<1>); 2],
    plan: BranchPlan,
) -> Tensor<3> {
    let values = BranchValues {
        gamma: gamma.into_dispatch(),
        beta: beta.into_dispatch(),
        first: first.into_dispatch(),
        first_bias: first_bias.into_dispatch(),
        second: second.into_dispatch(),
        second_bias: second_bias.into_dispatch(),
    };
    Tensor::from_dispatch(Dispatch::branch_op(x.into_dispatch(), values, plan))
}
