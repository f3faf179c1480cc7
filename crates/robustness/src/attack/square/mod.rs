//! Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049): random search with square-shaped
//! changes, from the logits alone.
//!
//! The attack makes 5000 queries with p = 0.8, halved at the paper's query numbers (for 10000
//! queries, not rescaled, as in AutoAttack), and the margin as loss. Departures from the public
//! PyTorch code: every image has its own squares (as in the paper; there a batch shares them); a
//! square may touch the last row and column; a proposal that changes nothing counts as a query but
//! is not computed.

mod proposals;

use std::{fmt, str::FromStr};

use proposals::Proposer;

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackDraw, AttackInfo, largest_other,
    names::{self, Numbers},
    registry::EVERY,
};
use crate::{
    classifier::{Access, stands},
    error::{Error, Result},
    rows::{self, Rows},
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
        let (threat, shape) = (cx.threat, cx.model.shape());
        if shape.classes < 2 {
            return Ok(batch.x.clone());
        }
        let mut active = Active::new(batch);
        let mut ids = batch.ids.to_vec();
        // Margin z_y - max of the others at the best point.
        let mut margin = vec![f64::INFINITY; batch.len()];
        let mut best = batch.x.clone();
        let mut proposal = Rows::default();
        // Where squares are small, the network may offer a cheaper way to compute logits. The inner
        // option holds that way; the outer one says whether the network has been asked for it.
        let mut incremental = None;
        // Query 0 is the start; the schedule counts from the first square.
        for query in 0..=self.queries {
            if active.is_empty() {
                break;
            }
            let proposer = Proposer::new(threat, shape, query);
            let mut draws = Rows::zeros(ids.len(), proposer.draws());
            cx.fill_uniform_at(AttackDraw::Proposal, query, &mut draws, &ids);
            proposal.copy_from(&best);
            let changed = proposal.map(|i, z| {
                proposer.propose(active.x.row(i), z, draws.row(i));
                query == 0 || z != best.row(i)
            });
            let asked: Vec<usize> = (0..active.len()).filter(|&i| changed[i]).collect();
            if asked.is_empty() {
                continue;
            }
            if incremental.is_none() && proposer.is_small() {
                incremental = Some(cx.model.incremental(&best)?);
            }
            let logits = match &mut incremental {
                Some(Some(incremental)) => {
                    Rows::new(incremental.step(&proposal, &asked)?, shape.classes)
                }
                _ if asked.len() == active.len() => cx.logits(&proposal)?,
                _ => cx.logits(&proposal.select(&asked))?,
            };
            let mut done = vec![false; active.len()];
            let mut refused = Vec::new();
            for (row, &i) in asked.iter().enumerate() {
                let (z, y) = (logits.row(row), active.labels[i]);
                let found = largest_other(z, y)
                    .map_or(f64::INFINITY, |m| f64::from(z[y]) - f64::from(z[m]));
                // A point that crosses the boundary only by rounding does not count.
                done[i] = !stands(z, y)
                    && (incremental.is_none() || !stands(&cx.model.logits(proposal.row(i))?, y));
                if query == 0 || found < margin[i] || done[i] {
                    margin[i] = found;
                    best.row_mut(i).copy_from_slice(proposal.row(i));
                } else {
                    refused.push(i);
                }
            }
            if let Some(Some(incremental)) = &mut incremental {
                incremental.back(&refused);
            }
            if done.contains(&true) {
                incremental = None;
                let keep = active.drop_done(&done, &best);
                best.retain(&keep.0);
                rows::keep(&mut margin, &keep.0);
                rows::keep(&mut ids, &keep.0);
            }
            cx.tick(query, self.queries, active.fooled());
        }
        Ok(active.finish(&best))
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
}
