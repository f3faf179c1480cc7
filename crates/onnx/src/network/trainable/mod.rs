//! Networks whose weights are given with each pass, which training needs.

mod passes;

use std::path::Path;

use prost::Message;
use robustness::Shape;

pub use self::passes::{Gradients, Tape, Wanted};
use super::{Network, Normalisation, Options, head, interface, written};
use crate::{
    error::{Error, Result},
    file::Model,
    functions,
    graph::{GRADIENT, Numbers},
    proto::ModelProto,
    value::{Value, array, to_vec},
};

/// What training does with a tensor of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Training changes it.
    Trained,
    /// A running statistic of batch norm, which keeps its value.
    Statistic,
}

/// A tensor that is given with each pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Name in the file; PyTorch's exporters keep the module's own where they can.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// What training does with it.
    pub role: Role,
    /// For the tensors of the last layer, which change their shape with the number of classes: the
    /// bound of PyTorch's uniform initial values.
    pub head: Option<f32>,
}

/// Values of a [`Weight`]; copies share their memory.
#[derive(Clone, Debug)]
pub struct Values(Value);

/// A network of a file whose weights are given with each pass.
///
/// Training changes the floating-point tensors that layers read as weights, biases, scales and
/// shifts. Batch norms stay in the form of inference: their running statistics keep the values of
/// the file, their scales and shifts are trained. What an exporter has folded into a convolution is
/// part of its weights.
#[derive(Debug)]
pub struct Trainable {
    network: Network,
    /// The file without the numbers of the weights.
    model: ModelProto,
    options: Options,
    weights: Vec<Weight>,
    head: Vec<head::Part>,
    /// Number of values of a recorded pass, for each image.
    recorded: usize,
    /// What depends smoothly on the weights, and on the weights or the pixels.
    smooth: [Vec<bool>; 2],
}

impl Trainable {
    /// Reads the file `path` and the data beside it; returns the values of its weights, too.
    ///
    /// # Errors
    /// Those of [`Network::open`], and [`Error::Untrainable`].
    pub fn open(path: &Path, options: &Options) -> Result<(Self, Vec<Vec<f32>>)> {
        let (this, values) = Self::build(Model::read(path)?, path, options)?;
        let filled = |(index, value): (usize, Option<Value>)| match value {
            Some(Value::Float(value)) => Ok(to_vec(&value)),
            _ => Err(this.damaged(format!("'{}' has no numbers", this.weights[index].name))),
        };
        let values: Result<_> = values.into_iter().enumerate().map(filled).collect();
        Ok((this, values?))
    }

