//! A graph as an image classifier.

mod head;
mod interface;
mod trainable;
mod written;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;
use robustness::{Cotangent, OneOutput, Shape};

use crate::{
    buffers::recycle,
    error::{Error, Result, one_line},
    file::Model,
    graph::{Fault, GRADIENT, Graph, LOGITS, Numbers},
    ops::conv::to_pixels,
    value::{Array, Value, array, to_vec},
};

pub use trainable::{Gradients, Role, Tape, Trainable, Values, Wanted, Weight};

/// Supported versions of ONNX's operator set.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=23;

/// Number of pixels of the largest group of images that a thread takes at once.
const PIXELS: usize = 32 * 32 * 32;

/// The normalisation of pixels in [0, 1] before they enter the graph: `(x - mean) / std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, not 0.
    pub std: Vec<f32>,
}

/// Options of reading a file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Height and width of the images, for files whose graph leaves them open.
    pub image_size: Option<[usize; 2]>,
    /// The normalisation applied before the graph; `None` if the graph takes pixels in [0, 1].
    pub normalisation: Option<Normalisation>,
    /// Name of the output with the logits; `None` selects the first output.
    pub output: Option<String>,
    /// What the one output of a network of two classes is; `None` takes it as a logit.
    pub one_output: Option<OneOutput>,
}

/// An image classifier read from a file.
///
/// Images are rows of `channels x height x width` pixels in [0, 1]. A row's results depend on that
/// row alone.
#[derive(Debug)]
pub struct Network {
    graph: Graph,
    path: PathBuf,
    opset: i64,
    shape: Shape,
    /// The batch size for which the file was exported; `None` for any size.
    batch: Option<usize>,
    normalisation: Option<Normalisation>,
    /// Whether the graph computes one number an image, for two classes.
    single: bool,
    /// What that number is, where it is known.
    one_output: Option<OneOutput>,
    digest: String,
    notes: Vec<String>,
    producer: String,
}

