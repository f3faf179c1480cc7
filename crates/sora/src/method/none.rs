//! Standard training: no perturbation. No paper; it is the baseline without defence that the others
//! (Madry et al. 2018) are compared with.

use super::{Batch, Method, StepContext, StepOutput};
use crate::error::Result;

/// Standard training.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standard;

impl Method for Standard {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &Batch) -> Result<StepOutput> {
        cx.train(batch, batch.x.zeros_like(), None)
    }
}
