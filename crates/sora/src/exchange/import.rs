//! Imports a checkpoint of another program as a model. Its names are matched with the network's,
//! whatever dictionary or wrapper they lie in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::tensor::Device;

use super::{
    candidates::{self, Candidate, Found},
    checkpoint::{self, StoredTensor},
    normalisation::{self, Normalisation},
};
use crate::{
    error::{Error, Result},
    model::{
        Model, ModelConfig, NetworkInfo, NetworkOptions, Shape, Shortcut, Stem, network, networks,
    },
    nn::{HostTensor, Spec},
    run::About,
};

/// The caller's knowledge about the checkpoint; the import finds the rest in the file.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Registry name of the network; `None` takes the one that fits.
    pub model: Option<String>,
    /// The text before the names of the weights, such as `state_dict.module`; `None` takes the
    /// prefix that the file has. It chooses between copies: a running average, the best and the
    /// last.
    pub prefix: Option<String>,
    /// Width; `None` takes the file's.
    pub width: Option<usize>,
    /// Height and width of the images in pixels.
    pub image: Option<[usize; 2]>,
    /// Number of classes, which must agree with the file's.
    pub classes: Option<usize>,
    /// Mean and standard deviation of each channel, for pixels in [0, 1] or in 0..255; `None` takes
    /// those of a normalisation layer in the file.
    pub normalisation: Option<[Vec<f32>; 2]>,
    /// Mean and standard deviation for a file without a normalisation layer.
    pub fallback: Option<[Vec<f32>; 2]>,
    /// Activation and further options of the network.
    pub network: NetworkOptions,
    /// Whether a file may hold tensors that the network does not have.
    pub allow_unexpected: bool,
}

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The network with the file's values.
    pub model: Model,
    /// The text before the names of the weights.
    pub prefix: String,
    /// Prefixes of copies that were ignored: running averages.
    pub copies: Vec<String>,
    /// Number of tensors that were taken.
    pub taken: usize,
    /// Tensors under the same prefix that were not taken.
    pub left: Vec<String>,
    /// The source of the normalisation.
    pub normalisation: &'static str,
}

/// Parts of public checkpoints that no forward pass reads, such as a second copy of the first stage
/// in TRADES's WideResNet.
const UNREAD: [&str; 1] = ["sub_block1."];

/// Reads the checkpoint `path` into a network.
///
/// # Errors
/// [`Error`] for a file that is not a checkpoint or is damaged; for weights that are missing,
/// unexpected or of another shape; for several copies of the weights when nothing says which is
/// meant; and for an option of the network that its weights do not show.
pub fn import(
    path: &Path,
    wanted: &ImportOptions,
    about: &str,
    device: &Device,
) -> Result<(Imported, Option<String>)> {
    let (entries, description) = checkpoint::read(path, about)?;
    let wrong = |problem: String| Error::mismatch(path, problem);
    let info = match &wanted.model {
        Some(name) => network(name)?,
        None => fitting_network(&entries, wanted).map_err(wrong)?,
    };
    let (found, copies) = chosen(&entries, info, wanted).map_err(wrong)?;
    let mut config = configure(info, &found, wanted)
        .map_err(|problem| wrong(problem + &suggestion(&entries, info, wanted)))?;
    let own = description.as_deref().map(|text| About::parse(text, path)).transpose()?;
    // What a file of this program says of another network is no answer.
    let own = own.as_ref().map(|about| &about.network).filter(|own| own.name == info.name);
    if info.options.contains(&"shortcut") && config.options.shortcut.is_none() {
        config.options.shortcut = Some(shortcut(own).map_err(wrong)?);
    }
    config.options = info.resolve(config.options, config.shape)?;
    let channels = config.shape.channels;
    let Normalisation { mean, std, source } =
        normalisation::find(&entries, &found.prefix, wanted, channels, own).map_err(wrong)?;
    (config.mean, config.std) = (mean, std);
    // Names and shapes are checked first, so that a file that only claims to be large costs
    // nothing.
    let specs = config.specs()?;
    let specs: Vec<&Spec> = specs.params.iter().chain(&specs.buffers).collect();
    let left = compare(&found.weights, &specs, wanted.allow_unexpected).map_err(|problem| {
        wrong(format!(
            "not the weights of {} at width {} for images of {}x{}: {problem}; check `model`, \
             `width` and `image_size`, or take the file without what is unexpected with \
             `allow_unexpected`{}",
            config.name,
            config.width,
            config.shape.height,
            config.shape.width,
            suggestion(&entries, info, wanted)
        ))
    })?;
    let tensors = values(path, &found, &specs)?;
    let taken = tensors.len();
    let model = Model::from_tensors(config, &tensors, &path.display().to_string(), device)?;
    let prefix = found.prefix;
    Ok((Imported { model, prefix, copies, taken, left, normalisation: source }, description))
}