impl Network {
    /// Reads the file `path`, with the data beside it.
    ///
    /// # Errors
    /// [`Error`] with one line that says what is wrong and where, for a file that cannot be read,
    /// is not an ONNX model, uses an operator that is not supported, or is not an image classifier.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let this = Self::build(&Model::read(path)?, path, options, Numbers::Constant)?;
        this.probed(options, &[])
    }

    /// Reads the bytes of a file that holds everything; messages call it `name`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and data that lie beside the file.
    pub fn from_bytes(bytes: &[u8], name: &str, options: &Options) -> Result<Self> {
        let path = Path::new(name);
        let model = Model::parse(bytes, None)
            .map_err(|problem| Error::Damaged { path: path.to_owned(), problem })?;
        Self::build(&model, path, options, Numbers::Constant)?.probed(options, &[])
    }

    fn build(model: &Model, path: &Path, options: &Options, numbers: Numbers) -> Result<Self> {
        let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
        let refuse = |problem: String| Error::NotAClassifier { path: path.to_owned(), problem };
        let ours = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let opset = model.proto.opset_import.iter().find(|set| ours(&set.domain));
        let opset = opset.map_or(0, |set| set.version);
        if !OPSETS.contains(&opset) {
            return Err(damaged(format!(
                "operator set {opset}: expected {} to {}; export it anew, opset 17 is a good choice",
                OPSETS.start(),
                OPSETS.end()
            )));
        }
        let graph =
            model.proto.graph.as_ref().ok_or_else(|| damaged("it holds no graph".into()))?;
        let input = interface::input(graph).map_err(refuse)?;
        let (batch, [channels, height, width]) =
            interface::image(input, options.image_size).map_err(refuse)?;
        if let Some(Normalisation { mean, std }) = &options.normalisation
            && (mean.len() != channels || std.len() != channels || std.contains(&0.0))
        {
            return Err(refuse(format!(
                "{} means and {} standard deviations for {channels} channels",
                mean.len(),
                std.len()
            )));
        }
        let mut notes = Vec::new();
        let (output, activation) =
            interface::output(graph, options.output.as_deref()).map_err(refuse)?;
        if let Some(activation) = activation {
            notes.push(format!(
                "the last operator, {activation}, is left out: its input is taken as the logits"
            ));
        }
        let built = Graph::build(model, opset, [&input.name, &output], numbers);
        Ok(Self {
            graph: built.map_err(|fault| fault.at(path, opset))?,
            path: path.to_owned(),
            opset,
            shape: Shape { channels, height, width, classes: 0 },
            batch,
            normalisation: options.normalisation.clone(),
            single: false,
            // What goes into a sigmoid is a logit.
            one_output: activation.map(|_| OneOutput::Logit).or(options.one_output),
            digest: model.beside.digest(),
            notes,
            producer: one_line(&format!(
                "{} {}",
                model.proto.producer_name, model.proto.producer_version
            )),
        })
    }

    /// Finds the number of classes with one pass, which also finds inputs that do not fit before an
    /// attack does.
    fn probed(mut self, options: &Options, weights: &[Value]) -> Result<Self> {
        match self.probe(options, weights)? {
            None => Ok(self),
            Some(problem) => Err(Error::NotAClassifier { path: self.path, problem }),
        }
    }

    fn probe(&mut self, options: &Options, weights: &[Value]) -> Result<Option<String>> {
        let count = self.batch.unwrap_or(1);
        let images = vec![0.5; count * self.row()];
        let found = self.run(&images, weights)?.shape().to_vec();
        let classes = match found[..] {
            [n, classes] if n == count && classes > 0 => classes,
            _ => {
                return Ok(Some(format!(
                    "its output has shape {found:?} for {count} image(s); expected [images, classes]"
                )));
            }
        };
        self.single = classes == 1;
        if let (false, Some(said)) = (self.single, options.one_output) {
            return Ok(Some(format!(
                "it has {classes} outputs an image, not one that is a {said} of class 1"
            )));
        }
        self.shape.classes = classes.max(2);
        Ok(None)
    }

    /// Size of the images and number of classes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the graph computes one number an image, for two classes.
    pub fn has_one_output(&self) -> bool {
        self.single
    }

    /// What that number is, where it was said or is known from the graph.
    pub fn one_output(&self) -> Option<OneOutput> {
        self.one_output.filter(|_| self.single)
    }

    /// SHA-256, in hexadecimal, of the file and of the data beside it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The program that wrote the file.
    pub fn producer(&self) -> &str {
        self.producer.trim()
    }

    /// Remarks for a reader of results on how the file was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The normalisation that is applied before the graph.
    pub fn normalisation(&self) -> Option<&Normalisation> {
        self.normalisation.as_ref()
    }

    fn row(&self) -> usize {
        let Shape { channels, height, width, .. } = self.shape;
        channels * height * width
    }

    /// Computes the logits, rows of [`Shape::classes`], of the images `x`.
    ///
    /// # Errors
    /// [`Error::Pixels`] when `x` does not hold whole images; [`Error::Node`] when a node fails.
    pub fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let groups = self.groups(x)?;
        let logits: Result<Vec<_>> = rayon::scope(|_| {
            groups.into_par_iter().with_max_len(1).map(|(_, x)| self.group_logits(x)).collect()
        });
        Ok(logits?.concat())
    }

    fn group_logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let rows = x.len() / self.row();
        let filled = self.filled(x);
        let output = self.run(&filled, &[])?;
        Ok(self.to_logits(output.float().map_err(|e| self.fault(e.into()))?, rows))
    }

    /// Computes the logits of `x` and, for each image, the product of its cotangent with the
    /// Jacobian of its logits. `cotangent` is called for groups of neighbouring rows, once for each
    /// row, in any order.
    ///
    /// # Errors
    /// Those of [`logits`](Self::logits).
    pub fn pull_back(
        &self,
        x: &[f32],
        cotangent: &mut Cotangent<'_>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let groups = self.groups(x)?;
        let cotangent = Mutex::new(cotangent);
        let pulled: Result<Vec<_>> = rayon::scope(|_| {
            groups
                .into_par_iter()
                .with_max_len(1)
                .map(|(first, x)| self.group_pull_back(first, x, &cotangent))
                .collect()
        });
        let (logits, gradients): (Vec<_>, Vec<_>) = pulled?.into_iter().unzip();
        Ok((logits.concat(), gradients.concat()))
    }

    fn group_pull_back(
        &self,
        first: usize,
        x: &[f32],
        cotangent: &Mutex<&mut Cotangent<'_>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let rows = x.len() / self.row();
        let filled = self.filled(x);
        let images = self.images(&filled).map_err(|e| self.fault(e))?;
        let recorded = self.graph.record(images, &[], self.room(&filled, GRADIENT));
        let (output, pass) = recorded.map_err(|e| self.fault(e))?;
        let output = output.float().map_err(|e| self.fault(e.into()))?.clone();
        let logits = self.to_logits(&output, rows);
        let given = cotangent.lock().unwrap_or_else(PoisonError::into_inner)(first, &logits);
        let back = self.back_of(&output, given)?;
        let gradient = self.graph.pull_back(pass, back).map_err(|e| self.fault(e))?;
        let mut gradient = self.pixels(gradient)?;
        gradient.truncate(x.len());
        if let Some(Normalisation { std, .. }) = &self.normalisation {
            self.by_channel(&mut gradient, |g, channel| *g /= std[channel]);
        }
        Ok((logits, gradient))
    }

    /// The cotangent of an output, from that of the logits of its first rows.
    fn back_of(&self, output: &Array<f32>, given: Vec<f32>) -> Result<Array<f32>> {
        let mut back: Vec<f32> = match self.single {
            // The first class's logit is the constant 0.
            true => {
                let values = output.iter().copied();
                let slopes = values.map(|value| self.said().slope(value));
                let given = given.chunks(2).map(|pair| pair.get(1).copied().unwrap_or(0.0));
                given.zip(slopes).map(|(given, slope)| given * slope).collect()
            }
            false => given,
        };
        back.resize(output.len(), 0.0);
        array(output.shape(), back).map_err(|e| self.fault(e.into()))
    }

    /// Splits the images into groups for the threads, each with the number of its first row.
    fn groups<'a>(&self, x: &'a [f32]) -> Result<Vec<(usize, &'a [f32])>> {
        let row = self.row();
        if !x.len().is_multiple_of(row) {
            return Err(Error::Pixels { found: x.len(), expected: row });
        }
        let n = x.len() / row;
        let size = self.batch.unwrap_or_else(|| {
            let threads = rayon::current_num_threads().max(1);
            let most = (PIXELS * 3 / row).max(1);
            n.div_ceil(threads * n.div_ceil(threads * most).max(1)).max(1)
        });
        Ok(x.chunks(size * row).enumerate().map(|(i, x)| (i * size, x)).collect())
    }

    /// Returns `x`, padded with zeros to the batch size for which the file was exported.
    fn filled<'a>(&self, x: &'a [f32]) -> std::borrow::Cow<'a, [f32]> {
        match self.batch.map(|batch| batch * self.row()) {
            Some(len) if len != x.len() => {
                let mut filled = x.to_vec();
                filled.resize(len, 0.0);
                filled.into()
            }
            _ => x.into(),
        }
    }

    fn by_channel(&self, data: &mut [f32], change: impl Fn(&mut f32, usize)) {
        let Shape { channels, height, width, .. } = self.shape;
        for (plane, values) in data.chunks_mut((height * width).max(1)).enumerate() {
            values.iter_mut().for_each(|v| change(v, plane % channels));
        }
    }

    fn images(&self, x: &[f32]) -> Result<Value, Fault> {
        let Shape { channels, height, width, .. } = self.shape;
        let mut x = x.to_vec();
        if let Some(Normalisation { mean, std }) = &self.normalisation {
            self.by_channel(&mut x, |v, channel| *v = (*v - mean[channel]) / std[channel]);
        }
        let n = x.len() / self.row();
        Ok(Value::Float(array(&[n, channels, height, width], x)?))
    }

    /// Bytes that the values of a pass over the images `x` may take, `each` for an image. Of a batch
    /// that the file fixes some images count alone: it is the file that asks for it.
    fn room(&self, x: &[f32], each: u64) -> u64 {
        const FIXED: usize = 64;
        let images = (x.len() / self.row()).max(1);
        let images = if self.batch.is_some() { images.min(FIXED) } else { images };
        each.saturating_mul(images as u64)
    }

    /// A gradient by the images in their own form.
    fn pixels(&self, gradient: Array<f32>) -> Result<Vec<f32>> {
        let pixels = to_pixels(&gradient).map_err(|e| self.fault(e.into()))?;
        recycle(gradient);
        Ok(pixels)
    }

    fn run(&self, x: &[f32], weights: &[Value]) -> Result<Value> {
        let images = self.images(x).map_err(|e| self.fault(e))?;
        let output = self.graph.forward(images, weights, self.room(x, LOGITS));
        let output = output.map_err(|e| self.fault(e))?;
        output.float().map_err(|e| self.fault(e.into()))?;
        Ok(output)
    }

    /// The first `rows` rows of an output as logits of at least two classes.
    fn to_logits(&self, output: &Array<f32>, rows: usize) -> Vec<f32> {
        let all = to_vec(output);
        match self.single {
            true => {
                let values = all.into_iter().take(rows);
                values.flat_map(|value| [0.0, self.said().log_odds(value)]).collect()
            }
            false => all.into_iter().take(rows * self.shape.classes).collect(),
        }
    }

    fn said(&self) -> OneOutput {
        self.one_output.unwrap_or(OneOutput::Logit)
    }

    fn fault(&self, fault: Fault) -> Error {
        fault.at(&self.path, self.opset)
    }
}
