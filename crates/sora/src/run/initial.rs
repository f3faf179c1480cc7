//! Weights that a training begins with, in place of random ones.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use sora_onnx::{Options, Role, Trainable};
use toml::{Table, Value};

use super::Subject;
use crate::{
    config::{TrainConfig, is_onnx},
    data::expand_home,
    error::{Error, Result},
    files,
    model::{Model, ModelConfig, Shape, Shortcut, network},
    nn::HostTensor,
};

/// Weights of a run folder, a weights file or an ONNX file, for a training to begin with.
#[derive(Debug)]
pub struct InitialWeights {
    path: PathBuf,
    network: ModelConfig,
    tensors: BTreeMap<String, HostTensor>,
    /// What a user should know about an ONNX file.
    note: Option<String>,
}

impl InitialWeights {
    /// Reads the weights that `config` names (`init`), if it does, for images of this height and
    /// width.
    ///
    /// # Errors
    /// [`Error`] for a path that is no run folder, weights file or ONNX file, or an ONNX file that
    /// cannot be trained.
    pub fn of(config: &TrainConfig, size: [usize; 2]) -> Result<Option<Self>> {
        let Some(path) = &config.init else { return Ok(None) };
        match config.begins_with_onnx() {
            true => Self::read_onnx(&expand_home(path), config, size).map(Some),
            false => Self::read(path).map(Some),
        }
    }

    fn read_onnx(path: &Path, config: &TrainConfig, size: [usize; 2]) -> Result<Self> {
        let options = Options { image_size: Some(size), ..Options::default() };
        let (graph, values) = Trainable::open(path, &options)?;
        let channels = graph.shape().channels;
        let f32s = |values: &[f64], plain: f32| match values {
            [] => vec![plain; channels],
            values => values.iter().map(|&v| v as f32).collect(),
        };
        let normalisation = [f32s(&config.mean, 0.0), f32s(&config.std, 1.0)];
        let origin = path.display().to_string();
        let network = ModelConfig::imported(&graph, normalisation, &origin)?;
        let note = format!("{origin}: {}", about(&graph, config));
        let named = graph.weights().iter().zip(values).map(|(weight, data)| {
            let (name, shape) = (weight.name.clone(), weight.shape.clone());
            (name.clone(), HostTensor { name, shape, data })
        });
        Ok(Self { path: path.to_owned(), network, tensors: named.collect(), note: Some(note) })
    }

    /// What a user should know about an ONNX file, in one line.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The network of the weights for images of `shape`, with a new head for other classes, if it is
    /// one of an ONNX file.
    ///
    /// # Errors
    /// [`Error`] for images of another size, or a graph that cannot get a new head.
    pub(crate) fn imported(&self, shape: Shape) -> Result<Option<ModelConfig>> {
        if !self.network.is_imported() {
            return Ok(None);
        }
        let known = self.network.shape;
        let sizes = |shape: Shape| [shape.channels, shape.height, shape.width];
        if sizes(known) != sizes(shape) {
            let ([c, h, w], [channels, height, width]) = (sizes(known), sizes(shape));
            let problem = format!(
                "it takes images of {c}x{h}x{w}, and the data set has images of \
                 {channels}x{height}x{width}"
            );
            return Err(Error::mismatch(&self.path, problem));
        }
        if known.classes == shape.classes {
            return Ok(Some(self.network.clone()));
        }
        let graph = self.network.onnx_graph()?.with_classes(shape.classes);
        let graph = graph.map_err(|e| Error::mismatch(&self.path, e.to_string()))?;
        let (mean, std) = (self.network.mean.clone(), self.network.std.clone());
        ModelConfig::imported(&graph, [mean, std], &self.path.display().to_string()).map(Some)
    }

    /// Reads the weights of the run folder or weights file `path`.
    ///
    /// # Errors
    /// [`Error`] for a path that is neither.
    fn read(path: &Path) -> Result<Self> {
        let path = expand_home(path);
        let foreign = match path.extension().and_then(|extension| extension.to_str()) {
            Some("pt" | "pth" | "bin" | "tar") => "a checkpoint of PyTorch; import it first",
            _ => "",
        };
        if !foreign.is_empty() {
            return Err(Error::mismatch(&path, foreign));
        }
        let found = Subject::load(&path, &Device::flex())?;
        let tensors = found.model.to_host()?.into_iter().map(|t| (t.name.clone(), t)).collect();
        Ok(Self { path, network: found.about.network, tensors, note: None })
    }

    /// SHA-256 of the tensors ([`files::digest`]).
    pub fn sha256(&self) -> String {
        files::digest(self.tensors.values())
    }

    /// Gives `network` the normalisation that the weights were trained with, unless it is of images
    /// with another number of channels.
    pub(crate) fn normalise(&self, network: &mut ModelConfig) {
        if self.network.shape.channels == network.shape.channels {
            (network.mean, network.std) = (self.network.mean.clone(), self.network.std.clone());
        }
    }

