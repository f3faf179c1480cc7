//! The names that a program for training and evaluation needs: `use sora::prelude::*;`.

pub use crate::{
    config::TrainConfig,
    error::{Error, Result},
    evaluate::{Evaluation, Suite},
    run::{RunDir, Subject},
    threat::{Epsilon, Norm, Threat},
    train::{Event, Observer, Trained, Trainer},
};
