//! `sora resume`: continues a run.

use std::path::PathBuf;

use sora::{Trainer, run, train::OtherWorld};

use super::{shared::start_threads, train::to_the_end};
use crate::{complete, error::Result, finish::OnFinish, progress::TrainingBar};

/// Which run.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Run folder
    #[arg(add = complete::runs())]
    pub dir: PathBuf,
    /// Train a finished run on, to so many epochs in all; the learning rate follows the schedule of
    /// the longer run from here on
    #[arg(long)]
    pub epochs: Option<u64>,
    /// Go on with another number of processes than the run began with: config.toml keeps both, and
    /// the last bits differ from those of an unbroken run
    #[arg(long)]
    pub world_size_may_differ: bool,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Continues a run from its newest checkpoint.
pub fn run(args: &ResumeArgs) -> Result<()> {
    args.finish.after(|| {
        let other_world = match args.world_size_may_differ {
            true => OtherWorld::Allow,
            false => OtherWorld::Refuse,
        };
        let trainer = Trainer::resume(&args.dir, args.epochs)?.other_world(other_world);
        let config = trainer.config()?;
        // The number of threads does not change any bit of the result.
        start_threads(config.threads)?;
        let dataset = run::open_dataset(&config)?;
        to_the_end(trainer.observe(TrainingBar::default()), &dataset)
    })
}
