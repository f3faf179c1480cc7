//! Backward passes of the engine's operations. A parent that records no gradient arrives as `None`: the attack pass, whose weights are not
//! tracked, computes no weight gradient and keeps nothing for one.

use burn::backend::{
    Autodiff,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};
use burn_flex::{Flex, FlexTensor};

use super::{
    ConvPlan, Engine, NormPlan,
    flex::{Norm, conv, conv_input_grad, conv_weight_grad, dims, enter, global_pool_grad, leave},
};

type Tracked = FloatTensor<Autodiff<Flex>>;

#[derive(Debug)]
struct EnterBackward;

impl Backward<Flex, 1> for EnterBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, leave(&dy.to_contiguous()));
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

#[derive(Clone, Debug)]
struct ConvState {
    /// Kept only where the weight gradient is wanted.
    x: Option<FlexTensor>,
    w: FlexTensor,
    input: [usize; 4],
    plan: ConvPlan,
}

/// Parents: x, w and, with N = 3, the addend.
impl<const N: usize> Backward<Flex, N> for ConvBackward {
    type State = ConvState;

    fn backward(self, ops: Ops<ConvState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let ConvState { x, w, input, plan } = ops.state;
        let mut parents = ops.parents.into_iter();
        let (of_x, of_w, of_add) = (parents.next().flatten(), parents.next().flatten(), parents.next().flatten());
        if let (Some(node), Some(x)) = (of_w, x) {
            grads.register::<Flex>(node.id, conv_weight_grad(&x, &dy, dims(&w), plan));
        }
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, conv_input_grad(&dy, &w, input, plan));
        }
        if let Some(node) = of_add {
            grads.register::<Flex>(node.id, dy);
        }
    }
}

#[derive(Debug)]
struct BnReluBackward;

#[derive(Clone, Debug)]
struct BnReluState {
    x: FlexTensor,
    norm: Norm,
    plan: NormPlan,
}

/// Parents: x, gamma, beta.
impl Backward<Flex, 3> for BnReluBackward {
    type State = BnReluState;

    fn backward(self, ops: Ops<BnReluState, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let BnReluState { x, norm, plan } = ops.state;
        let [of_x, of_gamma, of_beta] = ops.parents;
        let add = match &of_x {
            // Steps run from the last operation to the first, and the convolution that adds the shortcut comes after this layer.
            Some(node) if plan.shortcut => Some(grads.consume::<Flex>(node).to_contiguous()),
            _ => None,
        };
        for (node, gradient) in [of_x, of_gamma, of_beta].into_iter().zip(norm.backward(&x, &dy, plan.batch, add.as_ref())) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct GlobalPoolBackward;

impl Backward<Flex, 1> for GlobalPoolBackward {
    type State = [usize; 4];

    fn backward(self, ops: Ops<[usize; 4], 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(x)] = ops.parents {
            grads.register::<Flex>(x.id, global_pool_grad(&dy, ops.state));
        }
    }
}

fn convolve<C: CheckpointStrategy>(x: Tracked, w: Tracked, add: Option<Tracked>, plan: ConvPlan) -> (Tracked, Tracked, Tracked) {
    let weight_grad = w.is_tracked();
    let ((x, of_x), (w, of_w)) = (x.into_parts(), w.into_parts());
    let (x, w) = (x.to_contiguous(), w.to_contiguous());
    let state = |x: FlexTensor, w: FlexTensor| ConvState { input: dims(&x), x: weight_grad.then_some(x), w, plan };
    macro_rules! finish {
        ($nodes:expr, $out:expr) => {{
            let (y, mean, variance) = $out;
            let y = match ConvBackward.prepare::<C>($nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish(state(x, w), y),
                OpsKind::UnTracked(prep) => prep.finish(y),
            };
            (y, Tracked::new(mean), Tracked::new(variance))
        }};
    }
    match add {
        None => finish!([of_x, of_w], conv(&x, &w, None, plan)),
        Some(add) => {
            let (add, of_add) = add.into_parts();
            finish!([of_x, of_w, of_add], conv(&x, &w, Some(&add.to_contiguous()), plan))
        }
    }
}

impl<C: CheckpointStrategy> Engine for Autodiff<Flex, C> {
    fn engine_enter(x: Tracked) -> Tracked {
        let (x, of_x) = x.into_parts();
        EnterBackward.prepare::<C>([of_x]).compute_bound().stateless(enter(&x.to_contiguous()))
    }

    fn engine_conv(x: Tracked, w: Tracked, plan: ConvPlan) -> (Tracked, Tracked, Tracked) {
        convolve::<C>(x, w, None, plan)
    }

    fn engine_conv_add(x: Tracked, w: Tracked, add: Tracked, plan: ConvPlan) -> (Tracked, Tracked, Tracked) {
        convolve::<C>(x, w, Some(add), plan)
    }

    fn engine_moments(x: Tracked) -> (Tracked, Tracked) {
        let (mean, variance) = <Flex as Engine>::engine_moments(x.into_primitive());
        (Tracked::new(mean), Tracked::new(variance))
    }

    fn engine_bn_relu(x: Tracked, gamma: Tracked, beta: Tracked, mean: Tracked, variance: Tracked, plan: NormPlan) -> Tracked {
        let ((x, of_x), (gamma, of_gamma), (beta, of_beta)) = (x.into_parts(), gamma.into_parts(), beta.into_parts());
        let x = x.to_contiguous();
        let norm = Norm {
            gamma: gamma.to_contiguous(),
            beta: beta.to_contiguous(),
            mean: mean.into_primitive().to_contiguous(),
            variance: variance.into_primitive().to_contiguous(),
            relu: plan.relu,
        };
        let y = norm.forward(&x);
        match BnReluBackward.prepare::<C>([of_x, of_gamma, of_beta]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(BnReluState { x, norm, plan }, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn engine_global_pool(x: Tracked) -> Tracked {
        let (x, of_x) = x.into_parts();
        let x = x.to_contiguous();
        let input = dims(&x);
        let y = <Flex as Engine>::engine_global_pool(x);
        match GlobalPoolBackward.prepare::<C>([of_x]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(input, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
