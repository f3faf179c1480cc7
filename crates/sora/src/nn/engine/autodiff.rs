//! Backward passes of the engine's operations. A parent that records no gradient arrives as `None`:
//! the attack pass, whose weights are not tracked, computes no weight gradient and keeps nothing
//! for one.

use std::sync::Arc;

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, NodeGuard, Ops, OpsKind},
        },
        tensor::{FloatTensor, IntTensor},
    },
    tensor::DType,
};
use burn_flex::{Flex, FlexTensor};

use super::{
    ConvNormPlan, ConvPlan, Engine, NormPlan, PoolPlan, Recompute,
    flex::{self, Norm, Operand, dims},
};

type Tracked = FloatTensor<Autodiff<Flex>>;

/// Records `y` with its backward pass if a parent wants a gradient; `state` is made only then.
macro_rules! record {
    ($backward:ident, $strategy:ty, $nodes:expr, $y:expr, $state:expr) => {
        match $backward.prepare::<$strategy>($nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish($state, $y),
            OpsKind::UnTracked(prep) => prep.finish($y),
        }
    };
}

#[derive(Debug)]
struct NormalizeBackward;

impl Backward<Flex, 1> for NormalizeBackward {
    type State = Vec<f32>;

    fn backward(self, ops: Ops<Vec<f32>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, flex::normalize(&dy.to_contiguous(), None, &ops.state));
        }
    }
}

#[derive(Debug)]
struct EnterBackward;

impl Backward<Flex, 1> for EnterBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, flex::leave(&dy.to_contiguous()));
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

/// A convolution's input as its weight gradient finds it.
#[derive(Clone, Debug)]
enum Source {
    Map(FlexTensor),
    /// To be computed again.
    Recompute(Arc<Recompute>),
}

#[derive(Clone, Debug)]
struct ConvState {
    /// Kept only where the weight gradient is wanted.
    x: Option<Source>,
    w: FlexTensor,
    input: [usize; 4],
    /// The third parent is a bias, not a map.
    bias: bool,
    plan: ConvPlan,
}

/// Parents: x, w and, with N = 3, the addend or the bias.
impl<const N: usize> Backward<Flex, N> for ConvBackward {
    type State = ConvState;

    fn backward(self, ops: Ops<ConvState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let ConvState { x, w, input, bias, plan } = ops.state;
        let mut parents = ops.parents.into_iter();
        let (of_x, of_w, of_third) =
            (parents.next().flatten(), parents.next().flatten(), parents.next().flatten());
        let x = match x {
            Some(Source::Map(map)) => Some(map),
            Some(Source::Recompute(recompute)) => recompute.result(),
            None => None,
        };
        if let (Some(node), Some(x)) = (of_w, x) {
            grads.register::<Flex>(node.id, flex::conv_weight_grad(&x, &dy, dims(&w), &plan));
        }
        if let Some(node) = of_x {
            match &plan.recompute {
                None => grads
                    .register::<Flex>(node.id, flex::conv_input_grad(&dy, &w, input, &plan, None)),
                Some(recompute) => {
                    let dx = flex::conv_input_grad(&dy, &w, input, &plan, recompute.gradient());
                    if let Some(dx) = recompute.settle(dx) {
                        grads.register::<Flex>(node.id, dx);
                    }
                }
            }
        }
        if let Some(node) = of_third {
            grads.register::<Flex>(node.id, if bias { flex::channel_sums(&dy) } else { dy });
        }
    }
}

#[derive(Debug)]
struct BnReluBackward;

#[derive(Clone, Debug)]
struct BnReluState {
    x: FlexTensor,
    norm: Norm,
    batch: bool,
    shortcut: bool,
}

/// Parents: x, gamma, beta.
impl Backward<Flex, 3> for BnReluBackward {
    type State = BnReluState;

