//! `sora import`.

use std::path::Path;

use sora::{
    config::TrainOptions,
    data, device,
    error::{Error, Result},
    exchange::{self, ImportOptions},
    files,
    model::NetworkOptions,
    run::{self, ABOUT, About},
};

use crate::cli::ImportArgs;

/// Takes a checkpoint of another program.
pub fn import(args: ImportArgs) -> Result<()> {
    let out = target(&args.out)?;
    let known = args.dataset.as_deref().map(|name| known(name, &args)).transpose()?;
    let own = args.dataset.is_none().then(|| own_description(&args.file)).transpose()?.flatten();
    let image = args.image_size.map(|side| [side; 2]).or(known.as_ref().map(|known| known.image));
    let mut options = ImportOptions {
        model: Some(args.model.clone()),
        prefix: args.prefix.clone(),
        width: args.width,
        image: image
            .or(own.as_ref().map(|about| [about.network.shape.height, about.network.shape.width])),
        classes: known.as_ref().map(|known| known.classes),
        normalisation: (!args.mean.is_empty()).then(|| [args.mean.clone(), args.std.clone()]),
        fallback: known.as_ref().map(|known| known.normalisation.clone()),
        network: NetworkOptions {
            activation: args.activation,
            shortcut: args.shortcut,
            ..Default::default()
        },
        allow_unexpected: args.allow_unexpected,
    };
    // A file of this program says more than its tensors do.
    if let Some(about) = own.as_ref().filter(|about| about.network.name == args.model) {
        options.fallback = Some([about.network.mean.clone(), about.network.std.clone()]);
        options.network = NetworkOptions {
            activation: args.activation.or(about.network.options.activation),
            shortcut: args.shortcut.or(about.network.options.shortcut),
            ..about.network.options
        };
    }
    let (imported, _) = exchange::import(&args.file, &options, ABOUT, &device::device("cpu")?)?;
    let about = About {
        network: imported.model.config.clone(),
        dataset: args
            .dataset
            .clone()
            .or(own.as_ref().map(|about| about.dataset.clone()))
            .unwrap_or_default(),
        method: own.as_ref().map_or("imported".into(), |about| about.method.clone()),
        epsilon: own.as_ref().map_or(args.epsilon.clone(), |about| about.epsilon.clone()),
        norm: own.as_ref().map_or(args.norm, |about| about.norm),
    };
    let bytes = files::to_safetensors(&imported.model.to_host()?, about.metadata()?)?;
    if let Some(dir) = out.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|e| {
            Error::input(format!("--out {}: cannot make the folder: {e}", args.out.display()))
        })?;
    }
    files::write_atomic(&out, &bytes)?;
    let config = &about.network;
    tracing::info!(
        "{} tensors{} as {} of width {} for images of {}x{}x{} in {} classes; normalisation {}: mean {:?}, std {:?}",
        imported.taken,
        if imported.prefix.is_empty() {
            String::new()
        } else {
            format!(" under '{}'", imported.prefix)
        },
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
    tracing::info!(
        "weights in {}; measure them with `sora eval {}`",
        out.display(),
        args.out.display()
    );
    Ok(())
}

/// The weights file to write: `--out` itself, or model.safetensors in it.
fn target(out: &Path) -> Result<std::path::PathBuf> {
    if out.extension().is_some_and(|ending| ending == "safetensors") {
        if out.exists() {
            return Err(Error::input(format!(
                "--out {}: exists; choose a new file",
                out.display()
            )));
        }
        return Ok(out.to_owned());
    }
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            Err(Error::input(format!("--out {}: not empty; choose a new folder", out.display())))
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::input(format!("--out {}: cannot use it as a folder: {e}", out.display())))
        }
        _ => Ok(out.join("model.safetensors")),
    }
}

/// What a data set decides.
struct Known {
    image: [usize; 2],
    classes: usize,
    normalisation: [Vec<f32>; 2],
}

/// From the registry where it has everything, else from the set itself.
fn known(name: &str, args: &ImportArgs) -> Result<Known> {
    let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let info = match data::find(name)
        .filter(|info| !info.mean.is_empty() && info.height > 0 && info.num_classes > 0)
    {
        Some(info) => info,
        None => {
            let options = TrainOptions {
                dataset: Some(name.to_owned()),
                data_dir: args.data_dir.clone(),
                image_size: args.image_size,
                ..Default::default()
            };
            run::open_dataset(&options.resolve()?)?.info
        }
    };
    Ok(Known {
        image: [info.height, info.width],
        classes: info.num_classes,
        normalisation: [f32s(&info.mean), f32s(&info.std)],
    })
}

/// What a file of this program says about itself; `None` for any other.
fn own_description(file: &Path) -> Result<Option<About>> {
    let (_, text) = exchange::read(file, ABOUT)?;
    text.map(|text| About::parse(&text, file)).transpose()
}
