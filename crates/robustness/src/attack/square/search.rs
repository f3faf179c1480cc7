//! The random search of Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049, algorithm 1).
//! That queries are computed ahead of refusals is this crate's own, and changes no result.

use std::collections::BTreeMap;

use super::proposals::Proposer;
use crate::{
    attack::{Active, AttackBatch, AttackContext, AttackDraw, RowKey, largest_other},
    classifier::{Incremental, Shape, stands},
    error::Result,
    rows::{self, Rows},
    threat::Threat,
};

/// Rows of a call from which on more make it hardly cheaper a row.
const ENOUGH: usize = 32;

/// The state of an image, besides its best point.
#[derive(Clone, Copy, Debug)]
struct Image {
    /// Margin z_y - max of the others at the best point.
    margin: f64,
    /// The query that comes next. Query 0 is the start; the schedule counts from the first square.
    next: usize,
    /// Queries that are computed at once, as if all but the last were refused. Most are: what comes
    /// after one that is not is computed again.
    ahead: usize,
}

/// A proposal for an image.
#[derive(Clone, Copy, Debug)]
struct Proposal {
    image: usize,
    query: usize,
    /// Whether it differs from the best point.
    changed: bool,
}

/// How logits are computed.
enum Way<'a> {
    /// While squares are large: as wholes.
    Whole,
    /// The network has a cheaper way for small changes; one query of each image at a time.
    Incremental(Box<dyn Incremental + 'a>),
    /// It has none: as wholes, several queries of an image at once where images are few.
    Ahead,
}

/// A search on the images of a batch.
pub(super) struct Search {
    queries: usize,
    threat: Threat,
    shape: Shape,
    active: Active,
    keys: Vec<RowKey>,
    images: Vec<Image>,
    best: Rows,
}

impl Search {
    pub fn new(cx: &AttackContext<'_>, batch: &AttackBatch<'_>, queries: usize) -> Self {
        let image = Image { margin: f64::INFINITY, next: 0, ahead: 1 };
        Self {
            queries,
            threat: cx.threat,
            shape: cx.model.shape(),
            active: Active::new(batch),
            keys: batch.keys.to_vec(),
            images: vec![image; batch.len()],
            best: batch.x.clone(),
        }
    }

    /// Searches until all images are fooled or have had their queries; returns the candidates.
    pub fn run(mut self, cx: &mut AttackContext<'_>) -> Result<Rows> {
        let model = cx.model;
        let mut way = Way::Whole;
        while let Some(query) = self.next() {
            if matches!(way, Way::Whole) && self.proposer(query).is_small() {
                way = match model.incremental(&self.best)? {
                    Some(incremental) => Way::Incremental(incremental),
                    None => Way::Ahead,
                };
            }
            let (proposals, points) = self.propose(cx, &way);
            let asked: Vec<usize> =
                (0..proposals.len()).filter(|&row| proposals[row].changed).collect();
            let logits = match &mut way {
                _ if asked.is_empty() => Vec::new(),
                Way::Incremental(incremental) => incremental.step(&points, &asked)?,
                _ if asked.len() == proposals.len() => model.logits(&points)?,
                _ => model.logits(&points.select(&asked))?,
            };
            let logits = Rows::new(logits, self.shape.classes);
            let is_incremental = matches!(way, Way::Incremental(_));
            let confirm = |point: &[f32], label| -> Result<bool> {
                // A point that crosses the boundary only by rounding does not count.
                Ok(!is_incremental || !stands(&model.logits(point)?, label))
            };
            let (done, refused) = self.judge(&proposals, &points, &logits, confirm)?;
            if let Way::Incremental(incremental) = &mut way {
                incremental.back(&refused);
            }
            if done.contains(&true) {
                self.leave(&done);
                // It knows the images that are left by their rows.
                if is_incremental {
                    way = Way::Whole;
                }
            }
            cx.tick(query, self.queries, self.active.fooled());
        }
        Ok(self.active.finish(&self.best))
    }

