//! `sora resume`: a run goes on.

use std::path::PathBuf;

use sora::run::{self, RunDir};

use super::{shared::start_threads, train::to_the_end};
use crate::{complete, error::Result, finish::OnFinish};

/// Which run.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Run folder
    #[arg(add = complete::runs())]
    pub dir: PathBuf,
    #[command(flatten)]
    pub finish: OnFinish,
}

/// Goes on with a run from its newest checkpoint.
pub fn run(args: &ResumeArgs) -> Result<()> {
    args.finish.after(|| {
        let (dir, mut config) = RunDir::open(&args.dir)?;
        let threads = start_threads(config.threads)?;
        if threads != config.threads {
            tracing::warn!(
                "{threads} threads here, {} when the run began: the figures may differ in their \
                 last bits",
                config.threads
            );
        }
        let dataset = run::open_dataset(&config)?;
        let data = run::prepare(&mut config, &dataset)?;
        to_the_end(&dir, &config, &data)
    })
}
