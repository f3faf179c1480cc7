//! A graph: nodes in an order in which they can be computed, and its forward and backward pass.

mod fuse;
mod held;
mod passes;
mod weights;

use std::collections::{HashMap, HashSet};

use crate::{
    attributes::Attributes,
    error::{Error, Outcome, Problem},
    file::{self, Model},
    functions,
    ops::{self, Inputs, Operator},
    proto::{GraphProto, NodeProto, TensorProto},
    value::Value,
};

pub(crate) use held::{GRADIENT, LOGITS};
pub(crate) use passes::Pass;
pub(crate) use weights::{Numbers, Weight};

/// Index of a value.
pub(crate) type Id = usize;

/// Most elements of all folded constants together, beyond those in the file; it bounds what hostile
/// files can take.
const FOLDED: usize = 1 << 26;
/// More of them for each element in the file: weights that are standardised take some steps.
const FOLDED_PER_GIVEN: usize = 8;

#[derive(Debug)]
pub(crate) struct Node {
    operator: Box<dyn Operator>,
    inputs: Vec<Option<Id>>,
    outputs: Vec<Id>,
    /// Operator and name, for messages.
    kind: String,
    name: String,
    /// The nodes behind this one that a pass computes with it.
    fusion: Option<fuse::Fusion>,
}

/// A graph from one input to one output.
#[derive(Debug)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    /// Constants by index; `None` for a value that is computed.
    constants: Vec<Option<Value>>,
    /// What is given with each pass, where the graph is built for that.
    pub weights: Vec<Weight>,
    input: Id,
    output: Id,
    /// The last node that reads each value.
    last_use: Vec<usize>,
    /// Whether a gradient for the input passes through each value.
    smooth: Vec<bool>,
}

/// A problem, and whether it concerns the graph or one of its nodes.
pub(crate) enum Fault {
    Graph(String),
    Unsupported { operator: String, node: String, problem: String },
    Node { operator: String, node: String, problem: String },
}

impl From<Problem> for Fault {
    fn from(Problem(text): Problem) -> Self {
        Self::Graph(text)
    }
}

/// Indices of values by name.
#[derive(Default)]
struct Names {
    ids: HashMap<String, Id>,
    count: usize,
}

impl Names {
    fn new_value(&mut self, name: &str) -> Id {
        let id = self.count;
        self.count += 1;
        if !name.is_empty() {
            self.ids.insert(name.to_owned(), id);
        }
        id
    }
}

impl Graph {
    /// Builds the graph of `model` from its input `input` to its output `output`.
    pub fn build(
        model: &Model,
        opset: i64,
        [input, output]: [&str; 2],
        numbers: Numbers,
    ) -> Result<Self, Fault> {
        let Some(graph) = &model.proto.graph else {
            return Err(Fault::Graph("the file holds no graph".into()));
        };
        let nodes = functions::expand(&graph.node, &model.proto.functions)?;
        let needed = needed(&nodes, output)?;
        let types = types(graph, &nodes);
        let mut names = Names::default();
        let mut constants = Vec::new();
        let mut candidates = Vec::new();
        let input = names.new_value(input);
        constants.push(None);
        let used: HashSet<&str> =
            needed.iter().flat_map(|&i| nodes[i].input.iter().map(String::as_str)).collect();
        for initializer in graph.initializer.iter().filter(|t| used.contains(t.name.as_str())) {
            if names.ids.get(&initializer.name) == Some(&input) {
                continue;
            }
            let open = numbers == Numbers::Given && weights::is_left_out(initializer);
            let value = match open {
                true => None,
                false => Some(file::tensor(initializer, Some(&model.beside)).map_err(
                    |Problem(text)| Fault::Graph(format!("'{}': {text}", initializer.name)),
                )?),
            };
            let id = names.new_value(&initializer.name);
            match (numbers, value) {
                (Numbers::Given, value @ (None | Some(Value::Float(_)))) => {
                    candidates.push(weights::Candidate::new(initializer, id, value)?);
                    constants.push(None);
                }
                (_, value) => constants.push(value),
            }
        }
        let mut this = Self {
            nodes: Vec::with_capacity(needed.len()),
            constants,
            weights: Vec::new(),
            input,
            output: input,
            last_use: Vec::new(),
            smooth: Vec::new(),
        };
        let given =
            this.constants.iter().flatten().map(|value| value.shape().iter().product::<usize>());
        let mut left = FOLDED.saturating_add(FOLDED_PER_GIVEN.saturating_mul(given.sum()));
        for &index in &needed {
            this.add(&nodes[index], opset, &types, &mut names, &mut left)?;
        }
        this.output = match names.ids.get(output) {
            Some(&id) => id,
            None => return Err(Fault::Graph(format!("nothing computes the output '{output}'"))),
        };
        this.choose_weights(candidates)?;
        this.last_use = this.last_uses();
        this.smooth = this.reached_from(&[input]);
        this.fuse();
        Ok(this)
    }