    /// The least query that an image has not had.
    fn next(&self) -> Option<usize> {
        self.images.iter().map(|image| image.next).min().filter(|&next| next <= self.queries)
    }

    fn proposer(&self, query: usize) -> Proposer {
        Proposer::new(self.threat, self.shape, query)
    }

    /// The next proposals of every image, and their points, a row each.
    fn propose(&self, cx: &AttackContext<'_>, way: &Way<'_>) -> (Vec<Proposal>, Rows) {
        let most = match way {
            Way::Ahead if cx.model.queries().is_none() => ENOUGH / self.active.len().max(1),
            _ => 1,
        };
        let mut proposals = Vec::new();
        for (image, state) in self.images.iter().enumerate() {
            let count = state.ahead.min(most).max(1);
            let queries = (state.next..=self.queries).take(count);
            proposals.extend(queries.map(|query| Proposal { image, query, changed: true }));
        }
        let mut proposers = BTreeMap::new();
        let mut draws = Vec::new();
        for &Proposal { image, query, .. } in &proposals {
            let proposer = proposers.entry(query).or_insert_with(|| self.proposer(query));
            let mut row = vec![0.0; proposer.draws()];
            cx.fill_uniform_at(AttackDraw::Proposal, query, &mut row, &[self.keys[image]]);
            draws.push(row);
        }
        let images: Vec<usize> = proposals.iter().map(|proposal| proposal.image).collect();
        let mut points = self.best.select(&images);
        let changed = points.map(|row, z| {
            let Proposal { image, query, .. } = proposals[row];
            proposers[&query].propose(self.active.x.row(image), z, &draws[row]);
            query == 0 || z != self.best.row(image)
        });
        proposals
            .iter_mut()
            .zip(changed)
            .for_each(|(proposal, changed)| proposal.changed = changed);
        (proposals, points)
    }

    /// Accepts what lowers the margin of an image, by the `logits` of the proposals that change
    /// something. Returns which images are fooled, and the images of refused proposals.
    fn judge(
        &mut self,
        proposals: &[Proposal],
        points: &Rows,
        logits: &Rows,
        confirm: impl Fn(&[f32], usize) -> Result<bool>,
    ) -> Result<(Vec<bool>, Vec<usize>)> {
        let (mut done, mut refused) = (vec![false; self.images.len()], Vec::new());
        let mut rows = logits.each();
        let mut row = 0;
        for proposals in proposals.chunk_by(|a, b| a.image == b.image) {
            let mut accepted = false;
            for (nth, &Proposal { image, query, changed }) in proposals.iter().enumerate() {
                let point = points.row(row);
                row += 1;
                let z = if changed { rows.next() } else { None };
                // What follows was made of a point that is no longer the best.
                if accepted {
                    continue;
                }
                let state = &mut self.images[image];
                state.next = query + 1;
                let Some(z) = z else { continue };
                let y = self.active.labels[image];
                let margin = largest_other(z, y)
                    .map_or(f64::INFINITY, |m| f64::from(z[y]) - f64::from(z[m]));
                done[image] = !stands(z, y) && confirm(point, y)?;
                accepted = query == 0 || margin < state.margin || done[image];
                if accepted {
                    (state.margin, state.ahead) = (margin, nth + 1);
                    self.best.row_mut(image).copy_from_slice(point);
                } else {
                    refused.push(image);
                }
            }
            if !accepted {
                let state = &mut self.images[proposals[0].image];
                state.ahead = (2 * state.ahead).min(ENOUGH);
            }
        }
        Ok((done, refused))
    }

    /// Removes the images that are fooled.
    fn leave(&mut self, done: &[bool]) {
        let keep = self.active.drop_done(done, &self.best);
        self.best.retain(&keep.0);
        rows::keep(&mut self.images, &keep.0);
        rows::keep(&mut self.keys, &keep.0);
    }
}
