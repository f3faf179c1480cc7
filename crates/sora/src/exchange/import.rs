//! A checkpoint of another program as a model: its names are matched with the network's, whatever
//! dictionary or wrapper they lie in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::tensor::Device;

use super::checkpoint::{self, Entry};
use crate::{
    error::{Error, Result},
    model::{Model, ModelConfig, NetworkInfo, NetworkOptions, Shape, Stem, network},
    nn::{HostTensor, Spec},
};

/// What the caller knows about the checkpoint; the rest is found in it.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Registry name of the network.
    pub model: String,
    /// Width; found in the file where it is absent.
    pub width: Option<usize>,
    /// Height and width of the images in pixels.
    pub image: Option<[usize; 2]>,
    /// Number of classes, to be held against the file's.
    pub classes: Option<usize>,
    /// Mean and standard deviation of each channel in pixel space; `None`: those of a normalisation
    /// layer in the file.
    pub normalisation: Option<[Vec<f32>; 2]>,
    /// Mean and standard deviation for a file that says nothing of them.
    pub fallback: Option<[Vec<f32>; 2]>,
    /// Activation and the like.
    pub network: NetworkOptions,
    /// Takes a file with tensors that the network does not have.
    pub allow_unexpected: bool,
}

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    /// The network with the file's values.
    pub model: Model,
    /// What stood before the names of the weights.
    pub prefix: String,
    /// Tensors taken.
    pub taken: usize,
    /// Tensors under the same prefix that were left.
    pub left: Vec<String>,
    /// Where the normalisation comes from.
    pub normalisation: &'static str,
}

/// Last parts of the names that normalisation layers have for the mean and the standard deviation.
const MEANS: [&str; 3] = ["mean", "mu", "new_mean"];
const STDS: [&str; 3] = ["std", "sigma", "new_std"];
/// Parts of public checkpoints that no forward pass reads: a second copy of the first stage in
/// TRADES's WideResNet.
const UNREAD: [&str; 1] = ["sub_block1."];

/// Reads the checkpoint `path` into a network.
///
/// # Errors
/// A file that is no checkpoint or is damaged; weights that are missing, unexpected or of another
/// shape, in one line that names them.
pub fn import(
    path: &Path,
    wanted: &ImportOptions,
    about: &str,
    device: &Device,
) -> Result<(Imported, Option<String>)> {
    let info = network(&wanted.model)?;
    let (entries, description) = checkpoint::read(path, about)?;
    let file = path.display().to_string();
    let (prefix, weights) = matching(&entries, info).ok_or_else(|| {
        let some = list(entries.iter().map(|entry| entry.name.clone()).collect());
        Error::input(format!(
            "{file}: holds no weights of {}: no tensor whose name ends in '{}'; it has {}; is --model right?",
            info.name,
            info.width_from,
            if entries.is_empty() { "no tensors".into() } else { some }
        ))
    })?;
    let shape_of = |name: &str| weights.get(name).map(|entry| entry.shape.as_slice());
    let damaged = |name: &str| {
        Error::input(format!(
            "{file}: tensor '{name}' has a shape that no weight of {} has",
            info.name
        ))
    };

    let Some(&[found, ..]) = shape_of(info.width_from) else {
        return Err(damaged(info.width_from));
    };
    let width = wanted.width.unwrap_or(found);
    let first = if weights.contains_key("conv1.weight") { "conv1.weight" } else { info.width_from };
    let Some(&[_, channels, kernel, _]) = shape_of(first) else { return Err(damaged(first)) };
    let classes =
        info.classes_from.iter().find_map(|name| shape_of(name)?.first().copied()).ok_or_else(
            || {
                Error::input(format!(
                    "{file}: no classifier, a tensor '{}'; is --model right?",
                    info.classes_from.join("' or '")
                ))
            },
        )?;
    if let Some(expected) = wanted.classes.filter(|&expected| expected != classes) {
        return Err(Error::input(format!(
            "{file}: a network of {classes} classes; the data set has {expected}"
        )));
    }
    let mut options = wanted.network;
    if info.options.contains(&"stem") && options.stem.is_none() {
        options.stem = Some(if kernel == 7 { Stem::Imagenet } else { Stem::Cifar });
    }
    if info.options.contains(&"patch") && options.patch.is_none() {
        options.patch = Some(kernel);
    }
    let positions = ["pos_embed", "classifier.positional_emb"]
        .iter()
        .find_map(|name| shape_of(name)?.get(1).copied());
    let [height, breadth] = wanted.image.unwrap_or_else(|| {
        guess_size(info, positions, &options, weights.contains_key("classifier.6.weight"), channels)
    });
    let shape = Shape { channels, height, width: breadth, classes };
    let options = info.resolve(options, shape)?;

    let (normalisation, [mean, std]) =
        normalisation(&entries, wanted, channels, description.is_some())
            .map_err(|e| Error::input(format!("{file}: {e}")))?;
    let config = ModelConfig { name: info.name.into(), width, shape, mean, std, options };
    // Names and shapes first: a file that only claims to be large costs nothing.
    let specs = config.specs()?;
    let specs: Vec<&Spec> = specs.params.iter().chain(&specs.buffers).collect();
    let left = compare(&file, &weights, &specs, &config, wanted.allow_unexpected)?;
    let needed = specs.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.len() as u64));
    let size = std::fs::metadata(path)
        .map_err(|e| Error::input(format!("cannot look at {file}: {e}")))?
        .len();
    if needed > size {
        return Err(Error::input(format!(
            "{file}: {size} bytes for {needed} weights; is the file damaged?"
        )));
    }
    let mut tensors = BTreeMap::new();
    for spec in &specs {
        if let Some(entry) = weights.get(&spec.name) {
            let data = entry.values().map_err(|e| Error::input(format!("{file}: {e}")))?;
            tensors.insert(
                spec.name.clone(),
                HostTensor { name: spec.name.clone(), shape: spec.shape.clone(), data },
            );
        }
    }
    let taken = tensors.len();
    let mut model = Model::init(config, 0, device)?;
    model.load(&tensors, &file)?;
    Ok((Imported { model, prefix, taken, left, normalisation }, description))
}

