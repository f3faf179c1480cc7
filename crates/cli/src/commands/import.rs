//! `sora import`.

use std::path::{Path, PathBuf};

use sora::{
    config::{TrainConfig, default_epsilon},
    data, device,
    exchange::{self, ImportOptions, Imported},
    files,
    model::{NetworkOptions, Shortcut},
    nn::Activation,
    run::{self, ABOUT, About},
    threat::{Epsilon, Norm, Threat},
};

use crate::{
    complete,
    error::{Failure, Result},
    output_file::make_folder,
    values::{ACTIVATIONS, NORMS, SHORTCUTS, one_of},
};

/// Which file, and what it does not say about itself.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Checkpoint: .pt or .pth that torch.save wrote, or .safetensors
    pub file: PathBuf,
    /// Network, see `sora models` [default: the one that the shapes of the weights fit]
    #[arg(long, value_name = "NAME", add = complete::networks(), help_heading = "Network")]
    pub model: Option<String>,
    /// Channels of the network's first stage [default: found in the file]
    #[arg(long, help_heading = "Network")]
    pub width: Option<usize>,
    /// Activation function [default: the network's]
    #[arg(long, value_parser = one_of::<Activation>(ACTIVATIONS), help_heading = "Network")]
    pub activation: Option<Activation>,
    /// What a PreActResNet's projection shortcuts take; the weights do not tell
    #[arg(long, value_parser = one_of::<Shortcut>(SHORTCUTS), help_heading = "Network")]
    pub shortcut: Option<Shortcut>,
    /// What stands before the names of the weights, such as state_dict.module: chooses between
    /// copies [default: found]
    #[arg(long, help_heading = "Network")]
    pub prefix: Option<String>,
    /// Leave tensors that the network does not have
    #[arg(long, help_heading = "Network")]
    pub allow_unexpected: bool,
    /// Data set that it was trained on: the default of `sora eval`, and the source of a missing
    /// normalisation
    #[arg(long, value_name = "NAME|PATH", add = complete::datasets(), help_heading = "Data")]
    pub dataset: Option<String>,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images [default: the data set's, or by the network]
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    pub image_size: Option<usize>,
    /// Mean of each channel in [0, 1] [default: the file's own, else the data set's]
    #[arg(
        long,
        value_delimiter = ',',
        allow_hyphen_values = true,
        requires = "std",
        help_heading = "Data"
    )]
    pub mean: Vec<f32>,
    /// Standard deviation of each channel
    #[arg(
        long,
        value_delimiter = ',',
        allow_hyphen_values = true,
        requires = "mean",
        help_heading = "Data"
    )]
    pub std: Vec<f32>,
    /// Radius that it was trained for, in pixel units [default: the file's own, else 8/255, in
    /// l2 128/255]
    #[arg(long, visible_alias = "eps", allow_hyphen_values = true, help_heading = "Threat")]
    pub epsilon: Option<Epsilon>,
    /// Norm that it was trained for [default: the file's own, else linf]
    #[arg(long, value_parser = one_of::<Norm>(NORMS), help_heading = "Threat")]
    pub norm: Option<Norm>,
    /// Folder to make (its weights are model.safetensors), or a file that ends in .safetensors
    #[arg(long, value_name = "DIR|FILE", help_heading = "Output")]
    pub out: PathBuf,
}

/// Imports a checkpoint of another program.
pub fn run(args: ImportArgs) -> Result<()> {
    let out = target(&args.out)?;
    let known = args.dataset.as_deref().map(|name| known(name, &args)).transpose()?;
    let own = own_description(&args.file)?;
    let (norm, epsilon) = threat(&args, own.as_ref());
    Threat::new(norm, &epsilon)?;
    let options = options(&args, known.as_ref(), own.as_ref());
    let (imported, _) = exchange::import(&args.file, &options, ABOUT, &device::device("cpu")?)?;
    let bytes = about(&args, own.as_ref(), &imported).file(&imported.model.to_host()?)?;
    if let Some(dir) = out.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        make_folder(dir)?;
    }
    files::write_atomic(&out, &bytes)?;
    say(&imported);
    tracing::info!(
        "weights in {}; measure them with `sora eval {}`",
        out.display(),
        args.out.display()
    );
    Ok(())
}

/// The options of the network that the call, the data set and the file itself give.
fn options(args: &ImportArgs, known: Option<&Known>, own: Option<&About>) -> ImportOptions {
    // A file of this program has a description that tells more than its tensors.
    let own =
        own.filter(|about| args.model.as_ref().is_none_or(|name| *name == about.network.name));
    let of_file = own.map(|about| [about.network.shape.height, about.network.shape.width]);
    let image = args.image_size.map(|side| [side; 2]).or(of_file);
    let mut options = ImportOptions {
        model: args.model.clone().or(own.map(|about| about.network.name.clone())),
        prefix: args.prefix.clone(),
        width: args.width,
        image: image.or(known.map(|known| known.image)),
        classes: known.map(|known| known.classes),
        normalisation: (!args.mean.is_empty()).then(|| [args.mean.clone(), args.std.clone()]),
        fallback: known.map(|known| known.normalisation.clone()),
        network: NetworkOptions {
            activation: args.activation,
            shortcut: args.shortcut,
            ..Default::default()
        },
        allow_unexpected: args.allow_unexpected,
    };
    if let Some(about) = own {
        options.fallback = Some([about.network.mean.clone(), about.network.std.clone()]);
        options.network = NetworkOptions {
            activation: args.activation.or(about.network.options.activation),
            shortcut: args.shortcut.or(about.network.options.shortcut),
            ..about.network.options
        };
    }
    options
}

