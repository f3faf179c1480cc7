//! `sora export`.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use sora::{
    device,
    error::{Error, Result},
    exchange, files,
    model::Model,
    nn::{HostTensor, to_vec},
    run::Subject,
};
use sora_rng::{Key, Purpose, fill_uniform};

use crate::cli::{ExportArgs, Format};

/// Writes the weights or the network of a run or a weights file.
pub fn export(args: &ExportArgs) -> Result<()> {
    if args.samples > 4096 {
        return Err(Error::input(format!("--samples {}: expected 0 to 4096", args.samples)));
    }
    let subject = Subject::load(&args.subject, &device::device("cpu")?)?;
    let metadata = subject.about().metadata()?;
    let (ending, bytes) = match args.format {
        Format::Safetensors => {
            ("safetensors", files::to_safetensors(&subject.model.to_host()?, metadata)?)
        }
        Format::Onnx => {
            ("onnx", exchange::to_onnx(&subject.model, &metadata.into_iter().collect::<Vec<_>>())?)
        }
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => beside(&args.subject, ending),
    };
    if same_file(&out, &args.subject) {
        return Err(Error::input(format!(
            "--out {}: is the file that is exported; choose another",
            out.display()
        )));
    }
    write(&out, &bytes)?;
    tracing::info!("{} of {} in {}", ending, subject.model.config.name, out.display());
    if args.samples > 0 {
        let path = PathBuf::from(format!("{}.samples.safetensors", out.display()));
        write(
            &path,
            &files::to_safetensors(&samples(&subject.model, args.samples)?, Default::default())?,
        )?;
        tracing::info!("{} images and their logits in {}", args.samples, path.display());
    }
    Ok(())
}

/// `export/model.ENDING` in the run folder or beside the weights file.
fn beside(subject: &Path, ending: &str) -> PathBuf {
    let dir = if subject.is_dir() { subject } else { subject.parent().unwrap_or(Path::new("")) };
    dir.join("export").join(format!("model.{ending}"))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = |e: std::io::Error| {
        Error::input(format!("--out {}: cannot make its folder: {e}", path.display()))
    };
    if path.is_dir() {
        return Err(Error::input(format!(
            "--out {}: is a folder; expected a file",
            path.display()
        )));
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => std::fs::create_dir_all(dir).map_err(cannot)?,
        _ => {}
    }
    files::write_atomic(path, bytes)
}

/// Random images `images` `[N, C, H, W]` and the network's `logits` `[N, classes]`.
fn samples(model: &Model, n: usize) -> Result<Vec<HostTensor>> {
    let shape = model.config.shape;
    let dims = [n, shape.channels, shape.height, shape.width];
    let mut pixels = vec![0.0; dims.iter().product()];
    let ids: Vec<u32> = (0..n as u32).collect();
    fill_uniform(&mut pixels, Key::new(0, Purpose::Synthetic), &ids);
    let logits =
        model.logits(Tensor::from_data(TensorData::new(pixels.clone(), dims), model.device()));
    Ok(vec![
        HostTensor { name: "images".into(), shape: dims.to_vec(), data: pixels },
        HostTensor { name: "logits".into(), shape: vec![n, shape.classes], data: to_vec(&logits)? },
    ])
}
