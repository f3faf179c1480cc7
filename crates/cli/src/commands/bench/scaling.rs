//! `sora bench scaling`: training steps that processes share, and what that costs.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use sora::{
    method,
    ranks::{BatchNormScope, Counted, Ranks, Traffic},
    threat::Norm,
    train::Communicator,
};

use super::{
    setup::{BenchModel, Setup, radius},
    step::Training,
};
use crate::{
    complete,
    console::print_json,
    error::{Failure, Result},
    world,
};

/// Steps before the timed ones.
const WARM_UP: usize = 2;

/// Networks that a time is predicted for: gigabits a second, and seconds until a message is there.
const NETWORKS: [(f64, f64); 2] = [(10.0, 30e-6), (100.0, 3e-6)];

/// Which method, on what.
#[derive(Debug, clap::Args)]
pub struct ScalingBench {
    #[command(flatten)]
    pub network: BenchModel,
    /// Training method
    #[arg(long, default_value = "sora", add = complete::methods())]
    pub method: String,
    /// Steps to time, after two that are not
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

/// Times steps on the first process alone, and on all with a part of the batch each.
pub fn run(args: &ScalingBench) -> Result<()> {
    let link = Arc::new(Counted::new(world::link()));
    let world = link.world();
    if !args.network.batch.is_multiple_of(world) {
        let batch = args.network.batch;
        return Err(Failure::input(format!(
            "--batch {batch}: {world} processes share it in equal parts; choose a multiple of {world}"
        )));
    }
    let alone = match world::first() {
        true => Some(timed(args, Setup::new(&args.network, args.steps)?, &Ranks::alone(), || ())?),
        false => None,
    };
    // The others wait until the first has the machine no longer to itself.
    link.any(false)?;
    let setup = part(Setup::new(&args.network, args.steps)?, link.rank(), world);
    let ranks = Ranks::new(link.clone(), BatchNormScope::Sync);
    link.take();
    let mut traffic = Vec::new();
    let shared = timed(args, setup, &ranks, || traffic.push(link.take()))?;
    if let Some(alone) = alone {
        print_json(&report(args, world, &[alone, shared], &traffic[WARM_UP..]))?;
    }
    Ok(())
}

/// The images of the `rank`-th of `world` parts.
fn part(setup: Setup, rank: usize, world: usize) -> Setup {
    let images = setup.ids.len() / world;
    let part = rank * images..(rank + 1) * images;
    Setup {
        x: setup.x.clone().slice_dim(0, part.clone()),
        labels: setup.labels.clone().slice_dim(0, part.clone()),
        ids: setup.ids[part].to_vec(),
        ..setup
    }
}

/// Median seconds of a step; `after` is called after each.
fn timed(
    args: &ScalingBench,
    mut setup: Setup,
    ranks: &Arc<Ranks>,
    mut after: impl FnMut(),
) -> Result<f64> {
    let info = method::method(&args.method)?;
    let threat = radius(if info.norms.contains(&Norm::Linf) { Norm::Linf } else { Norm::L2 });
    let mut training = Training::new(&setup, info, threat)?;
    let mut seconds = Vec::with_capacity(args.steps);
    for step in 0..WARM_UP + args.steps {
        let started = Instant::now();
        ranks.enter(|| training.step(&mut setup, step as u64))??;
        if step >= WARM_UP {
            seconds.push(started.elapsed().as_secs_f64());
        }
        after();
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn report(
    args: &ScalingBench,
    world: usize,
    [alone, shared]: &[f64; 2],
    traffic: &[Traffic],
) -> Value {
    let steps = traffic.len().max(1) as f64;
    let calls = traffic.iter().map(|t| t.calls).sum::<u64>() as f64 / steps;
    let sent = traffic.iter().map(|t| t.sent).sum::<u64>() as f64 / steps;
    let waited = traffic.iter().map(|t| t.time.as_secs_f64()).sum::<f64>() / steps;
    let computed = (shared - waited).max(0.0);
    let predicted = NETWORKS.map(|(gigabits, latency)| {
        // A message reaches all in as many rounds as their number has binary digits.
        let rounds = (world as f64).log2().ceil();
        let seconds = computed + calls * rounds * latency + sent * 8.0 / (gigabits * 1e9);
        json!({
            "gigabits": gigabits,
            "latency_s": latency,
            "step_s": seconds,
            "efficiency": alone / (world as f64 * seconds),
        })
    });
    json!({
        "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
        "world": world,
        "method": args.method,
        "model": args.network.model,
        "width": args.network.width,
        "batch": args.network.batch,
        "size": args.network.image_size,
        "threads": args.network.machine.threads,
        "alone_s": alone,
        "shared_s": shared,
        "speedup": alone / shared,
        "efficiency": alone / (world as f64 * shared),
        "calls": calls,
        "sent_bytes": sent,
        "communication_s": waited,
        "predicted": predicted,
    })
}
