//! `sora bench step`: whole training steps.

use std::time::Instant;

use serde_json::{Value, json};
use sora::{
    config::Precision,
    data::AugmentDraw,
    method::{
        self, Awaited, Extras, Method, MethodInfo, Options, Place, StepContext, StepMetrics,
        StepSettings, TrainBatch,
    },
    nn::{self, BnMode},
    noise::Noise,
    optim::{Optimizer, OptimizerKind, Rates},
    profile::{self, Stage},
    threat::{Norm, Threat},
};

use super::setup::{BenchModel, Setup, profile_of, radius};
use crate::{
    complete,
    console::print_json,
    error::Result,
    values::{NORMS, PRECISIONS, Words, one_of},
};

/// Number of steps before the timed ones.
const WARM_UP: usize = 2;
/// The same on a device, which records a pass when it has run four times as it is.
const WARM_UP_ON_DEVICE: usize = 6;

/// Norms of a training: no method is defined in l1.
const TRAINED: Words = NORMS.split_at(2).0;

/// Which method, on what.
#[derive(Debug, clap::Args)]
pub struct StepBench {
    #[command(flatten)]
    pub network: BenchModel,
    /// Training method; several, with commas between them, are timed in turn, a line each
    #[arg(long, default_value = "sora", value_delimiter = ',', add = complete::methods())]
    pub method: Vec<String>,
    /// A hyperparameter of the method (see `sora methods NAME`); may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Norm [default: linf, if the method is defined in it]
    #[arg(long, value_parser = one_of::<Norm>(TRAINED))]
    pub norm: Option<Norm>,
    /// Arithmetic of activations
    #[arg(long, value_parser = one_of::<Precision>(PRECISIONS), default_value = "f32")]
    pub precision: Precision,
    /// Also give the mean seconds of each part of a step
    #[arg(long)]
    pub profile: bool,
    /// Make a step before the figures of the one before have come, as a training
    /// does on a device
    #[arg(long)]
    pub ahead: bool,
    /// Steps to time, after two that are not (on a device six)
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

/// A method with its options, and what it trains against.
struct Kind {
    info: &'static MethodInfo,
    options: Options,
    threat: Threat,
}

impl Kind {
    /// The method `name` as `args` ask for it.
    ///
    /// # Errors
    /// An unknown method or option, a value that it does not take, or a norm in which the method is
    /// not defined.
    fn new(args: &StepBench, name: &str) -> Result<Self> {
        let info = method::method(name)?;
        let mut options = (info.options)()?;
        args.set.iter().try_for_each(|pair| options.set(pair, info.name))?;
        let usual = if info.norms.contains(&Norm::Linf) { Norm::Linf } else { Norm::L2 };
        let threat = radius(args.norm.unwrap_or(usual));
        info.build(&options, threat)?;
        Ok(Self { info, options, threat })
    }
}

/// The parts of a training step besides the network.
pub struct Training {
    method: Box<dyn Method>,
    optimizer: Box<dyn Optimizer>,
    batch: TrainBatch,
    threat: Threat,
    attack_bn: BnMode,
}

/// Times whole steps: attack, training pass, update.
pub fn run(args: &StepBench) -> Result<()> {
    // What is wrong with one of them is said before any is timed.
    let kinds = args.method.iter().map(|name| Kind::new(args, name)).collect::<Result<Vec<_>>>()?;
    // A device chooses its kernels once in a process, for all the methods.
    kinds.iter().enumerate().try_for_each(|(index, kind)| {
        let mut result = one(args, kind)?;
        result["method"] = json!(kind.info.name);
        result["method_options"] = json!(kind.options);
        result["norm"] = json!(kind.threat.norm);
        if index > 0 {
            // A device's memory pool keeps what the methods before have asked for.
            result["device_mib"] = Value::Null;
        }
        print_json(&result)
    })
}

fn one(args: &StepBench, kind: &Kind) -> Result<Value> {
    let mut setup = Setup::new(&args.network, args.steps)?;
    setup.model.set_precision(args.precision)?;
    let mut training = Training::with(&setup, kind.info, &kind.options, kind.threat)?;
    let mut seconds = Vec::with_capacity(args.steps);
    let (mut first, mut faults) = (nn::pool_counts(), profile::page_faults());
    let mut before = None;
    let warm_up = if args.network.machine.device == "cpu" { WARM_UP } else { WARM_UP_ON_DEVICE };
    for step in 0..warm_up + args.steps {
        let started = Instant::now();
        let figures = training.step(&mut setup, step as u64)?;
        if args.ahead {
            before.replace(figures).map(Awaited::wait).transpose()?;
        } else {
            figures.wait()?;
            setup.sync()?;
        }
        if step == 0 {
            first = nn::pool_counts();
        }
        if step + 1 == warm_up {
            profile::take();
            faults = profile::page_faults();
        }
        if step >= warm_up {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let faults = profile::page_faults()
        .zip(faults)
        .map(|(now, then)| (now - then) as f64 / args.steps as f64);
    let pool = nn::pool_counts();
    let mut parts = profile_of(args.steps);
    // All stages run on the thread that times them, so the rest of the step is time that no stage
    // covers.
    let covered: f64 = parts.values().filter_map(Value::as_f64).sum();
    let mean = seconds.iter().sum::<f64>() / args.steps as f64;
    parts.insert("rest".to_owned(), json!(mean - covered));
    let mut result = setup.result(&args.network, seconds)?;
    result["precision"] = json!(args.precision);
    result["ahead"] = json!(args.ahead);
    result["pool_misses_after_first_step"] = json!(pool.misses - first.misses);
    result["pool_mib"] = json!(pool.bytes >> 20);
    result["page_faults_per_step"] = json!(faults);
    if args.profile {
        result["profile"] = parts.into();
    }
    Ok(result)
}

impl Training {
    /// The method `info` with its default options, against `threat`.
    ///
    /// # Errors
    /// A threat that the method is not defined for.
    pub fn new(setup: &Setup, info: &MethodInfo, threat: Threat) -> Result<Self> {
        Self::with(setup, info, &(info.options)()?, threat)
    }

    /// The method `info` with `options`, against `threat`.
    ///
    /// # Errors
    /// A wrong option, or a threat that the method is not defined for.
    fn with(setup: &Setup, info: &MethodInfo, options: &Options, threat: Threat) -> Result<Self> {
        let method = info.build(options, threat)?;
        let attack_bn = method.attack_bn().unwrap_or(info.attack_bn);
        Ok(Self {
            method,
            optimizer: OptimizerKind::Sgd.build(&setup.model.params, 5e-4),
            batch: TrainBatch {
                x: setup.x.clone(),
                labels: setup.labels.clone(),
                ids: setup.ids.clone(),
                draws: vec![AugmentDraw::IDENTITY; setup.ids.len()],
            },
            threat,
            attack_bn,
        })
    }

    /// Makes one step.
    ///
    /// # Errors
    /// A device that fails.
    pub fn step(&mut self, setup: &mut Setup, step: u64) -> Result<Awaited<StepMetrics>> {
        let mut noise = Noise::training(0, 0, step, setup.ids.clone(), &setup.device);
        let settings = StepSettings {
            threat: self.threat,
            attack_bn: self.attack_bn,
            place: Place::default(),
            extras: Extras::default(),
        };
        let mut cx = StepContext::new(&mut setup.model, &mut noise, settings);
        let out = method::run_step(self.method.as_mut(), &mut cx, &self.batch)?;
        profile::time(Stage::Optimizer, || {
            let rates = Rates { lr: 0.01, momentum: 0.9 };
            self.optimizer.step(&mut setup.model.params, out.gradients, rates)
        });
        Ok(out.metrics)
    }
}