/// What the projection shortcuts take where the call does not tell it, nor the weights: what a file
/// of this program says (`own`), which is older than the option where it says nothing.
fn shortcut(own: Option<&ModelConfig>) -> Result<Shortcut, String> {
    match own {
        Some(network) => Ok(network.options.shortcut.unwrap_or(Shortcut::Activated)),
        None => {
            Err("its weights do not tell what the projection shortcuts take; give `shortcut`: \
                     input (blocks of two convolutions of Fast-AT, N-FGSM, GradAlign, SORA's \
                     reference) or activated (RobustBench's PreActBlockV2, ZeroGrad, ELLE; the \
                     bottleneck blocks of preact-resnet50, 101 and 152 everywhere)"
                .into())
        }
    }
}

/// The tensors of the network, and the prefixes of the copies beside them.
fn chosen<'a>(
    entries: &'a [StoredTensor],
    info: &NetworkInfo,
    wanted: &ImportOptions,
) -> Result<(Candidate<'a>, Vec<String>), String> {
    match candidates::find(entries, info, wanted.prefix.as_deref()) {
        Found::One(found, copies) => Ok((found, copies)),
        Found::Several(prefixes) if wanted.prefix.is_some() => Err(format!(
            "no weights of {} under that `prefix`; they lie under {}",
            info.name,
            quoted(&prefixes)
        )),
        Found::Several(prefixes) => Err(format!(
            "holds the weights of {} more than once, under {}; choose with `prefix`",
            info.name,
            quoted(&prefixes)
        )),
        Found::Nothing => Err(format!(
            "holds no weights of {}: no tensor whose name ends in '{}'; it has {}{}",
            info.name,
            info.width_from,
            if entries.is_empty() {
                "no tensors".into()
            } else {
                list(entries.iter().map(|entry| entry.name.clone()).collect())
            },
            suggestion(entries, info, wanted)
        )),
    }
}

fn quoted(prefixes: &[String]) -> String {
    let quoted = |prefix: &String| format!("'{}'", prefix.trim_end_matches('.'));
    if prefixes.is_empty() {
        "no other".into()
    } else {
        prefixes.iter().map(quoted).collect::<Vec<_>>().join(" and ")
    }
}

/// Derives the network's configuration, without its normalisation, from the shapes of the weights
/// and the caller's options.
fn configure(
    info: &NetworkInfo,
    found: &Candidate<'_>,
    wanted: &ImportOptions,
) -> Result<ModelConfig, String> {
    let damaged =
        |name: &str| format!("tensor '{name}' has a shape that no weight of {} has", info.name);
    let Some(&[width, ..]) = found.shape(info.width_from) else {
        return Err(damaged(info.width_from));
    };
    let width = wanted.width.unwrap_or(width);
    let first = ["conv1.weight", "init_conv.weight"]
        .into_iter()
        .find(|name| found.weights.contains_key(*name))
        .unwrap_or(info.width_from);
    let Some(&[_, channels, kernel, _]) = found.shape(first) else { return Err(damaged(first)) };
    let classes =
        info.classes_from.iter().find_map(|name| found.shape(name)?.first().copied()).ok_or_else(
            || format!("no classifier, a tensor '{}'", info.classes_from.join("' or '")),
        )?;
    if let Some(expected) = wanted.classes.filter(|&expected| expected != classes) {
        return Err(format!("a network of {classes} classes; the data set has {expected}"));
    }
    let mut options = wanted.network;
    if info.options.contains(&"stem") && options.stem.is_none() {
        options.stem = Some(if kernel == 7 { Stem::Imagenet } else { Stem::Cifar });
    }
    if info.options.contains(&"patch") && options.patch.is_none() {
        options.patch = Some(kernel);
    }
    let [height, breadth] =
        wanted.image.unwrap_or_else(|| guess_size(info, found, options, channels));
    let shape = Shape { channels, height, width: breadth, classes };
    let [mean, std] = [Vec::new(), Vec::new()];
    Ok(ModelConfig { name: info.name.into(), width, shape, mean, std, options, onnx: None })
}

