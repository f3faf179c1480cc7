//! Nodes that a pass computes together, without storing what lies between them: a convolution with
//! the sum, the batch norm and the rectifier behind it, and a batch norm with its rectifier.
//!
//! The nodes stay what they are. The backward pass goes through them one by one, and so does the
//! forward pass where the shapes of a call do not suit.

use super::{Graph, Id, Node, held::Held};
use crate::{
    ops::{
        Inputs, Part,
        conv::{Followed, Tail},
    },
    value::Value,
};

/// The nodes behind a node that are computed with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fusion {
    add: Option<usize>,
    norm: Option<usize>,
    relu: Option<usize>,
    /// Whether the value before batch norm and rectifier is needed, too.
    keep: bool,
}

impl Fusion {
    /// The indices of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        [self.add, self.norm, self.relu].into_iter().flatten()
    }
}

/// Who reads and who computes each value.
struct Ties {
    /// The nodes that read it, once for each time; an index beyond the nodes stands for the caller.
    readers: Vec<Vec<usize>>,
    /// The node that computes it; `None` for what is given.
    source: Vec<Option<usize>>,
    /// Whether a node is computed with one before it.
    taken: Vec<bool>,
}

impl Graph {
    /// Chooses the nodes that are computed together.
    pub(super) fn fuse(&mut self) {
        let mut ties = Ties {
            readers: vec![Vec::new(); self.constants.len()],
            source: vec![None; self.constants.len()],
            taken: vec![false; self.nodes.len()],
        };
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|&id| ties.readers[id].push(index));
            node.outputs.iter().for_each(|&id| ties.source[id] = Some(index));
        }
        ties.readers[self.output].push(usize::MAX);
        for index in 0..self.nodes.len() {
            if !ties.taken[index]
                && let Some(fusion) = self.fusion(index, &ties)
            {
                fusion.nodes().for_each(|node| ties.taken[node] = true);
                self.nodes[index].fusion = Some(fusion);
            }
        }
    }

    /// What can be computed with the node `index`.
    fn fusion(&self, index: usize, ties: &Ties) -> Option<Fusion> {
        let node = &self.nodes[index];
        let &[mut end] = &node.outputs[..] else { return None };
        let mut fusion = Fusion::default();
        let only =
            |id: Id| <[usize; 1]>::try_from(&ties.readers[id][..]).ok().map(|[reader]| reader);
        match node.operator.part()? {
            Part::Conv(_) => {
                if let Some(add) = only(end).filter(|&add| self.can_add(add, end, index, ties)) {
                    fusion.add = Some(add);
                    end = self.nodes[add].outputs[0];
                }
                let mut readers = ties.readers[end].iter().copied();
                fusion.norm =
                    readers.clone().find(|&norm| self.can_normalise(norm, end, index, ties));
                fusion.relu = match fusion.norm.map(|norm| self.nodes[norm].outputs[0]) {
                    Some(id) => only(id).filter(|&relu| self.can_rectify(relu, id, ties)),
                    None => readers.find(|&relu| self.can_rectify(relu, end, ties)),
                };
                fusion.keep =
                    only(end).is_none() || fusion.norm.is_some_and(|norm| !self.is_constant(norm));
            }
            Part::Norm(_) => {
                fusion.relu = only(end).filter(|&relu| self.can_rectify(relu, end, ties));
            }
            Part::Add | Part::Relu => {}
        }
        fusion.nodes().next().is_some().then_some(fusion)
    }

    /// The node `index`, if none before it takes it along.
    fn free<'a>(&'a self, index: usize, ties: &Ties) -> Option<&'a Node> {
        self.nodes.get(index).filter(|node| !ties.taken[index] && node.outputs.len() == 1)
    }

    /// Whether node `add` adds `value` to one that is known before node `index`.
    fn can_add(&self, add: usize, value: Id, index: usize, ties: &Ties) -> bool {
        let Some(node) = self.free(add, ties) else { return false };
        let other = match node.inputs[..] {
            [Some(a), Some(b)] if a == value => b,
            [Some(a), Some(b)] if b == value => a,
            _ => return false,
        };
        // Constants are broadcast as a rule, and so are weights.
        matches!(node.operator.part(), Some(Part::Add))
            && (other == self.input || ties.source[other].is_some_and(|source| source < index))
    }

    /// Whether node `norm` is a batch norm of `value` with parameters known before node `index`.
    fn can_normalise(&self, norm: usize, value: Id, index: usize, ties: &Ties) -> bool {
        let Some(node) = self.free(norm, ties) else { return false };
        let known = |id: &Id| *id != value && ties.source[*id].is_none_or(|source| source < index);
        matches!(node.operator.part(), Some(Part::Norm(_)))
            && node.inputs.first() == Some(&Some(value))
            && node.inputs[1..].iter().flatten().all(known)
    }

    /// Whether node `relu` rectifies `value`.
    fn can_rectify(&self, relu: usize, value: Id, ties: &Ties) -> bool {
        self.free(relu, ties).is_some_and(|node| {
            matches!(node.operator.part(), Some(Part::Relu)) && node.inputs == [Some(value)]
        })
    }

    /// Whether all inputs of a batch norm but the first are constants. The backward pass needs the
    /// first for the gradients of the others.
    fn is_constant(&self, norm: usize) -> bool {
        let parameters = self.nodes[norm].inputs.iter().skip(1).flatten();
        parameters.copied().all(|id| self.constants[id].is_some())
    }

    /// Computes a node and those that are fused with it; `false` where their inputs do not suit.
    /// What is wrong with them is said when they are computed one by one.
    pub(super) fn compute_fused(&self, node: &Node, fusion: &Fusion, held: &mut Held) -> bool {
        let Some((sum, end)) = self.fused(node, fusion, &held.values) else { return false };
        let before = fusion.add.map_or(node, |add| &self.nodes[add]);
        if let Some(sum) = sum {
            held.put(before.outputs[0], sum);
        }
        let last = fusion.relu.or(fusion.norm).map_or(before, |last| &self.nodes[last]);
        held.put(last.outputs[0], end);
        true
    }

    /// The value before batch norm and rectifier, where it is needed, and the last value.
    fn fused(
        &self,
        node: &Node,
        fusion: &Fusion,
        values: &[Option<Value>],
    ) -> Option<(Option<Value>, Value)> {
        let find = |id: Id| values[id].as_ref().or(self.constants[id].as_ref());
        let inputs_of = |node: &Node| -> Vec<Option<&Value>> {
            node.inputs.iter().map(|id| id.and_then(find)).collect()
        };
        let inputs = inputs_of(node);
        let relu = fusion.relu.is_some();
        let conv = match node.operator.part()? {
            Part::Norm(norm) => {
                let end = norm.in_rows(&Inputs(&inputs), relu).ok()??;
                return Some((None, Value::Float(end)));
            }
            Part::Conv(conv) => conv,
            Part::Add | Part::Relu => return None,
        };
        let add = match fusion.add {
            Some(add) => {
                let other = self.nodes[add].inputs.iter().flatten().copied();
                let other = other.filter(|id| *id != node.outputs[0]).find_map(find)?;
                Some(other.float().ok()?)
            }
            None => None,
        };
        let parameters = fusion.norm.map(|norm| (norm, inputs_of(&self.nodes[norm])));
        let norm = match &parameters {
            Some((norm, inputs)) => match self.nodes[*norm].operator.part()? {
                Part::Norm(norm) => Some((norm, Inputs(inputs))),
                _ => return None,
            },
            None => None,
        };
        let tail = Tail { add, norm, relu, keep: fusion.keep };
        let Followed { sum, end } = conv.followed(&Inputs(&inputs), &tail).ok()??;
        Some((sum.map(Value::Float), Value::Float(end)))
    }
}
