//! `sora bench`: a training step, an evaluation attack and the convolutions by themselves, on
//! random images, with the keys that the usual PyTorch timing scripts print.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Map, Value, json};
use sora::{
    attack::{self, AttackContext},
    data::AugmentDraw,
    device,
    error::{Error, Result},
    method::{self, Batch, Extras, Place, StepContext, StepSettings},
    model::{Model, ModelConfig, Shape},
    nn,
    noise::Noise,
    optim::{OptimizerKind, Rates},
    profile::{self, Stage},
    robustness::{Classifier, predicted, stands},
    threat::{Norm, Threat},
};
use sora_kernels as kernels;
use sora_rng::{Key, Purpose, fill_uniform};

use super::{print, print_json};
use crate::cli::{AttackBench, BenchModel, ConvBench, StepBench};

/// Steps before the timed ones.
const WARM_UP: usize = 2;

/// Classes of the random images.
const CLASSES: usize = 10;

/// A network and random images for it.
struct Setup {
    device: Device,
    threads: usize,
    model: Model,
    ids: Vec<u32>,
    x: Tensor<4>,
    labels: Tensor<1, Int>,
}

impl Setup {
    fn new(args: &BenchModel, steps: usize) -> Result<Self> {
        if steps == 0 || args.batch == 0 || args.image_size == 0 {
            return Err(Error::input(
                "bench: --steps, --batch and --image-size must be at least 1",
            ));
        }
        let device = device::device(&args.device)?;
        let threads = device::set_threads(args.threads);
        let shape = Shape {
            channels: args.channels,
            height: args.image_size,
            width: args.image_size,
            classes: CLASSES,
        };
        let (mean, std) = (vec![0.5; args.channels], vec![0.25; args.channels]);
        let config = ModelConfig {
            name: args.model.clone(),
            width: args.width,
            shape,
            mean,
            std,
            options: Default::default(),
        };
        let mut model = Model::init(config, 0, &device)?;
        if let Some(backend) = args.backend {
            model.set_backend(backend)?;
        }
        let ids: Vec<u32> = (0..args.batch as u32).collect();
        let dims = [args.batch, args.channels, args.image_size, args.image_size];
        let mut pixels = vec![0.0; dims.iter().product()];
        fill_uniform(&mut pixels, Key::new(0, Purpose::Synthetic), &ids);
        let labels: Vec<i32> = ids.iter().map(|id| (id % CLASSES as u32) as i32).collect();
        let x = Tensor::from_data(TensorData::new(pixels, dims), &device);
        let labels = Tensor::from_data(labels.as_slice(), &device);
        Ok(Self { device, threads, model, ids, x, labels })
    }

    fn sync(&self) -> Result<()> {
        self.device.sync().map_err(|e| Error::work(format!("the device failed: {e}")))
    }

    /// What every case prints.
    fn result(&self, args: &BenchModel, mut seconds: Vec<f64>) -> Result<Value> {
        let steps = seconds.len();
        seconds.sort_by(f64::total_cmp);
        let (min, median) = (
            seconds.first().copied().unwrap_or(0.0),
            seconds.get(steps / 2).copied().unwrap_or(0.0),
        );
        Ok(json!({
            "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
            "median_s": median,
            "min_s": min,
            "images_per_s": args.batch as f64 / median,
            "peak_rss_mib": device::peak_rss_mib(),
            "model": args.model,
            "width": args.width,
            "batch": args.batch,
            "size": args.image_size,
            "channels": args.channels,
            "device": args.device,
            "threads": self.threads,
            "isa": device::instruction_set()?.to_string(),
            "backend": self.model.backend(),
            "steps": steps,
        }))
    }
}

fn radius(norm: Norm) -> Threat {
    Threat { norm, epsilon: if norm == Norm::Linf { 8.0 / 255.0 } else { 128.0 / 255.0 } }
}

