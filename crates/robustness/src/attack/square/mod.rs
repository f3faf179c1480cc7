//! Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049): random search with square-shaped
//! changes, from the logits alone.
//!
//! The attack makes 5000 queries with p = 0.8, halved at the paper's query numbers (for 10000
//! queries, not rescaled, as in AutoAttack), and the margin as loss. Departures from the public
//! PyTorch code: every image has its own squares (as in the paper; there a batch shares them); a
//! square may touch the last row and column; a proposal that changes nothing counts as a query but
//! is not computed.

mod proposals;
mod search;

use std::{fmt, str::FromStr};

use search::Search;

use super::{
    Attack, AttackBatch, AttackContext, AttackInfo, Passes,
    names::{self, Numbers},
    registry::EVERY,
};
use crate::{
    classifier::Access,
    error::{Error, Result},
    rows::Rows,
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "square",
    name: "square[-Q[xR]]",
    summary: "random search from the logits alone, 5000 queries",
    source: "Andriushchenko et al. 2020, arXiv 1912.00049",
    norms: EVERY,
    needs: Access::Scores,
    parse: |name, _| Ok(Box::new(name.parse::<Square>()?)),
};

/// Queries when the attack's name gives no number.
const QUERIES: usize = 5000;

/// Random search in ball and box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Square {
    /// Queries of a round; 5000 in AutoAttack.
    pub queries: usize,
    /// Restarts.
    pub restarts: usize,
}

impl fmt::Display for Square {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell("square", self.queries, Some(QUERIES), self.restarts))
    }
}

impl FromStr for Square {
    type Err = Error;

    /// Reads `square[-Q[xR]]`.
    fn from_str(name: &str) -> Result<Self> {
        let Numbers { steps, restarts } = Numbers::after("square", name)?;
        Ok(Self { queries: steps.unwrap_or(QUERIES), restarts })
    }
}

impl Attack for Square {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        if cx.model.shape().classes < 2 {
            return Ok(batch.x.clone());
        }
        Search::new(cx, batch, self.queries).run(cx)
    }

    fn key(&self) -> String {
        names::spell("square", self.queries, Some(QUERIES), 1)
    }

    fn needs(&self) -> Access {
        Access::Scores
    }

    fn rounds(&self, _classes: usize) -> usize {
        self.restarts
    }

    fn passes(&self, _classes: usize) -> Passes {
        // The start counts as query 0. What is computed ahead of an answer shares a pass with it.
        Passes { forward: self.queries + 1, gradient: 0 }
    }
}