/// The norm and radius that it was trained for.
fn threat(args: &ImportArgs, own: Option<&About>) -> (Norm, Epsilon) {
    let norm = args.norm.or(own.map(|about| about.norm)).unwrap_or(Norm::Linf);
    // The radius of another norm says nothing.
    let own = own.filter(|about| about.norm == norm).map(|about| about.epsilon.clone());
    let epsilon = args.epsilon.clone().or(own);
    (norm, epsilon.unwrap_or_else(|| default_epsilon(norm)))
}

/// The description in the new file.
fn about(args: &ImportArgs, own: Option<&About>, imported: &Imported) -> About {
    let dataset = args.dataset.clone().or(own.map(|about| about.dataset.clone()));
    let (norm, epsilon) = threat(args, own);
    About {
        network: imported.model.config.clone(),
        dataset: dataset.unwrap_or_default(),
        extra: own.map(|about| about.extra.clone()).unwrap_or_default(),
        orientation: own.map(|about| about.orientation).unwrap_or_default(),
        method: own.map_or("imported".into(), |about| about.method.clone()),
        epsilon,
        norm,
        step: own.and_then(|about| about.step),
        classes: own.map(|about| about.classes.clone()).unwrap_or_default(),
        sha256: String::new(),
    }
}

/// Prints which tensors were taken and which were not.
fn say(imported: &Imported) {
    let config = &imported.model.config;
    let under = match imported.prefix.as_str() {
        "" => String::new(),
        prefix => format!(" under '{prefix}'"),
    };
    // Weights do not tell it.
    let activation = config.options.activation.map(|name| format!(" with {name}"));
    let activation = activation.unwrap_or_default();
    tracing::info!(
        "{} tensors{under} as {} of width {}{activation} for images of {}x{}x{} in {} classes; \
         normalisation {}: mean {:?}, std {:?}",
        imported.taken,
        config.name,
        config.width,
        config.shape.channels,
        config.shape.height,
        config.shape.width,
        config.shape.classes,
        imported.normalisation,
        config.mean,
        config.std
    );
    if !imported.copies.is_empty() {
        tracing::warn!(
            "passed over: copies under '{}'; take one with --prefix",
            imported.copies.join("', '")
        );
    }
    if !imported.left.is_empty() {
        tracing::warn!("left in the file: {}", imported.left.join(", "));
    }
}

/// The weights file to write: `--out` itself, or model.safetensors in it.
fn target(out: &Path) -> Result<PathBuf> {
    if out.extension().is_some_and(|ending| ending == "safetensors") {
        if out.exists() {
            return Err(Failure::input(format!(
                "--out {}: exists; choose a new file",
                out.display()
            )));
        }
        return Ok(out.to_owned());
    }
    // What a killed import has left does not count.
    let others = |entries: std::fs::ReadDir| {
        entries.flatten().any(|entry| !files::is_unfinished(&entry.file_name()))
    };
    match std::fs::read_dir(out).map(others) {
        Ok(true) => {
            Err(Failure::input(format!("--out {}: not empty; choose a new folder", out.display())))
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::input(format!("--out {}: cannot use it as a folder: {e}", out.display())))
        }
        _ => Ok(out.join("model.safetensors")),
    }
}

/// The values that a data set decides.
struct Known {
    image: [usize; 2],
    classes: usize,
    normalisation: [Vec<f32>; 2],
}

/// The values of the registry if it has all of them, else those of the set itself.
fn known(name: &str, args: &ImportArgs) -> Result<Known> {
    let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let info = match data::find(name)
        .filter(|info| !info.mean.is_empty() && info.height > 0 && info.num_classes > 0)
    {
        Some(info) => info,
        None => {
            let config = TrainConfig {
                dataset: name.to_owned(),
                data_dir: args.data_dir.clone(),
                image_size: args.image_size,
                ..TrainConfig::default()
            };
            run::open_dataset(&config)?.info
        }
    };
    Ok(Known {
        image: [info.height, info.width],
        classes: info.num_classes,
        normalisation: [f32s(&info.mean), f32s(&info.std)],
    })
}

/// The description in a file of this program, whose tensors must be those that it was written with;
/// `None` for any other file.
fn own_description(file: &Path) -> Result<Option<About>> {
    let (_, text) = exchange::read(file, ABOUT)?;
    match text {
        Some(text) => {
            let about = About::parse(&text, file)?;
            about.verify(&files::read_safetensors(file)?.0, file)?;
            Ok(Some(about))
        }
        None => Ok(None),
    }
}
