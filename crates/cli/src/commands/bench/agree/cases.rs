//! The cases of a comparison.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};
use sora::{
    compute::{self, LossAt},
    config::Precision,
    data::{self, Dataset, OpenOptions},
    device,
    error::Error,
    method::{METHODS, MethodInfo, StepMetrics},
    model::{Model, NETWORKS},
    nn::{Backend, BnMode, Products, to_vec},
    prelude::{Evaluation, Event, Norm, Observer, Trained, Trainer},
};

use sora_rng::{Key, Purpose, fill_uniform};

use super::{
    super::{
        setup::{BenchModel, BenchOptions, Setup, radius},
        step::Training,
    },
    AgreeBench, Figure, Found,
};
use crate::{commands::shared::Machine, error::Result};

/// Compares one thing.
pub type Case = Box<dyn Fn(&AgreeBench) -> Result<Found>>;

/// Allowed difference of a loss after some steps of training: see [`Figure::near`].
const LOSS: f64 = 1e-4;
/// Largest change of a pixel that stands for rounding.
const NUDGE: f32 = 1e-6;
/// Allowed difference of a figure, as a multiple of that which [`NUDGE`] makes, and the most that
/// this can be.
const ROUNDING: f64 = 4.0;
const EXCUSED: f64 = 0.25;
/// Allowed difference of logits.
const LOGITS: f64 = 1e-4;
/// Allowed difference of gradients, which change where a ReLU is at its kink.
const GRADIENT: f64 = 1e-3;
/// Allowed difference of a loss where feature maps are bf16.
const LOSS_BF16: f64 = 0.05;

/// Every case and its name.
pub fn all() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = Vec::new();
    for info in METHODS {
        for norm in info.norms {
            let name = format!("method {} {norm}", info.name);
            cases.push((name, Box::new(move |args| method(args, info, *norm, Precision::F32))));
        }
    }
    for info in NETWORKS {
        let name = format!("network {}", info.name);
        cases.push((name, Box::new(move |args| network(args, info.name))));
    }
    cases.push(("evaluation".into(), Box::new(evaluation)));
    cases.push(("resume".into(), Box::new(resume)));
    for precision in [Precision::Tf32, Precision::Bf16] {
        for info in METHODS.iter().filter(|info| ["fgsm", "sora", "pgd"].contains(&info.name)) {
            let norm = info.norms[0];
            let name = format!("{precision} {}", info.name);
            cases.push((name, Box::new(move |args| method(args, info, norm, precision))));
        }
    }
    cases
}

/// Where and how something is computed.
#[derive(Clone, Copy)]
struct Place<'a> {
    device: &'a str,
    /// What computes the layers, unless the device's own.
    backend: Option<Backend>,
    /// Moves every pixel by at most [`NUDGE`], unless it is 0; a number gives other draws than the next.
    nudge: u64,
}

impl<'a> Place<'a> {
    fn plain(device: &'a str) -> Self {
        Self { device, backend: None, nudge: 0 }
    }
}

/// A network and images at `place`.
fn setup(args: &AgreeBench, network: &str, width: usize, place: Place<'_>) -> Result<Setup> {
    let Place { device, backend, nudge } = place;
    let side = if network.starts_with("vgg") { args.image_size.max(32) } else { args.image_size };
    let model = BenchModel {
        model: network.into(),
        width,
        batch: args.batch,
        image_size: side,
        channels: 3,
        backend,
        options: BenchOptions::default(),
        machine: Machine { device: device.into(), threads: args.threads },
    };
    let mut setup = Setup::new(&model, args.steps)?;
    move_images(&mut setup, nudge);
    Ok(setup)
}

fn pair<T>(args: &AgreeBench, mut of: impl FnMut(&str) -> Result<T>) -> Result<[T; 2]> {
    Ok([of("cpu")?, of(&args.device)?])
}

/// Moves every pixel by at most [`NUDGE`], unless `nudge` is 0.
fn move_images(setup: &mut Setup, nudge: u64) {
    if nudge == 0 {
        return;
    }
    let dims = setup.x.dims();
    let mut draws = vec![0.0; dims.iter().product()];
    fill_uniform(&mut draws, Key::new(nudge, Purpose::Synthetic), &setup.ids);
    let draws = Tensor::from_data(TensorData::new(draws, dims), &setup.device);
    setup.x = setup.x.clone() + (draws * 2.0 - 1.0) * NUDGE;
}

/// A figure of a step.
type Of = fn(&StepMetrics) -> f32;

/// The figures of some steps of a method on `device`.
fn trace(
    args: &AgreeBench,
    info: &'static MethodInfo,
    norm: Norm,
    precision: Precision,
    place: Place<'_>,
) -> Result<Vec<StepMetrics>> {
    let mut setup = setup(args, "preact-resnet18", args.width, place)?;
    // The CPU has no tf32, so a device's tf32 is compared with the CPU's f32.
    let f32_there = place.device == "cpu" && precision == Precision::Tf32;
    setup.model.set_precision(if f32_there { Precision::F32 } else { precision })?;
    let mut training = Training::new(&setup, info, radius(norm))?;
    (0..args.steps).map(|step| Ok(training.step(&mut setup, step as u64)?.wait()?)).collect()
}