    fn backward(self, ops: Ops<BnReluState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let BnReluState { x, norm, batch, shortcut } = ops.state;
        let [of_x, of_gamma, of_beta] = ops.parents;
        let add = match &of_x {
            // Steps run from the last operation to the first, and the convolution that adds the
            // shortcut comes after this layer.
            Some(node) if shortcut => Some(grads.consume::<Flex>(node).to_contiguous()),
            _ => None,
        };
        let wanted = batch || of_gamma.is_some() || of_beta.is_some();
        let parameters = wanted.then(|| norm.parameter_grads(&x, &dy));
        let dx = norm.input_grad(&x, dy, parameters.as_ref().filter(|_| batch), add);
        let gradients = std::iter::once(dx).chain(parameters.into_iter().flatten());
        for (node, gradient) in [of_x, of_gamma, of_beta].into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct GlobalPoolBackward;

impl Backward<Flex, 1> for GlobalPoolBackward {
    type State = ([usize; 4], DType);

    fn backward(
        self,
        ops: Ops<([usize; 4], DType), 1>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(x)] = ops.parents {
            let (input, dtype) = ops.state;
            grads.register::<Flex>(x.id, flex::global_pool_grad(&dy, input, dtype));
        }
    }
}

#[derive(Debug)]
struct PoolBackward;

#[derive(Clone, Debug)]
struct PoolState {
    input: [usize; 4],
    /// Where the largest values came from; empty for means.
    indices: Arc<Vec<u32>>,
    plan: PoolPlan,
}

impl Backward<Flex, 1> for PoolBackward {
    type State = PoolState;

    fn backward(self, ops: Ops<PoolState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let PoolState { input, indices, plan } = ops.state;
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, flex::pool_grad(&dy, input, &indices, plan));
        }
    }
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Clone, Debug)]
struct LinearState {
    /// Kept only where the weight gradient is wanted.
    x: Option<FlexTensor>,
    w: FlexTensor,
    version: u64,
}

/// Parents: x, w, bias.
impl Backward<Flex, 3> for LinearBackward {
    type State = LinearState;

    fn backward(self, ops: Ops<LinearState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let LinearState { x, w, version } = ops.state;
        let [of_x, of_w, of_bias] = ops.parents;
        if let (Some(node), Some(x)) = (of_w, x) {
            grads.register::<Flex>(node.id, flex::linear_weight_grad(&x, &dy, &w));
        }
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, flex::linear_input_grad(&dy, &w, version));
        }
        if let Some(node) = of_bias {
            grads.register::<Flex>(node.id, flex::channel_sums(&dy));
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

/// x, gamma, beta and epsilon. Parents: x, gamma, beta.
impl Backward<Flex, 3> for LayerNormBackward {
    type State = ([FlexTensor; 3], f32);

    fn backward(
        self,
        ops: Ops<([FlexTensor; 3], f32), 3>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let ([x, gamma, beta], epsilon) = ops.state;
        for (node, gradient) in
            ops.parents.into_iter().zip(flex::layer_norm_grad(&x, &gamma, &beta, epsilon, &dy))
        {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct GeluBackward;

impl Backward<Flex, 1> for GeluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, flex::gelu_grad(&ops.state, &dy));
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

/// The input and the number of heads.
impl Backward<Flex, 1> for AttentionBackward {
    type State = (FlexTensor, usize);

    fn backward(
        self,
        ops: Ops<(FlexTensor, usize), 1>,
        grads: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(qkv)] = ops.parents {
            let (x, heads) = &ops.state;
            grads.register::<Flex>(qkv.id, flex::attention_grad(x, *heads, &dy));
        }
    }
}

#[derive(Debug)]
struct CrossEntropyBackward;

/// The gradient of each sample's loss for its logits.
impl Backward<Flex, 1> for CrossEntropyBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(logits)] = ops.parents {
            grads.register::<Flex>(logits.id, flex::scale_rows(&ops.state, &dy));
        }
    }
}

fn split(x: Tracked) -> (FlexTensor, NodeGuard) {
    let (x, node) = x.into_parts();
    (x.to_contiguous(), node)
}

/// What a convolution adds to its result; `true`: a bias, not a map.
type Third = Option<(Tracked, bool)>;