/// The prefix under which the most names of the network are found, and those tensors by the
/// network's names.
fn matching<'a>(
    entries: &'a [Entry],
    info: &NetworkInfo,
) -> Option<(String, BTreeMap<String, &'a Entry>)> {
    let mut best: Option<(String, BTreeMap<String, &Entry>)> = None;
    let prefixes: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(info.width_from))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .collect();
    for prefix in prefixes {
        let named = entries
            .iter()
            .filter_map(|entry| Some((renamed(entry.name.strip_prefix(prefix)?, info), entry)));
        let named: BTreeMap<String, &Entry> = named.collect();
        // A wrapper's other parts lie under the same prefix or under none: the longest list is the
        // network's own.
        if best.as_ref().is_none_or(|(chosen, taken)| better((prefix, &named), (chosen, taken))) {
            best = Some((prefix.to_owned(), named));
        }
    }
    best
}

/// Whether the first of two candidates is the network itself: with an optimizer's or an average's
/// copy beside it, the one under a usual key.
fn better(
    (prefix, named): (&str, &BTreeMap<String, &Entry>),
    (chosen, taken): (&str, &BTreeMap<String, &Entry>),
) -> bool {
    let unusual = |prefix: &str| {
        ["optimizer", "ema", "swa", "avg", "momentum"].iter().any(|word| prefix.contains(word))
    };
    match (unusual(prefix), unusual(chosen)) {
        (true, false) => false,
        (false, true) => true,
        _ => {
            named.len() > taken.len() || (named.len() == taken.len() && prefix.len() < chosen.len())
        }
    }
}

/// The network's name for a file's name.
fn renamed(name: &str, info: &NetworkInfo) -> String {
    info.aliases.iter().fold(name.to_owned(), |name, (from, to)| match from.strip_prefix('.') {
        // Anywhere in the name, or at its beginning.
        Some(_) => name.replace(from, to),
        None => name.strip_prefix(from).map_or(name.clone(), |rest| format!("{to}{rest}")),
    })
}

