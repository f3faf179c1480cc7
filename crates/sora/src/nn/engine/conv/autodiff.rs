//! The backward pass of a convolution with its epilogue: what is recorded forward, and what is taken
//! apart.

use burn::backend::{TensorMetadata, autodiff::ops::NodeGuard};

use super::{
    super::{
        batch_norm::{self, NormValues},
        extension::*,
        recompute::Recompute,
    },
    ConvKernels, ConvOp, ConvPlan, Convolved, Epilogue,
};
use crate::nn::Keep;

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
