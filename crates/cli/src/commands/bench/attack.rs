//! `sora bench attack`: an evaluation attack.

use std::time::Instant;

use serde_json::json;
use sora::{
    attack::{self, AttackContext, Entry, RowKey},
    nn,
    profile::{self, Stage},
    robustness::{Classifier, Rows, predicted, stands},
    threat::{Norm, Threat},
};

use super::setup::{BenchModel, CLASSES, Setup, profile_of, radius};
use crate::{
    complete,
    console::print_json,
    error::{Failure, Result},
    values::{NORMS, one_of},
};

/// Which attack, on what.
#[derive(Debug, clap::Args)]
pub struct AttackBench {
    #[command(flatten)]
    pub network: BenchModel,
    /// Attack, see `sora attacks`
    #[arg(long, default_value = "pgd-10", add = complete::attacks())]
    pub attack: String,
    /// Norm
    #[arg(long, value_parser = one_of::<Norm>(NORMS), default_value = "linf")]
    pub norm: Norm,
    /// Also give the mean seconds of each part of a batch, all threads together
    #[arg(long)]
    pub profile: bool,
    /// Batches to time, after one that is not
    #[arg(long, default_value_t = 5)]
    pub steps: usize,
}

/// Times an attack on batches of images with the classes that the network predicts for them. An
/// image that is fooled leaves the batch, as in an evaluation.
pub fn run(args: &AttackBench) -> Result<()> {
    let setup = Setup::new(&args.network, args.steps)?;
    let entry = attack::entry(&args.attack, args.norm)?;
    if entry.parts.is_empty() {
        return Err(Failure::input(format!(
            "bench attack: --attack {}: expected an attack, see `sora attacks`",
            args.attack
        )));
    }
    let x = nn::to_vec(&setup.x)?;
    let x = Rows::new(x, setup.model.shape().pixels());
    let clean = Classifier::logits(&setup.model, &x)?;
    let labels: Vec<usize> = clean.chunks(CLASSES).map(predicted).collect();
    let images = Images { x, labels };
    let threat = radius(args.norm);
    let mut seconds = Vec::with_capacity(args.steps);
    let mut fooled = 0;
    for batch in 0..=args.steps {
        let started = Instant::now();
        let left = images.attack(&setup, &entry, threat, batch as u64)?;
        setup.sync()?;
        if batch == 0 {
            profile::take();
        } else {
            seconds.push(started.elapsed().as_secs_f64());
            fooled += setup.ids.len() - left;
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

/// Images, and the classes that the network predicts for them.
struct Images {
    x: Rows,
    labels: Vec<usize>,
}

impl Images {
    /// Attacks all images and returns how many still stand.
    fn attack(&self, setup: &Setup, entry: &Entry, threat: Threat, batch: u64) -> Result<usize> {
        let mut left: Vec<usize> = (0..setup.ids.len()).collect();
        for part in &entry.parts {
            for round in 0..part.attack.rounds(CLASSES) {
                let rows = self.x.select(&left);
                let labels: Vec<usize> = left.iter().map(|&i| self.labels[i]).collect();
                let key_of = |&i: &usize| RowKey { id: setup.ids[i], round };
                let keys: Vec<RowKey> = left.iter().map(key_of).collect();
                let mut ignore = |_| {};
                let (model, key) = (&setup.model, &part.key);
                let mut cx = AttackContext::new(model, threat, batch, key, &mut ignore);
                let images = attack::AttackBatch { x: &rows, labels: &labels, keys: &keys };
                let found =
                    profile::time(Stage::Perturbation, || part.attack.run(&mut cx, &images))?;
                let logits = Classifier::logits(model, &found)?;
                let mut standing =
                    logits.chunks(CLASSES).zip(&labels).map(|(z, &label)| stands(z, label));
                left.retain(|_| standing.next().unwrap_or(false));
            }
        }
        Ok(left.len())
    }
}