    /// Reads what [`structure`](Self::structure) gave; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_structure(bytes: &[u8], name: &str, options: &Options) -> Result<Self> {
        let path = Path::new(name);
        let model = Model::parse(bytes, None)
            .map_err(|problem| Error::Damaged { path: path.to_owned(), problem })?;
        Ok(Self::build(model, path, options)?.0)
    }

    /// The file without the numbers of its weights: what [`from_structure`](Self::from_structure)
    /// reads.
    pub fn structure(&self) -> Vec<u8> {
        self.model.encode_to_vec()
    }

    fn build(
        mut model: Model,
        path: &Path,
        options: &Options,
    ) -> Result<(Self, Vec<Option<Value>>)> {
        let network = Network::build(&model, path, options, Numbers::Given)?;
        let untrainable =
            |problem: &str| Error::Untrainable { path: path.to_owned(), problem: problem.into() };
        if network.graph.weights.iter().all(|weight| !weight.trained) {
            return Err(untrainable(
                "it has no weights in floating-point numbers on which its logits depend smoothly; \
                 a quantised network has none",
            ));
        }
        let names: Vec<&str> = network.graph.weights.iter().map(|w| w.name.as_str()).collect();
        written::without_numbers(&mut model, &names)
            .map_err(|problem| Error::Damaged { path: path.to_owned(), problem })?;
        let mut this = Self {
            network,
            model: model.proto,
            options: options.clone(),
            weights: Vec::new(),
            head: Vec::new(),
            recorded: 0,
            smooth: [Vec::new(), Vec::new()],
        };
        let values = this.probe()?;
        this.describe()?;
        Ok((this, values))
    }

    /// Runs the network on an image, and on three where it takes any number; returns the values of
    /// the weights, without which zeros stand in.
    fn probe(&mut self) -> Result<Vec<Option<Value>>> {
        let weights = self.network.graph.weights.iter_mut();
        let values: Vec<_> = weights.map(|weight| weight.value.take()).collect();
        let given = values.iter().zip(&self.network.graph.weights).map(|(value, weight)| {
            value.clone().unwrap_or_else(|| Value::Float(crate::value::zeros(&weight.shape)))
        });
        let given: Vec<Value> = given.collect();
        if let Some(problem) = self.network.probe(&self.options, &given)? {
            return Err(Error::NotAClassifier { path: self.network.path.clone(), problem });
        }
        if self.network.batch.is_none() {
            let three = vec![0.5; 3 * self.network.row()];
            let found = self.network.run(&three, &given)?.shape().to_vec();
            if found != [3, self.outputs()] {
                let problem = format!(
                    "its output has shape {found:?} for 3 images; expected [3, {}]",
                    self.outputs()
                );
                return Err(Error::NotAClassifier { path: self.network.path.clone(), problem });
            }
        }
        let pixels = vec![0.5; self.network.batch.unwrap_or(1) * self.network.row()];
        let images = self.network.images(&pixels).map_err(|fault| self.network.fault(fault))?;
        let room = self.network.room(&pixels, GRADIENT);
        let recorded = self.network.graph.record(images, &given, room);
        let (_, pass) = recorded.map_err(|fault| self.network.fault(fault))?;
        let weights: usize =
            given.iter().map(|value| value.shape().iter().product::<usize>()).sum();
        self.recorded = pass.elements().saturating_sub(weights) / self.network.batch.unwrap_or(1);
        Ok(values)
    }

    fn describe(&mut self) -> Result<()> {
        let graph = self.model.graph.as_ref().ok_or_else(|| self.damaged("no graph".into()))?;
        let nodes = functions::expand(&graph.node, &self.model.functions)
            .map_err(|fault| self.network.fault(fault))?;
        let output = self.output()?;
        let all = &self.network.graph.weights;
        self.head = head::find(&nodes, &output, all, self.outputs());
        let bound = |index: usize| {
            self.head.iter().find(|part| part.weight == index).map(|part| part.bound)
        };
        let weights = all.iter().enumerate().map(|(index, weight)| Weight {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
            role: if weight.trained { Role::Trained } else { Role::Statistic },
            head: bound(index),
        });
        self.weights = weights.collect();
        let mut ids = self.trained();
        let of_weights = self.network.graph.reached_from(&ids);
        ids.push(self.network.graph.input());
        self.smooth = [of_weights, self.network.graph.reached_from(&ids)];
        Ok(())
    }

    /// Name of the output that is taken for the logits.
    fn output(&self) -> Result<String> {
        let graph = self.model.graph.as_ref().ok_or_else(|| self.damaged("no graph".into()))?;
        let output = interface::output(graph, self.options.output.as_deref());
        output.map(|(name, _)| name).map_err(|problem| self.damaged(problem))
    }

    /// Indices of the trained weights' values in the graph.
    fn trained(&self) -> Vec<usize> {
        let weights = self.network.graph.weights.iter();
        weights.filter(|weight| weight.trained).map(|weight| weight.id).collect()
    }

    /// Number of values an image at the end of the graph.
    fn outputs(&self) -> usize {
        if self.network.single { 1 } else { self.network.shape.classes }
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Damaged { path: self.network.path.clone(), problem }
    }

    /// Size of the images and number of classes.
    pub fn shape(&self) -> Shape {
        self.network.shape()
    }

    /// The tensors that each pass needs, in order.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Number of values of all trained weights.
    pub fn trained_len(&self) -> usize {
        let trained = self.weights.iter().filter(|weight| weight.role == Role::Trained);
        trained.map(|weight| weight.shape.iter().product::<usize>()).sum()
    }

    /// Least number of bytes that the gradients of `images` images take at once, beside the weights:
    /// the values of the recorded passes, and a gradient of all weights for each group of images.
    pub fn least_bytes(&self, images: usize) -> u64 {
        let values = (self.recorded as u64).saturating_mul(images as u64);
        let gradients = self.trained_len() as u64 * passes::GROUPS.min(images) as u64;
        values.saturating_add(gradients).saturating_mul(4)
    }

    /// Number of batch norms.
    pub fn batch_norms(&self) -> usize {
        self.network.graph.batch_norms()
    }

    /// Whether the graph begins with sums or products of the images and constants, as one does that
    /// normalises them.
    pub fn normalises(&self) -> bool {
        self.network.graph.normalises()
    }

    /// Remarks on how the file was read.
    pub fn notes(&self) -> &[String] {
        self.network.notes()
    }

    /// The same network with a last layer for `classes` classes. The weights with
    /// [`head`](Weight::head) have other shapes then.
    ///
    /// # Errors
    /// [`Error::Untrainable`] where the last layer is neither a matrix product nor a convolution,
    /// or a later operator needs the old number of classes.
    pub fn with_classes(&self, classes: usize) -> Result<Self> {
        let path = &self.network.path;
        let failed = |problem: String| Error::Untrainable {
            path: path.clone(),
            problem: format!(
                "{problem}; it cannot get a head for {classes} classes in place of {}",
                self.network.shape.classes
            ),
        };
        if self.head.is_empty() {
            let problem = "its last layer is no Gemm, MatMul or Conv with weights of its own";
            return Err(failed(problem.into()));
        }
        let mut model = Model::parse(&self.structure(), None).map_err(|e| self.damaged(e))?;
        for part in &self.head {
            let name = &self.weights[part.weight].name;
            written::resize(&mut model.proto, name, part.axis, classes);
        }
        let output = self.output()?;
        written::resize_output(&mut model.proto, &output, classes);
        let (this, _) =
            Self::build(model, path, &self.options).map_err(|e| failed(e.to_string()))?;
        match this.network.shape.classes == classes {
            true => Ok(this),
            false => Err(failed(format!("it gives {}", this.network.shape.classes))),
        }
    }

    /// The bytes of a file with these values of the weights, in the order of
    /// [`weights`](Self::weights), and `metadata` as its properties. With a normalisation the file
    /// takes pixels in [0, 1] and normalises them itself.
    ///
    /// # Errors
    /// Values of another length, or a file larger than the format's limit.
    pub fn to_file(
        &self,
        values: &[&[f32]],
        normalisation: Option<&Normalisation>,
        metadata: &[(String, String)],
    ) -> Result<Vec<u8>> {
        let named = self.weights.iter().map(|weight| weight.name.as_str());
        let named: Vec<_> = named.zip(values.iter().copied()).collect();
        if named.len() != self.weights.len() || values.len() != self.weights.len() {
            let (found, expected) = (values.len(), self.weights.len());
            return Err(self.damaged(format!("values of {found} weights, expected {expected}")));
        }
        let mut model = self.model.clone();
        written::fill(&mut model, &named).map_err(|problem| self.damaged(problem))?;
        if let Some(normalisation) = normalisation {
            written::normalise(&mut model, normalisation)
                .map_err(|problem| self.damaged(problem))?;
        }
        written::finish(model, metadata).map_err(|problem| self.damaged(problem))
    }

    /// The values `data` (row-major) of the weight `index`.
    ///
    /// # Errors
    /// Data of another length than the weight's, or no such weight.
    pub fn values(&self, index: usize, data: Vec<f32>) -> Result<Values> {
        let Some(weight) = self.weights.get(index) else {
            return Err(self.damaged(format!("no weight {index}")));
        };
        let value = array(&weight.shape, data);
        value.map(|value| Values(Value::Float(value))).map_err(|e| {
            self.damaged(format!("'{}' with numbers that do not fit it: {}", weight.name, e.0))
        })
    }
}