    /// Gives `model` these weights. With other classes its head stays random: the tensors that have
    /// one row a class. The names of these are returned.
    ///
    /// # Errors
    /// [`Error`] for weights of another network.
    pub(crate) fn give(&self, model: &mut Model) -> Result<Vec<String>> {
        let ours = model.config.clone();
        self.refuse_another_function(&ours)?;
        let classes = (self.network.shape.classes, ours.shape.classes);
        let (mut tensors, mut head) = (self.tensors.clone(), Vec::new());
        let expected = model.to_host()?;
        if let Some(name) = tensors.keys().find(|name| expected.iter().all(|t| t.name != **name)) {
            return Err(self.another(&ours, &format!("it has a tensor {name} more")));
        }
        for own in expected {
            match tensors.get(&own.name) {
                None => return Err(self.another(&ours, &format!("it has no tensor {}", own.name))),
                Some(given) if given.shape == own.shape => {}
                Some(given) if of_classes(&given.shape, &own.shape, classes) => {
                    head.push(own.name.clone());
                    tensors.insert(own.name.clone(), own);
                }
                Some(given) => {
                    let (name, theirs, own) = (&own.name, &given.shape, &own.shape);
                    let what = format!("its {name} has shape {theirs:?}, expected {own:?}");
                    return Err(self.another(&ours, &what));
                }
            }
        }
        model.load(&tensors, &self.path.display().to_string())?;
        Ok(head)
    }

    /// Refuses a network whose tensors may have the same names and shapes, but which computes another
    /// function of them.
    fn refuse_another_function(&self, ours: &ModelConfig) -> Result<()> {
        let theirs = &self.network;
        if theirs.is_imported() || ours.is_imported() {
            return Ok(());
        }
        if theirs.name != ours.name {
            return Err(self.another(ours, "it is another network"));
        }
        let usual = network(&ours.name)?.activation;
        let functions = [theirs, ours].map(|network| {
            let options = network.options;
            // Weights of older versions do not say what their shortcuts take.
            let shortcut = options.shortcut.unwrap_or(Shortcut::Activated);
            format!("activation {} and shortcut {shortcut}", options.activation.unwrap_or(usual))
        });
        match functions {
            [theirs, ours_are] if theirs != ours_are => {
                let what = format!("they were trained with {theirs}, expected {ours_are}");
                Err(self.another(ours, &what))
            }
            _ => Ok(()),
        }
    }

    fn another(&self, ours: &ModelConfig, what: &str) -> Error {
        let problem = format!(
            "weights of {} of width {}, and the training is of {} of width {}: {what}; leave out \
             `model` and what belongs to it, so that the network is that of the weights",
            self.network.name, self.network.width, ours.name, ours.width
        );
        Error::mismatch(&self.path, problem)
    }
}

/// Whether two shapes differ in one size alone, which is the number of classes before and now. In a
/// graph of one output for two classes it is 1.
fn of_classes(theirs: &[usize], ours: &[usize], (before, now): (usize, usize)) -> bool {
    let mut differ = theirs.iter().zip(ours).filter(|(a, b)| a != b);
    let is = |size: usize, classes: usize| size == classes || (classes, size) == (2, 1);
    theirs.len() == ours.len()
        && before != now
        && differ.next().is_some_and(|(a, b)| is(*a, before) && is(*b, now))
        && differ.next().is_none()
}

/// What is trained of a graph, and what happens to its images.
fn about(graph: &Trainable, config: &TrainConfig) -> String {
    let trained = graph.weights().iter().filter(|weight| weight.role == Role::Trained).count();
    let mut text = format!("{trained} tensors ({} values) are trained", graph.trained_len());
    match graph.batch_norms() {
        0 => {}
        1 => text += "; a batch norm keeps its running statistics",
        norms => text += &format!("; {norms} batch norms keep their running statistics"),
    }
    for note in graph.notes() {
        text += &format!("; {note}");
    }
    text + match (config.mean.is_empty(), graph.normalises()) {
        (false, _) => "; images are normalised before it",
        (true, true) => "; it normalises images itself",
        (true, false) => "; images go in as they are, in [0, 1]",
    }
}