/// Times whole steps: attack, training pass, update.
pub fn step(args: &StepBench) -> Result<()> {
    let mut setup = Setup::new(&args.network, args.steps)?;
    setup.model.set_precision(args.precision);
    let info = method::method(&args.method)?;
    let threat = radius(if info.norms.contains(&Norm::Linf) { Norm::Linf } else { Norm::L2 });
    let mut method = info.build(&(info.options)()?, threat)?;
    let mut optimizer = OptimizerKind::Sgd.build(&setup.model.params, 5e-4);
    let batch = Batch {
        x: setup.x.clone(),
        labels: setup.labels.clone(),
        ids: setup.ids.clone(),
        draws: vec![AugmentDraw::IDENTITY; setup.ids.len()],
    };
    let mut seconds = Vec::with_capacity(args.steps);
    let (mut first, mut faults) = (nn::pool_counts(), profile::page_faults());
    for step in 0..WARM_UP + args.steps {
        let started = Instant::now();
        let mut noise = Noise::training(0, 0, step as u64, setup.ids.clone(), &setup.device);
        let settings = StepSettings {
            threat,
            attack_bn: info.attack_bn,
            place: Place::default(),
            extras: Extras::default(),
        };
        let mut cx = StepContext::new(&mut setup.model, &mut noise, settings);
        let out = method::run_step(method.as_mut(), &mut cx, &batch)?;
        profile::time(Stage::Optimizer, || {
            let rates = Rates { lr: 0.01, momentum: 0.9 };
            optimizer.step(&mut setup.model.params, out.gradients, rates)
        });
        setup.sync()?;
        if step == 0 {
            first = nn::pool_counts();
        }
        if step + 1 == WARM_UP {
            profile::take();
            faults = profile::page_faults();
        }
        if step >= WARM_UP {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let faults = profile::page_faults()
        .zip(faults)
        .map(|(now, then)| (now - then) as f64 / args.steps as f64);
    let pool = nn::pool_counts();
    let mut parts = profile_of(args.steps);
    // All parts run on the thread that times them: what is left of the step is what none covers.
    let covered: f64 = parts.values().filter_map(Value::as_f64).sum();
    parts.insert(
        "rest".to_owned(),
        json!(seconds.iter().sum::<f64>() / args.steps as f64 - covered),
    );
    let mut result = setup.result(&args.network, seconds)?;
    result["method"] = json!(args.method);
    result["precision"] = json!(args.precision);
    result["pool_misses_after_first_step"] = json!(pool.misses - first.misses);
    result["pool_mib"] = json!(pool.bytes >> 20);
    result["page_faults_per_step"] = json!(faults);
    if args.profile {
        result["profile"] = parts.into();
    }
    print_json(&result)
}

/// Mean seconds a step of each part.
fn profile_of(steps: usize) -> Map<String, Value> {
    let parts = profile::take();
    parts
        .into_iter()
        .map(|(name, seconds)| (name.to_owned(), json!(seconds / steps as f64)))
        .collect()
}

/// Times an attack on batches of images that the network classifies as it does clean; what is
/// fooled leaves the batch, as in an evaluation.
pub fn attack(args: &AttackBench) -> Result<()> {
    let setup = Setup::new(&args.network, args.steps)?;
    let threat = radius(args.norm);
    let entry = attack::entry(&args.attack, args.norm)?;
    if entry.parts.is_empty() {
        return Err(Error::input(format!(
            "bench attack: --attack {}: expected an attack, see `sora attacks`",
            args.attack
        )));
    }
    let x = nn::to_vec(&setup.x)?;
    let width = x.len() / setup.ids.len();
    let clean = Classifier::logits(&setup.model, &x)?;
    let labels: Vec<usize> = clean.chunks(CLASSES).map(predicted).collect();
    let mut seconds = Vec::with_capacity(args.steps);
    let mut fooled = 0;
    for batch in 0..=args.steps {
        let started = Instant::now();
        let mut left: Vec<usize> = (0..setup.ids.len()).collect();
        for part in &entry.parts {
            for round in 0..part.attack.rounds(CLASSES) {
                let rows: Vec<f32> =
                    left.iter().flat_map(|&i| &x[i * width..(i + 1) * width]).copied().collect();
                let labels: Vec<usize> = left.iter().map(|&i| labels[i]).collect();
                let ids: Vec<u32> = left.iter().map(|&i| setup.ids[i]).collect();
                let mut ignore = |_| {};
                let mut cx = AttackContext::new(
                    &setup.model,
                    threat,
                    batch as u64,
                    &part.key,
                    round,
                    &mut ignore,
                );
                let images = attack::Batch { x: &rows, labels: &labels, ids: &ids };
                let found =
                    profile::time(Stage::Perturbation, || part.attack.run(&mut cx, &images))?;
                let logits = Classifier::logits(&setup.model, &found)?;
                let stands: Vec<bool> = logits
                    .chunks(CLASSES)
                    .zip(&labels)
                    .map(|(z, &label)| stands(z, label))
                    .collect();
                left = left
                    .into_iter()
                    .zip(stands)
                    .filter_map(|(i, stands)| stands.then_some(i))
                    .collect();
            }
        }
        setup.sync()?;
        if batch == 0 {
            profile::take();
        } else {
            seconds.push(started.elapsed().as_secs_f64());
            fooled += setup.ids.len() - left.len();
        }
    }
    let parts = profile_of(args.steps);
    let mut result = setup.result(&args.network, seconds)?;
    result["attack"] = json!(args.attack);
    result["fooled"] = json!(fooled as f64 / (args.steps * args.network.batch) as f64);
    result["norm"] = json!(args.norm);
    result["precision"] = json!("f32");
    if args.profile {
        result["profile"] = parts.into();
    }
    print_json(&result)
}

/// Times each convolution and batch norm by itself.
pub fn conv(args: &ConvBench) -> Result<()> {
    let wrong = |flag: &str, value: String, expected: &str| {
        Err(Error::input(format!("bench conv: --{flag} {value}: expected {expected}")))
    };
    for (flag, value, most) in [
        ("width", args.width, 4096),
        ("batch", args.batch, 65_536),
        ("image-size", args.image_size, 4096),
    ] {
        if !(1..=most).contains(&value) {
            return wrong(flag, value.to_string(), &format!("1 to {most}"));
        }
    }
    if !(0.0..=60.0).contains(&args.seconds) {
        return wrong("seconds", args.seconds.to_string(), "0 to 60");
    }
    device::set_threads(args.threads);
    let precisions = match args.precision {
        None => vec![kernels::Precision::F32, kernels::Precision::Bf16],
        Some(nn::Precision::F32) => vec![kernels::Precision::F32],
        Some(nn::Precision::Bf16) => vec![kernels::Precision::Bf16],
    };
    let config = kernels::bench::Config {
        isa: device::instruction_set()?,
        precisions,
        width: args.width,
        image: args.image_size,
        batch: args.batch,
        seconds: args.seconds,
        algorithm: None,
    };
    let mut printed = Ok(());
    let done = kernels::bench::run(&config, |record| {
        if printed.is_ok() {
            printed = print(&format!("{record}\n"));
        }
    });
    done.map_err(|e| {
        Error::input(format!("bench conv: {e}; expected sizes that fit into memory"))
    })?;
    printed
}