    /// Adds a node, or its results if all its inputs are constants.
    fn add(
        &mut self,
        proto: &NodeProto,
        opset: i64,
        types: &HashMap<String, i32>,
        names: &mut Names,
        left: &mut usize,
    ) -> Result<(), Fault> {
        let kind = match proto.domain.as_str() {
            "" | "ai.onnx" => proto.op_type.clone(),
            domain => format!("{domain}.{}", proto.op_type),
        };
        let unsupported = |problem: String| Fault::Unsupported {
            operator: kind.clone(),
            node: proto.name.clone(),
            problem,
        };
        let operator = if kind == proto.op_type {
            ops::build(&Attributes::new(proto, opset, types))
                .map_err(|Problem(text)| unsupported(text))?
        } else {
            None
        };
        let operator = operator.ok_or_else(|| unsupported("no such operator here".into()))?;
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            inputs.push(match (name.as_str(), names.ids.get(name)) {
                ("", _) => None,
                (_, Some(&id)) => Some(id),
                (_, None) => {
                    return Err(Fault::Graph(format!(
                        "node '{}' reads '{name}', which nothing before it gives",
                        proto.name
                    )));
                }
            });
        }
        let constant = inputs.iter().flatten().all(|&id| self.constants[id].is_some());
        let outputs: Vec<Id> = proto.output.iter().map(|name| names.new_value(name)).collect();
        self.constants.resize(names.count, None);
        let name = proto.name.clone();
        let node = Node { operator, inputs, outputs, kind, name, fusion: None };
        if constant {
            let results = node.run(|id| self.constants[id].as_ref()).map_err(|e| node.fault(e))?;
            for (&id, value) in node.outputs.iter().zip(results) {
                let count = value.shape().iter().product();
                let rest = left.checked_sub(count);
                *left =
                    rest.ok_or_else(|| Fault::Graph("its constants take too much memory".into()))?;
                self.constants[id] = Some(value);
            }
        } else {
            self.nodes.push(node);
        }
        Ok(())
    }

    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0; self.constants.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().flatten().chain(&node.outputs).for_each(|&id| last[id] = index);
        }
        last[self.output] = usize::MAX;
        last
    }

    /// The values that depend smoothly on `sources`.
    pub fn reached_from(&self, sources: &[Id]) -> Vec<bool> {
        let mut reached = vec![false; self.constants.len()];
        sources.iter().for_each(|&id| reached[id] = true);
        for node in &self.nodes {
            if node.operator.is_differentiable()
                && node.inputs.iter().flatten().any(|&id| reached[id])
            {
                node.outputs.iter().for_each(|&id| reached[id] = true);
            }
        }
        reached
    }
}

impl Node {
    fn run<'a>(&self, find: impl Fn(Id) -> Option<&'a Value>) -> Outcome<Vec<Value>> {
        let inputs: Vec<_> = self.inputs.iter().map(|id| id.and_then(&find)).collect();
        self.operator.forward(&Inputs(&inputs))
    }

    fn fault(&self, Problem(problem): Problem) -> Fault {
        Fault::Node { operator: self.kind.clone(), node: self.name.clone(), problem }
    }
}

impl Fault {
    /// Turns the fault into an error that names the file.
    pub fn at(self, path: &std::path::Path, opset: i64) -> Error {
        let path = path.to_owned();
        match self {
            Self::Graph(problem) => Error::Damaged { path, problem },
            Self::Unsupported { operator, node, problem } => {
                Error::Unsupported { path, operator, node, opset, problem }
            }
            Self::Node { operator, node, problem } => Error::Node { operator, node, problem },
        }
    }
}

/// Element types of the constants, by name.
fn types(graph: &GraphProto, nodes: &[NodeProto]) -> HashMap<String, i32> {
    let of = |tensor: &TensorProto| tensor.data_type;
    let initializers = graph.initializer.iter().map(|t| (t.name.clone(), of(t)));
    let constants = nodes.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let value = node.attribute.iter().find_map(|a| a.t.as_ref())?;
        Some((node.output.first()?.clone(), of(value)))
    });
    initializers.chain(constants).collect()
}

/// Indices of the nodes that `output` depends on, in the order of the file.
fn needed(nodes: &[NodeProto], output: &str) -> Result<Vec<usize>, Fault> {
    let mut wanted: HashSet<&str> = [output].into();
    let mut needed = Vec::new();
    for (index, node) in nodes.iter().enumerate().rev() {
        if node.output.iter().any(|name| !name.is_empty() && wanted.contains(name.as_str())) {
            wanted.extend(node.input.iter().map(String::as_str));
            needed.push(index);
        }
    }
    needed.reverse();
    Ok(needed)
}