/// Runs some steps of a method: compares the losses, and the first step's figures of the gradients.
///
/// Attacks and updates multiply what rounding leaves: the sign of a gradient near 0 moves a pixel by
/// a whole step. How much they do so is seen on the CPU, with images that are moved by about as
/// much as gradients are by the rounding of a network, and with Burn's operations, which round each
/// pass on its own: a divergence of two passes near its minimum is little but their rounding.
fn method(
    args: &AgreeBench,
    info: &'static MethodInfo,
    norm: Norm,
    precision: Precision,
) -> Result<Found> {
    if let Err(error) = Products::of(precision, &device::device(&args.device)?) {
        return Ok(Found::Refused(error.to_string()));
    }
    let run = |place| trace(args, info, norm, precision, place);
    let there = Place::plain("cpu");
    let (cpu, other) = (run(there)?, run(Place::plain(&args.device))?);
    let (loss, gradient) = match precision {
        Precision::F32 => (LOSS, 10.0 * GRADIENT),
        Precision::Tf32 | Precision::Bf16 => (LOSS_BF16, 0.5),
    };
    let nudged = (1..=3).map(|nudge| run(Place { nudge, ..there }));
    let by_burn =
        (precision == Precision::F32).then(|| run(Place { backend: Some(Backend::Burn), ..there }));
    let others = nudged.chain(by_burn).collect::<Result<Vec<_>>>()?;
    let mut figures = Vec::new();
    // What has moved once does not come back.
    let mut moved = 0.0_f64;
    for (step, (a, b)) in cpu.iter().zip(&other).enumerate() {
        moved = moved.max(spread(a, others.iter().map(|trace| &trace[step]), |m| m.loss));
        let losses = [a, b].map(|m| f64::from(m.loss));
        let allowed = loss.max((ROUNDING * moved / losses[0].max(1.0)).min(EXCUSED));
        figures.push(Figure::near(format!("loss of step {step}"), losses, allowed));
    }
    let first: [(&str, Of); 3] = [
        ("pert_align", |m| m.pert_align),
        ("grad_ratio", |m| m.grad_ratio),
        ("delta_mean", |m| m.delta_mean * 255.0),
    ];
    for (name, of) in first {
        let (a, b) = (&cpu[0], &other[0]);
        let moved = spread(a, others.iter().map(|trace| &trace[0]), of);
        let allowed =
            gradient.max((ROUNDING * moved / f64::from(of(a)).abs().max(1.0)).min(EXCUSED));
        figures.push(Figure::near(name, [a, b].map(|m| f64::from(of(m))), allowed));
    }
    Ok(Found::Figures(figures))
}

/// The largest difference of a figure from that of `at` among `others`.
fn spread<'a>(
    at: &StepMetrics,
    others: impl Iterator<Item = &'a StepMetrics>,
    of: impl Fn(&StepMetrics) -> f32,
) -> f64 {
    others.map(|other| f64::from((of(other) - of(at)).abs())).fold(0.0, f64::max)
}

/// The smallest width that a network may have.
fn narrow(name: &str, default: usize) -> usize {
    match name {
        "vit-tiny" | "vit-small" => 12,
        "senet18" => 16,
        "cct-7-3x1" => 8,
        _ if default < 64 => 4,
        _ => 2,
    }
}

