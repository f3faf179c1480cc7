//! `sora export`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};
use sora::{
    device, exchange, files,
    model::Model,
    nn::{HostTensor, to_vec},
    report,
    run::Subject,
};
use sora_rng::{Key, Purpose, fill_uniform};

use crate::{
    complete,
    error::{Failure, Result},
    output_file::{Content, Overwrite, prepare},
};

/// Largest number of sample images.
const SAMPLES: usize = 4096;

/// File formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Weights with PyTorch's names
    Safetensors,
    /// The network, from pixels in [0, 1] to logits
    Onnx,
    /// The log of a run, finished or not: a row for each step
    Csv,
}

/// What to write where.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Run folder or weights file
    #[arg(add = complete::runs())]
    pub subject: PathBuf,
    /// File format
    #[arg(long, value_enum)]
    pub format: Format,
    /// File to write [default: export/model.safetensors, model.onnx or log.csv]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite a file that another program wrote
    #[arg(long)]
    pub force: bool,
    /// Also write N random images and the logits that this program gives them, to
    /// FILE.samples.safetensors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub samples: usize,
}

/// Writes the weights or the network of a run or a weights file, or the log of a run.
pub fn run(args: &ExportArgs) -> Result<()> {
    if args.samples > SAMPLES {
        return Err(Failure::input(format!("--samples {}: expected 0 to {SAMPLES}", args.samples)));
    }
    match args.format {
        Format::Csv if args.samples > 0 => {
            Err(Failure::input("--samples: expected with --format safetensors or onnx, not csv"))
        }
        Format::Csv => log(args),
        Format::Safetensors => network(args, Content::Weights, "safetensors", |model, metadata| {
            files::to_safetensors(&model.to_host()?, metadata)
        }),
        Format::Onnx => network(args, Content::Onnx, "onnx", |model, metadata| {
            exchange::to_onnx(model, &metadata.into_iter().collect::<Vec<_>>())
        }),
    }
}

fn log(args: &ExportArgs) -> Result<()> {
    let run = report::Run::load(&args.subject)?;
    for warning in &run.warnings {
        tracing::warn!("{}: {warning}", run.name);
    }
    let out = args.out.clone().unwrap_or_else(|| beside(&args.subject, "log.csv"));
    write(&out, Content::Log, report::csv(&run).as_bytes(), args)?;
    tracing::info!("{} steps of {} in {}", run.steps.len(), run.name, out.display());
    Ok(())
}

/// Writes the network as `encode` does, to a file with this ending.
fn network(
    args: &ExportArgs,
    content: Content,
    ending: &str,
    encode: impl Fn(&Model, HashMap<String, String>) -> sora::Result<Vec<u8>>,
) -> Result<()> {
    let subject = Subject::load(&args.subject, &device::device("cpu")?)?;
    let bytes = encode(&subject.model, subject.about.metadata()?)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => beside(&args.subject, &format!("model.{ending}")),
    };
    if same_file(&out, &args.subject) {
        return Err(Failure::input(format!(
            "--out {}: is the file that is exported; choose another",
            out.display()
        )));
    }
    write(&out, content, &bytes, args)?;
    tracing::info!("{} of {} in {}", ending, subject.model.config.name, out.display());
    if args.samples > 0 {
        let path = PathBuf::from(format!("{}.samples.safetensors", out.display()));
        // This mark lets the program recognise its own files.
        let metadata = [("sora".to_owned(), "samples".to_owned())].into();
        let tensors = samples(&subject.model, args.samples)?;
        write(&path, Content::Samples, &files::to_safetensors(&tensors, metadata)?, args)?;
        tracing::info!("{} images and their logits in {}", args.samples, path.display());
    }
    Ok(())
}

/// `export/NAME` in the run folder or beside the weights file.
fn beside(subject: &Path, name: &str) -> PathBuf {
    let dir = if subject.is_dir() { subject } else { subject.parent().unwrap_or(Path::new("")) };
    dir.join("export").join(name)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn write(path: &Path, content: Content, bytes: &[u8], args: &ExportArgs) -> Result<()> {
    prepare(path, content, Overwrite::by(args.force))?;
    Ok(files::write_atomic(path, bytes)?)
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
