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
    network::{NETWORKS, Network, PROCESSES, Work},
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

/// Sums of a few values that are timed, and how many values: the moments of a wide batch norm.
const SUMS: usize = 50;
const VALUES: usize = 1024;

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
    /// Predict for machines that compute their part of a step in this time [default: that of this
    /// one]
    #[arg(long, value_name = "SECONDS")]
    pub computing: Option<f64>,
}

/// What was timed of one kind of step, in seconds.
struct Timed {
    /// A step: the median.
    step: f64,
    /// The sums that the step waits for, and those beside it: means.
    traffic: [Mean; 2],
    /// From the first complete gradient to the end of the backward pass: the mean.
    window: f64,
}

/// What a step says to the other processes.
#[derive(Clone, Copy)]
struct Mean {
    calls: f64,
    sums: f64,
    summed: f64,
    sent: f64,
    seconds: f64,
}

impl Mean {
    fn of(traffic: &[Traffic]) -> Self {
        let steps = traffic.len().max(1) as f64;
        let mean =
            |figure: &dyn Fn(&Traffic) -> f64| traffic.iter().map(figure).sum::<f64>() / steps;
        Self {
            calls: mean(&|t| t.calls as f64),
            sums: mean(&|t| t.sums as f64),
            summed: mean(&|t| t.summed as f64),
            sent: mean(&|t| t.sent as f64),
            seconds: mean(&|t| t.time.as_secs_f64()),
        }
    }
}

/// Times steps on the first process alone, and on all with a part of the batch each.
pub fn run(args: &ScalingBench) -> Result<()> {
    let link = Arc::new(Counted::new(world::link()));
    let world = link.world();
    check(args, world)?;
    let part_of =
        |rank| Ok::<_, Failure>(part(Setup::new(&args.network, args.steps)?, rank, world));
    let alone = || -> Result<[f64; 2]> {
        let ranks = Ranks::alone();
        let whole = timed(args, Setup::new(&args.network, args.steps)?, &ranks, &link)?;
        Ok([whole.step, timed(args, part_of(0)?, &ranks, &link)?.step])
    };
    let alone = if world::first() { Some(alone()?) } else { None };
    // The others wait until the first has the machine no longer to itself.
    link.any(false)?;
    let in_turn = Ranks::new(link.clone(), BatchNormScope::Sync);
    let setup = part_of(link.rank())?;
    let weights = setup.model.params.num_elements();
    let in_turn = timed(args, setup, &in_turn, &link)?;
    let overlapping = Ranks::overlapping(link.clone(), BatchNormScope::Sync)?;
    let overlapping = timed(args, part_of(link.rank())?, &overlapping, &link)?;
    let sums = [timed_sums(&*link, VALUES, SUMS)?, timed_sums(&*link, weights.div_ceil(2), 5)?];
    if let Some(alone) = alone {
        let steps = [in_turn, overlapping];
        print_json(&report(args, world, weights, alone, &steps, sums))?;
    }
    Ok(())
}

fn check(args: &ScalingBench, world: usize) -> Result<()> {
    if !args.network.batch.is_multiple_of(world) {
        let batch = args.network.batch;
        return Err(Failure::input(format!(
            "--batch {batch}: {world} processes share it in equal parts; choose a multiple of {world}"
        )));
    }
    if let Some(computing) = args.computing.filter(|seconds| !(1e-6..1e6).contains(seconds)) {
        return Err(Failure::input(format!(
            "--computing {computing}: expected the seconds of a step, from 1e-6 to 1e6"
        )));
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

/// Times the steps of `ranks`, whose link is `link`.
fn timed(
    args: &ScalingBench,
    mut setup: Setup,
    ranks: &Arc<Ranks>,
    link: &Counted,
) -> Result<Timed> {
    let info = method::method(&args.method)?;
    let threat = radius(if info.norms.contains(&Norm::Linf) { Norm::Linf } else { Norm::L2 });
    let mut training = Training::new(&setup, info, threat)?;
    let mut seconds = Vec::with_capacity(args.steps);
    let mut traffic = [Vec::new(), Vec::new()];
    let mut window = 0.0;
    for step in 0..WARM_UP + args.steps {
        link.take();
        ranks.take_window();
        let started = Instant::now();
        ranks.enter(|| training.step(&mut setup, step as u64))??.wait()?;
        setup.sync()?;
        if step >= WARM_UP {
            seconds.push(started.elapsed().as_secs_f64());
            traffic.iter_mut().zip(link.take()).for_each(|(all, one)| all.push(one));
            window += ranks.take_window().as_secs_f64() / args.steps as f64;
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Timed { step: seconds[seconds.len() / 2], traffic: traffic.map(|t| Mean::of(&t)), window })
}

/// Mean seconds of a sum of `values` f64 over all processes.
fn timed_sums(link: &dyn Communicator, values: usize, times: usize) -> Result<f64> {
    let mut values = vec![1.0; values];
    link.sum(&mut values)?;
    let started = Instant::now();
    for _ in 0..times {
        link.sum(&mut values)?;
        values.fill(1.0);
    }
    Ok(started.elapsed().as_secs_f64() / times as f64)
}

/// What a process does in a step, for the model. Where sums and computing take turns on a core, the
/// window is longer by what sums take of it.
fn work(args: &ScalingBench, weights: usize, part: f64, overlapping: &Timed) -> Work {
    let [waits, _] = overlapping.traffic;
    let computing = args.computing.unwrap_or(part);
    Work {
        computing,
        window: overlapping.window / overlapping.step * computing,
        sums: waits.sums,
        bytes: waits.summed,
        gradients: (weights * size_of::<f32>()) as f64,
    }
}

fn report(
    args: &ScalingBench,
    world: usize,
    weights: usize,
    [alone, part]: [f64; 2],
    [in_turn, overlapping]: &[Timed; 2],
    [of_sum, of_gradients]: [f64; 2],
) -> Value {
    let said = |timed: &Timed| {
        let [waited, beside] = timed.traffic;
        json!({
            "step_s": timed.step,
            "speedup": alone / timed.step,
            "calls": waited.calls + beside.calls,
            "sent_bytes": waited.sent + beside.sent,
            "communication_s": waited.seconds,
            "beside_s": beside.seconds,
        })
    };
    let work = work(args, weights, part, overlapping);
    let of = |network: Network| {
        let steps = PROCESSES.map(|processes| network.step(&work, processes));
        json!({ "gigabits": network.gigabits, "latency_s": network.latency, "steps": steps })
    };
    // One process sums nothing, so that nothing is known of its sums.
    let predicted = (world > 1).then(|| NETWORKS.map(of));
    json!({
        "framework": concat!("sora ", env!("CARGO_PKG_VERSION")),
        "world": world,
        "method": args.method,
        "model": args.network.model,
        "width": args.network.width,
        "batch": args.network.batch,
        "size": args.network.image_size,
        "threads": args.network.machine.threads,
        "weights": weights,
        "alone_s": alone,
        "part_s": part,
        "in_turn": said(in_turn),
        "overlapping": said(overlapping),
        "window_s": work.window,
        "sum_s": of_sum,
        "gradients_s": of_gradients,
        "in_turn_expected_s": part + work.sums * of_sum + of_gradients,
        "computing_s": work.computing,
        "predicted": predicted,
    })
}