/// What passes of a network give on `device`, each with its allowed difference.
fn passes(
    args: &AgreeBench,
    name: &'static str,
    place: Place<'_>,
) -> Result<[(&'static str, f64, Vec<f32>); 4]> {
    let default = NETWORKS.iter().find(|info| info.name == name).map_or(64, |n| n.default_width);
    let setup = setup(args, name, narrow(name, default), place)?;
    let model = &setup.model;
    let (eval, _) = model.forward(&model.params.frozen(), setup.x.clone(), BnMode::Eval);
    let gradient = compute::of(&setup.device).training_gradient(LossAt {
        model,
        x: setup.x.clone(),
        labels: setup.labels.clone(),
        mode: BnMode::Train,
        smoothing: 0.0,
    });
    let mut params = Vec::new();
    for value in &gradient.params {
        params.extend(to_vec(value)?);
    }
    Ok([
        ("logits in eval mode", LOGITS, to_vec(&eval)?),
        ("logits in train mode", LOGITS, to_vec(&gradient.logits)?),
        ("gradient for the images", GRADIENT, to_vec(&gradient.input)?),
        ("gradient for the weights", GRADIENT, params),
    ])
}

/// Compares the logits of a network in both modes, and its gradients. Where an input of a ReLU is
/// near 0, rounding decides whether a gradient passes, so what nudged images change is allowed, too.
fn network(args: &AgreeBench, name: &'static str) -> Result<Found> {
    let run = |place| passes(args, name, place);
    let there = Place::plain("cpu");
    let (cpu, other) = (run(there)?, run(Place::plain(&args.device))?);
    let nudged = (1..=3).map(|nudge| run(Place { nudge, ..there })).collect::<Result<Vec<_>>>()?;
    let figures = cpu.iter().zip(&other).enumerate().map(|(at, ((name, bound, a), (_, _, b)))| {
        let moved = nudged.iter().map(|of| Figure::distance(*name, [a, &of[at].2], *bound).off);
        let allowed = moved.fold(*bound, |most, moved| most.max((ROUNDING * moved).min(EXCUSED)));
        Figure::distance(*name, [a, b], allowed)
    });
    Ok(Found::Figures(figures.collect()))
}

fn images(args: &AgreeBench, train: usize) -> Result<Dataset> {
    let options = OpenOptions {
        limit_train: Some(train),
        limit_test: Some(4 * args.batch),
        image_size: Some(args.image_size),
        ..Default::default()
    };
    Ok(data::open("synthetic", &options)?)
}

fn trainer<'a>(args: &AgreeBench, device: &str) -> Trainer<'a> {
    Trainer::new("sora")
        .model("preact-resnet18", args.width as u32)
        .batch(args.batch as u32)
        .epochs(2)
        .set("val", 0)
        .set("image_size", args.image_size as i64)
        .set("device", device)
        .set("threads", args.threads as i64)
}

/// Evaluates a network that was trained on the CPU, there and on the device, and compares image by
/// image.
fn evaluation(args: &AgreeBench) -> Result<Found> {
    // The network trains long enough that it classifies some images and that some attacks fail.
    let data = images(args, 40 * args.batch)?;
    let trained = trainer(args, "cpu").fit(&data)?;
    let values: BTreeMap<_, _> =
        trained.model.to_host()?.into_iter().map(|t| (t.name.clone(), t)).collect();
    let outcomes = pair(args, |name| {
        let device = device::device(name)?;
        let model =
            Model::from_tensors(trained.model.config.clone(), &values, "training", &device)?;
        let attacks = ["clean", "fgsm", "pgd-10", "apgd-ce", "square"];
        Ok(Evaluation::of(&model).on(&data.test).attacks(attacks).run()?)
    })?;
    let [cpu, other] = &outcomes;
    Ok(Found::Figures(
        cpu.results
            .0
            .iter()
            .map(|(attack, a)| {
                let b = other.results.get(attack).map(|b| b.accuracy.accuracy);
                Figure::same(attack.clone(), [json!(a.accuracy.accuracy), json!(b)])
            })
            .collect(),
    ))
}

/// A folder that is removed when the value is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("sora-agree-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that cannot be removed stays behind; nothing else depends on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks the training to stop after a step.
struct Stop<'a> {
    behind: u64,
    flag: &'a AtomicBool,
}

impl Observer for Stop<'_> {
    fn observe(&mut self, event: &Event<'_>) -> sora::Result<()> {
        if let Event::Step(line) = event
            && line.step >= self.behind
        {
            self.flag.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Checks on the device alone that a training that was cut off and resumed ends in the bits of a
/// whole one, with kernels chosen in the same process.
fn resume(args: &AgreeBench) -> Result<Found> {
    let scratch = Scratch::new();
    let (whole, cut) = (scratch.0.join("whole"), scratch.0.join("cut"));
    let data = images(args, 4 * args.batch)?;
    // The first run lets the device choose its kernels.
    trainer(args, &args.device).fit(&data)?;
    let whole = trainer(args, &args.device).in_dir(whole).fit(&data)?;
    let flag = AtomicBool::new(false);
    let stop = Stop { behind: 2, flag: &flag };
    match trainer(args, &args.device).in_dir(&cut).observe(stop).interrupt(&flag).fit(&data) {
        Err(Error::Interrupted { .. }) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {
            return Ok(Found::Figures(vec![Figure::same("interrupted", [json!(1), json!(0)])]));
        }
    }
    let resumed = Trainer::resume(&cut, None)?.fit(&data)?;
    let bits = |run: &Trained| -> Result<Vec<u32>> {
        Ok(run.model.to_host()?.iter().flat_map(|t| t.data.iter().map(|v| v.to_bits())).collect())
    };
    let (whole, resumed) = (bits(&whole)?, bits(&resumed)?);
    let different = whole.iter().zip(&resumed).filter(|(a, b)| a != b).count();
    let of = |different: usize| -> Value { json!(format!("{different} of {}", whole.len())) };
    Ok(Found::Figures(vec![Figure::same("values that differ", [of(0), of(different)])]))
}
