//! A run folder: one schema for what it holds, written and read by the same types.
//!
//! | file | what | type |
//! |---|---|---|
//! | `config.toml` | settings, network, data, machine | [`RunConfig`] |
//! | `metrics.jsonl` | one line a step | [`StepLine`](log::StepLine) |
//! | `epochs.jsonl` | one line an epoch | [`EpochLine`](log::EpochLine) |
//! | `abandoned.jsonl` | lines of steps that a rollback threw away | [`StepLine`](log::StepLine) |
//! | `checkpoints/*/` | everything to go on to the same bits | [`checkpoint`] |
//! | `best.safetensors` | weights of the best validation | [`About`] |
//! | `model.safetensors` | final weights | [`About`] |
//! | `summary.json` | final figures | [`Summary`](crate::train::Summary) |
//! | `eval/*.json` | evaluations | |
//! | `tensorboard/` | event files | |
//!
//! Every path is a method of [`RunDir`].

pub mod checkpoint;
mod config;
pub mod digests;
mod dir;
mod extra;
pub mod follow;
mod initial;
pub mod log;
mod prepare;
pub mod recipe;
mod weights;

pub(crate) use self::config::is_changed;
pub use self::{
    config::{Provenance, RunConfig},
    dir::RunDir,
    extra::EXTRA_FRACTION,
    initial::{InitialWeights, with_initial_network},
    prepare::{TrainPlan, open_dataset},
    weights::{ABOUT, About, Source, Subject, Which},
};