/// The convolution that `run` computes, recorded, and what it gives besides.
fn convolve<C: CheckpointStrategy, R>(
    x: Tracked,
    w: Tracked,
    third: Third,
    plan: ConvPlan,
    run: impl FnOnce(&FlexTensor, &FlexTensor, Operand<'_>, &ConvPlan) -> (FlexTensor, R),
) -> (Tracked, R) {
    let (input_grad, weight_grad) = (x.is_tracked(), w.is_tracked());
    let ((x, of_x), (w, of_w)) = (split(x), split(w));
    if let Some(recompute) = &plan.recompute {
        recompute.announce(input_grad, weight_grad);
    }
    let bias = third.as_ref().is_some_and(|(_, bias)| *bias);
    let (third, of_third) = third.map(|(third, _)| split(third)).unzip();
    let operand = match &third {
        None => Operand::Nothing,
        Some(bias_values) if bias => Operand::Bias(bias_values),
        Some(map) => Operand::Map(map),
    };
    let (y, besides) = run(&x, &w, operand, &plan);
    let state = || {
        let input = dims(&x);
        let x = weight_grad.then(|| match &plan.recompute {
            Some(recompute) if recompute.is_recorded() => Source::Recompute(recompute.clone()),
            _ => Source::Map(x),
        });
        ConvState { x, w, input, bias, plan }
    };
    let y = match of_third {
        None => record!(ConvBackward, C, [of_x, of_w], y, state()),
        Some(of_third) => record!(ConvBackward, C, [of_x, of_w, of_third], y, state()),
    };
    (y, besides)
}

fn convolve_with_moments<C: CheckpointStrategy>(
    x: Tracked,
    w: Tracked,
    third: Third,
    plan: ConvPlan,
) -> (Tracked, Tracked, Tracked) {
    let (y, [mean, variance]) = convolve::<C, _>(x, w, third, plan, |x, w, operand, plan| {
        let (y, mean, variance) = flex::conv(x, w, operand, plan);
        (y, [mean, variance])
    });
    (y, Tracked::new(mean), Tracked::new(variance))
}

fn convolve_and_norm<C: CheckpointStrategy>(
    x: Tracked,
    w: Tracked,
    add: Option<Tracked>,
    parameters: [Tracked; 4],
    plan: ConvNormPlan,
) -> (Tracked, Tracked) {
    let ConvNormPlan { conv, norm: NormPlan { batch, shortcut, relu, recompute }, keep } = plan;
    let recorded = [&x, &w].into_iter().chain(&add).chain(&parameters).any(Tracked::is_tracked);
    let [(gamma, of_gamma), (beta, of_beta), (mean, _), (variance, _)] = parameters.map(split);
    let norm = Norm::new([gamma, beta, mean, variance], relu);
    let (y, normed) =
        convolve::<C, _>(x, w, add.map(|add| (add, false)), conv, |x, w, operand, plan| {
            // The backward pass of the batch norm reads it.
            flex::conv_norm(x, w, operand, plan, &norm, keep || recorded).into()
        });
    let (map, of_y) = split(y.clone());
    let normed = record!(BnReluBackward, C, [of_y, of_gamma, of_beta], normed, {
        recompute.record(map.clone(), norm.clone());
        BnReluState { x: map, norm, batch, shortcut }
    });
    (y, normed)
}

impl<C: CheckpointStrategy> Engine for Autodiff<Flex, C> {
    fn engine_normalize(x: Tracked, mean: Vec<f32>, scale: Vec<f32>) -> Tracked {
        let (x, of_x) = split(x);
        let y = flex::normalize(&x, Some(&mean), &scale);
        record!(NormalizeBackward, C, [of_x], y, scale)
    }

    fn engine_enter(x: Tracked, half: bool) -> Tracked {
        let (x, of_x) = split(x);
        EnterBackward
            .prepare::<C>([of_x])
            .compute_bound()
            .stateless(flex::enter(&x, flex::map_type(half)))
    }

    fn engine_conv(x: Tracked, w: Tracked, plan: ConvPlan) -> (Tracked, Tracked, Tracked) {
        convolve_with_moments::<C>(x, w, None, plan)
    }

    fn engine_conv_add(
        x: Tracked,
        w: Tracked,
        add: Tracked,
        plan: ConvPlan,
    ) -> (Tracked, Tracked, Tracked) {
        convolve_with_moments::<C>(x, w, Some((add, false)), plan)
    }

    fn engine_conv_bias(
        x: Tracked,
        w: Tracked,
        bias: Tracked,
        plan: ConvPlan,
    ) -> (Tracked, Tracked, Tracked) {
        convolve_with_moments::<C>(x, w, Some((bias, true)), plan)
    }

    fn engine_conv_norm(
        x: Tracked,
        w: Tracked,
        gamma: Tracked,
        beta: Tracked,
        mean: Tracked,
        variance: Tracked,
        plan: ConvNormPlan,
    ) -> (Tracked, Tracked) {
        convolve_and_norm::<C>(x, w, None, [gamma, beta, mean, variance], plan)
    }

    fn engine_conv_add_norm(
        x: Tracked,
        w: Tracked,
        add: Tracked,
        gamma: Tracked,
        beta: Tracked,
        mean: Tracked,
        variance: Tracked,
        plan: ConvNormPlan,
    ) -> (Tracked, Tracked) {
        convolve_and_norm::<C>(x, w, Some(add), [gamma, beta, mean, variance], plan)
    }

    fn engine_moments(x: Tracked) -> (Tracked, Tracked) {
        let (mean, variance) = <Flex as Engine>::engine_moments(x.into_primitive());
        (Tracked::new(mean), Tracked::new(variance))
    }

    fn engine_bn_relu(
        x: Tracked,
        gamma: Tracked,
        beta: Tracked,
        mean: Tracked,
        variance: Tracked,
        plan: NormPlan,
    ) -> Tracked {
        let ((x, of_x), (gamma, of_gamma), (beta, of_beta)) = (split(x), split(gamma), split(beta));
        let NormPlan { batch, shortcut, relu, recompute } = plan;
        let norm = Norm::new([gamma, beta, mean.into_primitive(), variance.into_primitive()], relu);
        let y = norm.forward(&x, crate::profile::Stage::NormForward);
        record!(BnReluBackward, C, [of_x, of_gamma, of_beta], y, {
            recompute.record(x.clone(), norm.clone());
            BnReluState { x, norm, batch, shortcut }
        })
    }

    fn engine_global_pool(x: Tracked) -> Tracked {
        let (x, of_x) = split(x);
        let y = flex::global_pool(&x);
        record!(GlobalPoolBackward, C, [of_x], y, (dims(&x), x.dtype()))
    }

    fn engine_pool(x: Tracked, plan: PoolPlan) -> Tracked {
        let (x, of_x) = split(x);
        let (y, indices) = flex::pool(&x, plan);
        record!(
            PoolBackward,
            C,
            [of_x],
            y,
            PoolState { input: dims(&x), indices: Arc::new(indices), plan }
        )
    }

    fn engine_linear(x: Tracked, w: Tracked, bias: Tracked, version: u64) -> Tracked {
        let weight_grad = w.is_tracked();
        let ((x, of_x), (w, of_w), (bias, of_bias)) = (split(x), split(w), split(bias));
        let y = flex::linear(&x, &w, &bias, version);
        record!(
            LinearBackward,
            C,
            [of_x, of_w, of_bias],
            y,
            LinearState { x: weight_grad.then_some(x), w, version }
        )
    }

    fn engine_layer_norm(x: Tracked, gamma: Tracked, beta: Tracked, epsilon: f32) -> Tracked {
        let ((x, of_x), (gamma, of_gamma), (beta, of_beta)) = (split(x), split(gamma), split(beta));
        let y = flex::layer_norm(&x, &gamma, &beta, epsilon);
        record!(LayerNormBackward, C, [of_x, of_gamma, of_beta], y, ([x, gamma, beta], epsilon))
    }

    fn engine_gelu(x: Tracked) -> Tracked {
        let (x, of_x) = split(x);
        let y = flex::gelu(&x);
        record!(GeluBackward, C, [of_x], y, x)
    }

    fn engine_attention(qkv: Tracked, heads: usize) -> Tracked {
        let (qkv, of_qkv) = split(qkv);
        let y = flex::attention(&qkv, heads);
        record!(AttentionBackward, C, [of_qkv], y, (qkv, heads))
    }

    fn engine_cross_entropy(logits: Tracked, labels: IntTensor<Self>, smoothing: f32) -> Tracked {
        let (logits, of_logits) = split(logits);
        let (loss, gradient) = flex::cross_entropy(&logits, &labels, smoothing);
        record!(CrossEntropyBackward, C, [of_logits], loss, gradient)
    }
}
