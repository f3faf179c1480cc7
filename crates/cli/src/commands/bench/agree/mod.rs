//! `sora bench agree`: a device against the CPU, on the same values: every method, every network, an
//! evaluation, a training that is cut off and goes on, bf16.

mod cases;

use std::{
    panic::{self, AssertUnwindSafe},
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    commands::shared::start_threads,
    console::print_json,
    error::{Failure, Result},
};

/// Which device, and what to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct AgreeBench {
    /// Where to compute: `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal
    #[arg(long)]
    pub device: String,
    /// Only cases whose name has this in it, such as `method`, `network preact` or `bf16`
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub only: String,
    /// Channels of the first stage of the methods' network
    #[arg(long, default_value_t = 4)]
    pub width: usize,
    /// Images at a time
    #[arg(long, visible_alias = "batch-size", default_value_t = 16)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 16, value_name = "PIXELS")]
    pub image_size: usize,
    /// Steps of each method
    #[arg(long, default_value_t = 6)]
    pub steps: usize,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// The results of two devices for one quantity.
struct Figure {
    /// Name of the quantity, such as `loss`.
    name: String,
    /// The results of the CPU and of the device, as texts or numbers.
    values: [Value; 2],
    /// The difference of the results.
    off: f64,
    /// The largest difference that is allowed.
    allowed: f64,
}

impl Figure {
    /// The difference of two numbers, relative to the larger of 1 and the CPU's.
    fn near(name: impl Into<String>, [cpu, device]: [f64; 2], allowed: f64) -> Self {
        let off = (cpu - device).abs() / cpu.abs().max(1.0);
        Self { name: name.into(), values: [json!(cpu), json!(device)], off, allowed }
    }

    /// The length of the difference of two lists, divided by the length of the CPU's list.
    fn distance(name: impl Into<String>, [cpu, device]: [&[f32]; 2], allowed: f64) -> Self {
        let length =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let whole = length(&mut cpu.iter().map(|v| f64::from(*v)));
        let apart = length(&mut cpu.iter().zip(device).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let off = if cpu.len() == device.len() { apart / whole.max(1e-30) } else { f64::INFINITY };
        let other = length(&mut device.iter().map(|v| f64::from(*v)));
        Self { name: name.into(), values: [json!(whole), json!(other)], off, allowed }
    }

    /// A comparison of two results that must be equal.
    fn same(name: impl Into<String>, [cpu, device]: [Value; 2]) -> Self {
        let off = f64::from(u8::from(cpu != device));
        Self { name: name.into(), values: [cpu, device], off, allowed: 0.0 }
    }

    fn agrees(&self) -> bool {
        self.off <= self.allowed
    }
}

/// The result of a case.
enum Found {
    Figures(Vec<Figure>),
    /// The device says itself that it does not support the case.
    Refused(String),
}

/// Compares the device with the CPU; the exit status is 1 if a result differs.
///
/// # Errors
/// A device that does not exist, or that differs.
pub fn run(args: &AgreeBench) -> Result<()> {
    if args.steps == 0 || args.batch == 0 || args.image_size < 8 || args.width == 0 {
        return Err(Failure::input(
            "bench agree: --steps, --batch and --width must be at least 1, --image-size at least 8",
        ));
    }
    start_threads(args.threads)?;
    sora::device::device(&args.device)?;
    let (mut differ, mut count) = (Vec::new(), 0);
    for (name, case) in cases::all() {
        if !name.contains(&args.only) {
            continue;
        }
        count += 1;
        if !told(args, &name, case)? {
            differ.push(name);
        }
    }
    match differ.as_slice() {
        [] if count == 0 => Err(Failure::input(format!("--only {}: no case has this", args.only))),
        [] => Ok(()),
        names => Err(Failure::work(format!(
            "{}: {} of {count} cases differ from the cpu: {}",
            args.device,
            names.len(),
            names.join(", ")
        ))),
    }
}

/// The text of a failure.
fn line_of(failure: &Failure) -> String {
    match failure {
        Failure::Library(error) => error.to_string(),
        Failure::Line(_, line) => line.clone(),
    }
}

/// Runs a case and prints a line for it; returns whether the device agrees or refuses the case.
fn told(args: &AgreeBench, name: &str, case: cases::Case) -> Result<bool> {
    let started = Instant::now();
    // Burn panics where a device fails, but the other cases can still be compared.
    let found = panic::catch_unwind(AssertUnwindSafe(|| case(args)))
        .unwrap_or_else(|_| Err(Failure::work("it panicked; the reason is above")));
    let mut line = json!({
        "kind": "agreement",
        "case": name,
        "device": args.device,
        "seconds": started.elapsed().as_secs_f64(),
    });
    let (word, figures) = match found {
        Ok(Found::Refused(why)) => {
            line["reason"] = json!(why);
            ("refused", Vec::new())
        }
        Ok(Found::Figures(figures)) => {
            (if figures.iter().all(Figure::agrees) { "agrees" } else { "differs" }, figures)
        }
        Err(failure) => {
            line["reason"] = json!(line_of(&failure));
            ("failed", Vec::new())
        }
    };
    line["result"] = json!(word);
    // The figure that is closest to its bound shows how much room there is.
    let tightness = |figure: &Figure| figure.off / figure.allowed.max(f64::MIN_POSITIVE);
    if let Some(figure) = figures.iter().max_by(|a, b| tightness(a).total_cmp(&tightness(b))) {
        line["figure"] = json!(figure.name);
        line["cpu"] = figure.values[0].clone();
        line["on_device"] = figure.values[1].clone();
        line["off"] = json!(figure.off);
        line["allowed"] = json!(figure.allowed);
    }
    print_json(&line)?;
    Ok(!matches!(word, "differs" | "failed"))
}
