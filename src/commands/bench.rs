//! `sora bench step`: one training step on random images, with the keys that the usual PyTorch timing scripts print.

use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use serde_json::{Map, Value, json};
use sora::{
    data::{
        AugmentDraw,
        rng::{Key, Purpose, fill_uniform},
    },
    device,
    error::{Error, Result},
    method::{self, Batch, Extras, Passes, StepContext},
    model::{Model, ModelConfig, Shape},
    noise::Noise,
    optim::OptimizerKind,
    profile::{self, Part},
    threat::{Norm, Threat},
};

use super::print_json;
use crate::cli::StepBench;

/// Steps before the timed ones.
const WARM_UP: usize = 2;

/// Times whole steps: attack, training pass, update.
pub fn step(args: &StepBench) -> Result<()> {
    if args.steps == 0 || args.batch == 0 || args.image_size == 0 {
        return Err(Error::input("bench step: --steps, --batch and --image-size must be at least 1"));
    }
    let device = device::device(&args.device)?;
    let threads = device::set_threads(args.threads);
    let shape = Shape { channels: args.channels, height: args.image_size, width: args.image_size, classes: 10 };
    let (mean, std) = (vec![0.5; args.channels], vec![0.25; args.channels]);
    let mut model = Model::init(
        ModelConfig { name: args.model.clone(), width: args.width, shape, mean, std, options: Default::default() },
        0,
        &device,
    )?;
    if let Some(backend) = args.backend {
        model.set_backend(backend)?;
    }
    let info = method::method(&args.method)?;
    let norm = if info.norms.contains(&Norm::Linf) { Norm::Linf } else { Norm::L2 };
    let threat = Threat { norm, epsilon: if norm == Norm::Linf { 8.0 / 255.0 } else { 128.0 / 255.0 } };
    let mut method = info.build(&(info.options)()?, threat)?;
    let mut optimizer = OptimizerKind::Sgd.build(&model.params, 0.9, 5e-4);

    let ids: Vec<u32> = (0..args.batch as u32).collect();
    let dims = [args.batch, args.channels, args.image_size, args.image_size];
    let mut pixels = vec![0.0; dims.iter().product()];
    fill_uniform(&mut pixels, Key::new(0, Purpose::Synthetic), &ids);
    let labels: Vec<i32> = ids.iter().map(|id| (id % 10) as i32).collect();
    let batch = Batch {
        x: Tensor::from_data(TensorData::new(pixels, dims), &device),
        labels: Tensor::from_data(labels.as_slice(), &device),
        ids: ids.clone(),
        draws: vec![AugmentDraw::IDENTITY; ids.len()],
    };
    let mut seconds = Vec::with_capacity(args.steps);
    for step in 0..WARM_UP + args.steps {
        let started = Instant::now();
        let mut noise = Noise::training(0, 0, step as u64, ids.clone(), &device);
        let mut cx = StepContext {
            model: &mut model,
            threat,
            attack_bn: info.attack_bn,
            noise: &mut noise,
            epoch: 0,
            passes: Passes::default(),
            extras: Extras::default(),
        };
        let out = method.step(&mut cx, &batch)?;
        profile::time(Part::Optimizer, || optimizer.step(&mut model.params, out.gradients, 0.01));
        device.sync().map_err(|e| Error::work(format!("the device failed: {e}")))?;
        if step + 1 == WARM_UP {
            profile::take();
        }
        if step >= WARM_UP {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let total: f64 = seconds.iter().sum();
    let parts = profile_of(total, args.steps);
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let mut result = json!({
        "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
        "median_s": median,
        "min_s": seconds[0],
        "images_per_s": args.batch as f64 / median,
        "peak_rss_mib": device::peak_rss_mib(),
        "model": args.model,
        "method": args.method,
        "width": args.width,
        "batch": args.batch,
        "size": args.image_size,
        "channels": args.channels,
        "precision": args.precision,
        "device": args.device,
        "threads": threads,
        "isa": device::instruction_set()?.to_string(),
        "backend": model.backend(),
        "steps": args.steps,
    });
    if args.profile {
        result["profile"] = parts;
    }
    print_json(&result)
}

/// Mean seconds a step of each part, and of what no part covers: perturbation arithmetic, metrics, autodiff, logits.
fn profile_of(total: f64, steps: usize) -> Value {
    let mut parts = profile::take();
    let rest = total - parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
    parts.push(("rest", rest));
    parts.into_iter().map(|(name, seconds)| (name.to_owned(), json!(seconds / steps as f64))).collect::<Map<_, _>>().into()
}