/// Image size of a network whose weights do not show it: 32, 28 for one channel, and 224 for the
/// forms for large images.
fn guess_size(
    info: &NetworkInfo,
    found: &Candidate<'_>,
    options: NetworkOptions,
    channels: usize,
) -> [usize; 2] {
    let positions = ["pos_embed", "classifier.positional_emb"]
        .iter()
        .find_map(|name| found.shape(name)?.get(1).copied());
    let large = found.weights.contains_key("classifier.6.weight");
    let side = match (positions, options.patch) {
        (Some(tokens), Some(patch)) => tokens.saturating_sub(1).isqrt().saturating_mul(patch),
        (Some(tokens), None) => 2 * tokens.isqrt(),
        _ if large || options.stem == Some(Stem::Imagenet) => 224,
        _ if channels == 1 || info.name.starts_with("mnist") => 28,
        _ => 32,
    };
    [side; 2]
}

/// The networks whose weights the file holds, all of them and no others.
fn fitting(entries: &[StoredTensor], wanted: &ImportOptions) -> Vec<(&'static NetworkInfo, usize)> {
    let free = ImportOptions {
        image: wanted.image,
        prefix: wanted.prefix.clone(),
        ..ImportOptions::default()
    };
    let fits = |info: &'static NetworkInfo| {
        let found = match candidates::find(entries, info, free.prefix.as_deref()) {
            Found::One(found, _) => found,
            Found::Several(prefixes) => {
                match candidates::find(entries, info, prefixes.first().map(String::as_str)) {
                    Found::One(found, _) => found,
                    _ => return None,
                }
            }
            Found::Nothing => return None,
        };
        let config = configure(info, &found, &free).ok()?;
        let channels = config.shape.channels.min(1 << 16);
        let config = ModelConfig { mean: vec![0.0; channels], std: vec![1.0; channels], ..config };
        let specs = config.specs().ok()?;
        let specs: Vec<&Spec> = specs.params.iter().chain(&specs.buffers).collect();
        compare(&found.weights, &specs, false).ok()?;
        Some((info, config.width))
    };
    networks().into_iter().filter_map(fits).collect()
}

/// The network that the file fits when none is named: the only one, or the only one with its
/// default width.
fn fitting_network(
    entries: &[StoredTensor],
    wanted: &ImportOptions,
) -> Result<&'static NetworkInfo, String> {
    let fits = fitting(entries, wanted);
    let own: Vec<_> = fits.iter().filter(|(info, width)| info.default_width == *width).collect();
    match (fits.as_slice(), own.as_slice()) {
        ([(info, _)], _) | (_, [(info, _)]) => Ok(info),
        ([], _) => {
            let names = entries.iter().map(|entry| entry.name.clone()).collect();
            Err(format!("fits no network; it has {}; name the `model`", list(names)))
        }
        (several, _) => {
            let names: Vec<_> = several.iter().map(|(info, _)| info.name).collect();
            Err(format!("fits {}; name the `model`", names.join(" and ")))
        }
    }
}

/// The end of a message about a file that does not fit `info`: the networks that it does fit.
fn suggestion(entries: &[StoredTensor], info: &NetworkInfo, wanted: &ImportOptions) -> String {
    let fits: Vec<String> = fitting(entries, wanted)
        .into_iter()
        .filter(|(other, _)| other.name != info.name)
        .map(|(other, width)| format!("{} of width {width}", other.name))
        .collect();
    if fits.is_empty() { String::new() } else { format!("; it fits {}", fits.join(" and ")) }
}

/// The values of the weights, by the network's names.
fn values(
    path: &Path,
    found: &Candidate<'_>,
    specs: &[&Spec],
) -> Result<BTreeMap<String, HostTensor>> {
    let needed = specs.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.len() as u64));
    let size = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if needed > size {
        let problem = format!("{size} bytes for {needed} weights; is the file damaged?");
        return Err(Error::damaged(path, problem));
    }
    let mut tensors = BTreeMap::new();
    for spec in specs {
        if let Some(entry) = found.weights.get(&spec.name) {
            let data = entry.values().map_err(|e| Error::damaged(path, e.to_string()))?;
            let tensor = HostTensor { name: spec.name.clone(), shape: spec.shape.clone(), data };
            tensors.insert(spec.name.clone(), tensor);
        }
    }
    Ok(tensors)
}

/// Up to six names, and the number of further names.
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

/// Whether a tensor of shape `found` can serve as a weight of shape `expected`: the shapes are
/// equal, or differ in trailing ones.
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

/// Compares the file's tensors with the network's list; returns the names of the tensors that are
/// not taken.
///
/// # Errors
/// A description of the missing, unexpected or misshaped tensors, as a part of a line.
fn compare(
    weights: &BTreeMap<String, &StoredTensor>,
    specs: &[&Spec],
    allow_unexpected: bool,
) -> Result<Vec<String>, String> {
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
        normalisation::is_value(name) || UNREAD.iter().any(|part| name.starts_with(part))
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
    Err(found.join("; "))
}