/// Image size of a network whose weights do not tell: 32, 28 in one channel, 224 for the forms for
/// large images.
fn guess_size(
    info: &NetworkInfo,
    positions: Option<usize>,
    options: &NetworkOptions,
    large: bool,
    channels: usize,
) -> [usize; 2] {
    let side = match (positions, options.patch) {
        (Some(tokens), Some(patch)) => tokens.saturating_sub(1).isqrt().saturating_mul(patch),
        (Some(tokens), None) => 2 * tokens.isqrt(),
        _ if large || options.stem == Some(Stem::Imagenet) => 224,
        _ if channels == 1 || info.name.starts_with("mnist") => 28,
        _ => 32,
    };
    [side; 2]
}

/// Where the normalisation comes from, and its means and standard deviations.
fn normalisation(
    entries: &[Entry],
    options: &ImportOptions,
    channels: usize,
    described: bool,
) -> Result<(&'static str, [Vec<f32>; 2]), String> {
    if let Some(given) = &options.normalisation {
        // One value stands for every channel.
        let each = |values: &Vec<f32>| match values.as_slice() {
            &[value] => vec![value; channels.min(1 << 16)],
            _ => values.clone(),
        };
        return Ok(("as given", [each(&given[0]), each(&given[1])]));
    }
    let layer = |names: &[&str]| {
        entries.iter().find(|entry| {
            entry.is_float()
                && entry.len() == Some(channels)
                && entry.name.rsplit('.').next().is_some_and(|last| names.contains(&last))
        })
    };
    if let (Some(mean), Some(std)) = (layer(&MEANS), layer(&STDS)) {
        let read = |entry: &Entry| entry.values().map_err(|e| e.to_string());
        return Ok(("from the file's normalisation layer", [read(mean)?, read(std)?]));
    }
    let source = if described { "from the file's metadata" } else { "of the data set" };
    options.fallback.clone().map(|values| (source, values)).ok_or_else(|| {
        "has no normalisation layer; give --mean and --std in [0, 1], one value or one a channel (--mean 0 --std 1 for a network that takes pixels as they are), or --dataset for the set's own".into()
    })
}

/// Up to six names, and how many more there are.
fn list(names: Vec<String>) -> String {
    const SHOWN: usize = 6;
    let shown: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(80).collect())
        .collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether a tensor of shape `found` can stand for a weight of shape `expected`: the same, or with
/// other trailing ones.
fn fits(found: &[usize], expected: &[usize]) -> bool {
    let trimmed = |shape: &[usize]| {
        let ones = shape.iter().rev().take_while(|&&size| size == 1).count();
        shape[..shape.len() - ones].to_vec()
    };
    found == expected
        || (expected.len() > 1
            && trimmed(found) == trimmed(expected)
            && found.first() == expected.first())
}

/// Holds the file's tensors against the network's list; gives the names of those that are left.
fn compare(
    file: &str,
    weights: &BTreeMap<String, &Entry>,
    specs: &[&Spec],
    config: &ModelConfig,
    allow_unexpected: bool,
) -> Result<Vec<String>> {
    let expected: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let (mut missing, mut misshaped) = (Vec::new(), Vec::new());
    for spec in specs {
        match weights.get(&spec.name) {
            None => missing.push(spec.name.clone()),
            Some(entry) if !fits(&entry.shape, &spec.shape) => {
                misshaped
                    .push(format!("{} {:?} instead of {:?}", spec.name, entry.shape, spec.shape));
            }
            Some(_) => {}
        }
    }
    let harmless = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        MEANS.contains(&last)
            || STDS.contains(&last)
            || UNREAD.iter().any(|part| name.starts_with(part))
    };
    let counter = |name: &str| name.ends_with("num_batches_tracked");
    let left: Vec<String> = weights
        .keys()
        .filter(|name| !expected.contains(name.as_str()) && !counter(name))
        .cloned()
        .collect();
    let unexpected: Vec<String> =
        left.iter().filter(|name| !allow_unexpected && !harmless(name)).cloned().collect();
    let kinds = [("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped)];
    let found: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| format!("{} {kind} ({})", names.len(), list(names)))
        .collect();
    if found.is_empty() {
        return Ok(left);
    }
    Err(Error::input(format!(
        "{file}: not the weights of {} at width {} for images of {}x{}: {}; check --model, --width and --image-size, or take the file without what is unexpected with --allow-unexpected",
        config.name,
        config.width,
        config.shape.height,
        config.shape.width,
        found.join("; ")
    )))
}
