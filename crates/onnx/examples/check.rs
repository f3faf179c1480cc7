//! Compares networks with the values beside them (`scripts/onnx/export.py FOLDER`).
//!
//! ```text
//! cargo run --release -p sora-robust-onnx --example check -- FOLDER
//! ```
//!
//! Prints, for each, the largest difference of the logits from onnxruntime's and of the input
//! gradients from PyTorch's (where there are some), relative to the largest value, and ends with 1
//! if one is too large.

use std::{error::Error, fs, path::Path, process::ExitCode, time::Instant};

use sora_onnx::{Network, Options};

/// Allowed relative differences of logits and gradients.
const ALLOWED: [f32; 2] = [1e-4, 1e-3];
/// As above for quantised networks, where the last bit of a sum decides a step of rounding.
const QUANTISED: [f32; 2] = [3e-2, 0.0];

fn differences(path: &Path) -> Result<([f32; 2], [f64; 2]), Box<dyn Error>> {
    let bytes = fs::read(path.with_extension("safetensors"))?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    let values = |name: &str| -> Result<Vec<f32>, Box<dyn Error>> {
        let data = file.tensor(name)?.data().as_chunks::<4>().0.to_vec();
        Ok(data.into_iter().map(f32::from_le_bytes).collect())
    };
    let started = Instant::now();
    let network = Network::open(path, &Options::default())?;
    let opened = started.elapsed().as_secs_f64();
    let (x, cotangent) = (values("x")?, values("cotangent")?);
    let width = network.shape().classes;
    let started = Instant::now();
    let (logits, grad) = network.pull_back(&x, &mut |first, logits| {
        cotangent[first * width..first * width + logits.len()].to_vec()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let gap =
        |found: &[f32], expected: &[f32]| {
            let scale = expected.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
            let pairs = found.iter().zip(expected);
            let worst = pairs.fold(0f32, |m, (a, b)| {
                if (a - b).is_nan() { f32::INFINITY } else { m.max((a - b).abs()) }
            });
            if found.len() == expected.len() { worst / scale } else { f32::INFINITY }
        };
    // Quantised networks have none to be compared with.
    let grad = if file.names().contains(&"grad") { gap(&grad, &values("grad")?) } else { 0.0 };
    let gaps = [gap(&logits, &values("logits")?), grad];
    Ok((gaps, [opened, seconds]))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: check FOLDER")?;
    let mut files: Vec<_> = fs::read_dir(folder)?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    files.retain(|path| path.with_extension("safetensors").exists());
    files.sort();
    let mut wrong = 0;
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        match differences(path) {
            Ok((gaps, [opened, seconds])) => {
                let allowed = if name.ends_with("@int8") { QUANTISED } else { ALLOWED };
                let fits = (0..2).all(|i| gaps[i] <= allowed[i]);
                wrong += usize::from(!fits);
                println!(
                    "{name:36} logits {:.1e} gradient {:.1e} open {opened:.2} s pass {seconds:.2} s{}",
                    gaps[0],
                    gaps[1],
                    if fits { "" } else { "  TOO FAR" }
                );
            }
            Err(e) => {
                wrong += 1;
                println!("{name:36} {e}");
            }
        }
    }
    println!("{} networks, {wrong} wrong", files.len());
    Ok(ExitCode::from(u8::from(wrong > 0)))
}