/// Completes the settings `table` of a training with the network of the weights that it begins with
/// (`init`), unless `model` names another.
///
/// # Errors
/// Weights that cannot be read.
pub fn with_initial_network(mut table: Table) -> Result<Table> {
    let init = table.get("init").and_then(Value::as_str);
    let Some(init) = init else { return Ok(table) };
    // An ONNX file brings its network without being read.
    if is_onnx(Path::new(init)) {
        return Ok(table);
    }
    let network = InitialWeights::read(Path::new(init))?.network;
    let named = table.get("model").and_then(Value::as_str);
    if named.is_some_and(|name| name != network.name) {
        return Ok(table);
    }
    let text = |value: Option<String>| value.map(Value::String);
    let whole = |value: usize| i64::try_from(value).ok().map(Value::Integer);
    let options = network.options;
    // Weights of older versions do not say what their shortcuts take.
    let takes =
        |option| crate::model::network(&network.name).map(|info| info.options.contains(&option));
    let older = takes("shortcut").unwrap_or(false).then_some(Shortcut::Activated);
    let shortcut = options.shortcut.or(older);
    for (key, value) in [
        ("model", Some(Value::String(network.name.clone()))),
        ("width", whole(network.width)),
        ("activation", text(options.activation.map(|v| v.to_string()))),
        ("stem", text(options.stem.map(|v| v.to_string()))),
        ("patch", options.patch.and_then(whole)),
        ("shortcut", text(shortcut.map(|v| v.to_string()))),
    ] {
        if let Some(value) = value.filter(|_| !table.contains_key(key)) {
            table.insert(key.into(), value);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{ABOUT, About};

    /// preact-resnet18 of these classes and width.
    fn network(classes: usize, width: usize) -> ModelConfig {
        let shape = Shape { channels: 3, height: 16, width: 16, classes };
        let info = crate::model::network("preact-resnet18").unwrap();
        let (mean, std) = (vec![0.25; 3], vec![0.125; 3]);
        let options = info.resolve(Default::default(), shape).unwrap();
        ModelConfig { name: info.name.into(), width, shape, mean, std, options, onnx: None }
    }

    fn model(classes: usize, width: usize, seed: u64) -> Model {
        Model::init(network(classes, width), seed, &Device::flex()).unwrap()
    }

    /// The file of the weights of a network of 10 classes and width 4.
    fn written(dir: &Path) -> PathBuf {
        written_with(dir, network(10, 4))
    }

    /// The same, described as `network`.
    fn written_with(dir: &Path, network: ModelConfig) -> PathBuf {
        let config = TrainConfig::default();
        let about = About {
            network,
            dataset: "synthetic".into(),
            extra: String::new(),
            orientation: config.orientation,
            method: config.method,
            epsilon: config.epsilon,
            norm: config.norm,
            step: None,
            classes: Vec::new(),
            sha256: String::new(),
        };
        let file = dir.join("w.safetensors");
        std::fs::write(&file, about.file(&model(10, 4, 3).to_host().unwrap()).unwrap()).unwrap();
        assert!(std::fs::read(&file).unwrap().windows(ABOUT.len()).any(|w| w == ABOUT.as_bytes()));
        file
    }

    #[test]
    fn everything_is_taken_but_a_head_of_other_classes() {
        let dir = tempfile::tempdir().unwrap();
        let initial = InitialWeights::read(&written(dir.path())).unwrap();
        let theirs = model(10, 4, 3).to_host().unwrap();
        assert_eq!(initial.sha256(), files::digest(&theirs));
        for (classes, new) in [(10, 0), (4, 2)] {
            let mut begun = model(classes, 4, 9);
            let random = begun.to_host().unwrap();
            let head = initial.give(&mut begun).unwrap();
            assert_eq!(head.len(), new, "{head:?}");
            for ((now, before), given) in begun.to_host().unwrap().iter().zip(&random).zip(&theirs)
            {
                let source = if head.contains(&now.name) { before } else { given };
                assert_eq!(now.data, source.data, "{}", now.name);
            }
        }
        let error = initial.give(&mut model(10, 8, 9)).unwrap_err().to_string();
        assert!(error.contains("of width 4") && error.contains("of width 8"), "{error}");
        // Names and shapes are the same, the function is not.
        let mut config = network(10, 4);
        config.options.shortcut = Some(Shortcut::Activated);
        let mut other = Model::init(config, 9, &Device::flex()).unwrap();
        let error = initial.give(&mut other).unwrap_err().to_string();
        assert!(
            error.contains("shortcut input, expected") && error.contains("activated"),
            "{error}"
        );
        let mut other = network(10, 4);
        (other.mean, other.std) = (vec![0.5; 3], vec![0.5; 3]);
        initial.normalise(&mut other);
        assert_eq!((other.mean, other.std), (vec![0.25; 3], vec![0.125; 3]));
    }

    #[test]
    fn the_network_is_that_of_the_weights_unless_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let settings = |more: &str| {
            let text = format!("init = '{}'\n{more}", file.display());
            TrainConfig::from_table(with_initial_network(text.parse().unwrap()).unwrap()).unwrap()
        };
        let found = settings("");
        assert_eq!((&*found.model, found.width), ("preact-resnet18", 4));
        assert_eq!(found.shortcut, network(10, 4).options.shortcut);
        assert_eq!(settings("model = 'resnet18'").model, "resnet18");
        let named = settings("model = 'preact-resnet18'\nwidth = 4");
        assert_eq!(named.shortcut, network(10, 4).options.shortcut);
        // A file that is older than the option.
        let mut old = network(10, 4);
        old.options.shortcut = None;
        written_with(dir.path(), old);
        assert_eq!(settings("").shortcut, Some(Shortcut::Activated));
        let none = "init = 'nowhere'".parse().unwrap();
        assert!(with_initial_network(none).is_err());
    }
}
