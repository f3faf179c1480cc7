//! The fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572); in l2 the step follows
//! the normalised gradient.

use std::{fmt, str::FromStr};

use super::{Attack, AttackBatch, AttackContext, AttackInfo, Objective, Passes, registry::BOTH};
use crate::{
    classifier::Access,
    error::{Error, Result},
    rows::{self, Rows},
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "fgsm",
    name: "fgsm",
    summary: "one step of epsilon along the gradient (its sign in l-inf)",
    source: "Goodfellow et al. 2015, arXiv 1412.6572",
    norms: BOTH,
    needs: Access::Gradients,
    parse: |name, _| Ok(Box::new(name.parse::<Fgsm>()?)),
};

/// One step of size epsilon from the clean image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fgsm;

impl fmt::Display for Fgsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fgsm")
    }
}

impl FromStr for Fgsm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let problem = || "takes no numbers".to_owned();
        let wrong = || Error::AttackForm { name: name.to_owned(), problem: problem() };
        (name == "fgsm").then_some(Self).ok_or_else(wrong)
    }
}

impl Attack for Fgsm {
    fn key(&self) -> String {
        self.to_string()
    }

    fn passes(&self, _classes: usize) -> Passes {
        Passes { forward: 0, gradient: 1 }
    }

    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let ascent = cx.ascend(batch.x, batch.labels, &[], Objective::CrossEntropy)?;
        let threat = cx.threat;
        let mut out = batch.x.clone();
        out.for_each(|i, point| {
            rows::ascend(threat.norm, point, ascent.grad.row(i), threat.epsilon);
            rows::project(threat, batch.x.row(i), point);
        });
        Ok(out)
    }
}
