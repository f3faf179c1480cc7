//! Standard training, without a perturbation. It has no paper; it is the undefended baseline with
//! which the methods (Madry et al. 2018) are compared.

use serde::{Deserialize, Serialize};

use super::{
    Hyperparameters, Method, MethodInfo, Options, StepContext, StepOutput, TrainBatch,
    registry::{BOTH, passes},
};
use crate::{error::Result, nn::BnMode};

/// The row of `none`.
pub static INFO: MethodInfo = MethodInfo {
    name: "none",
    summary: "standard training on clean images",
    source: "-",
    norms: BOTH,
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: passes(0),
    bound: 0.0,
    options: Options::defaults::<Standard>,
    build: Options::build::<Standard>,
};

/// Standard training; it has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Standard {}

impl Hyperparameters for Standard {
    fn info() -> &'static MethodInfo {
        &INFO
    }

    fn into_method(self) -> Box<dyn Method> {
        Box::new(self)
    }
}

impl Method for Standard {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        cx.train(batch, batch.x.zeros_like(), None)
    }
}
