//! RayS (Chen and Gu 2020, arXiv 2006.12792). The attack uses the predicted class alone and
//! searches for the corner of the l-inf ball in whose direction the boundary is nearest.
//!
//! A direction is a sign for each value of the image. Blocks of signs, halved level by level, are
//! flipped one after another. A flip is kept where the image is misclassified at the best radius so
//! far; a bisection then shortens that radius. Radii are searched to 1e-3, and all signs begin
//! positive, as in the public code. Departures: where the corner of the box in the first direction
//! does not fool the network, the search continues from the next direction; an image whose radius
//! is within epsilon leaves at once.

use std::{fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackInfo, Passes,
    names::{self, Numbers},
};
use crate::{
    classifier::{Access, stands},
    error::{Error, Result},
    rows::{self, Rows},
    threat::Norm,
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "rays",
    name: "rays[-Q]",
    summary: "decision-based search along rays, from the named class alone, 10000 queries",
    source: "Chen and Gu 2020, arXiv 2006.12792",
    norms: &[Norm::Linf],
    needs: Access::Labels,
    parse: |name, _| Ok(Box::new(name.parse::<RayS>()?)),
};

/// Queries when the attack's name gives no number.
const QUERIES: usize = 10_000;
/// Precision of the radii.
const PRECISION: f32 = 1e-3;

/// Ray search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RayS {
    /// Queries of an image.
    pub queries: usize,
    /// Whether the attack goes on after an adversarial example within epsilon, to find the nearest.
    pub minimise: bool,
}

impl fmt::Display for RayS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell("rays", self.queries, Some(QUERIES), 1))
    }
}

impl FromStr for RayS {
    type Err = Error;

    /// Reads `rays` or `rays-Q`.
    fn from_str(name: &str) -> Result<Self> {
        let Numbers { steps, restarts } = Numbers::after("rays", name)?;
        if restarts != 1 {
            let problem = "draws nothing and has no restarts; expected rays or rays-Q".into();
            return Err(Error::AttackForm { name: name.to_owned(), problem });
        }
        Ok(Self { queries: steps.unwrap_or(QUERIES), minimise: false })
    }
}

/// The search of one image.
#[derive(Clone, Debug)]
struct Ray {
    /// Whether each value increases.
    up: Vec<bool>,
    /// Radius of the nearest point found; `None` before the first.
    best: Option<f32>,
    /// Level of the current block; a level has 2^level blocks. The next field is the index of the
    /// block.
    level: u32,
    block: usize,
    /// The block whose signs are flipped on trial.
    tried: Option<(usize, usize)>,
    /// A bisection: the first radius has no adversarial point, the second has one.
    between: Option<(f32, f32)>,
}

impl Ray {
    fn new(pixels: usize) -> Self {
        let up = vec![true; pixels];
        Self { up, best: None, level: 0, block: 0, tried: None, between: None }
    }

    /// The radius of the next query.
    fn next(&mut self) -> f32 {
        if let Some((low, high)) = self.between {
            return f32::midpoint(low, high);
        }
        // The first query goes along the first direction unchanged.
        if self.best.is_some() || self.tried.is_some() {
            self.change_block();
        } else {
            self.tried = Some((0, 0));
        }
        self.best.unwrap_or(1.0)
    }

    fn change_block(&mut self) {
        let pixels = self.up.len();
        let blocks = 1usize << self.level;
        let size = pixels.div_ceil(blocks);
        let range = (self.block * size).min(pixels)..((self.block + 1) * size).min(pixels);
        self.up[range.clone()].iter_mut().for_each(|up| *up = !*up);
        self.tried = Some((range.start, range.end));
        self.block += 1;
        if self.block * size >= pixels {
            self.block = 0;
            self.level = if size <= 1 { 0 } else { self.level + 1 };
        }
    }

    /// Uses the answer to the last query, which was made at `radius`.
    fn answer(&mut self, radius: f32, fooled: bool) {
        let (low, high) = match (self.between, fooled) {
            (Some((low, _)), true) => (low, radius),
            (Some((_, high)), false) => (radius, high),
            (None, true) => (0.0, radius),
            (None, false) => {
                // Before any point is known, all directions are equally good, so the flip stays.
                if let (Some((start, end)), Some(_)) = (self.tried, self.best) {
                    self.up[start..end].iter_mut().for_each(|up| *up = !*up);
                }
                return;
            }
        };
        if fooled {
            self.best = Some(radius);
        }
        self.between = (high - low > PRECISION).then_some((low, high));
    }

    fn point(&self, x: &[f32], radius: f32, point: &mut [f32]) {
        for ((p, &x), &up) in point.iter_mut().zip(x).zip(&self.up) {
            *p = if up { x + radius } else { x - radius }.clamp(0.0, 1.0);
        }
    }
}

impl Attack for RayS {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let (epsilon, classes) = (cx.threat.epsilon, cx.classes());
        if classes < 2 {
            return Ok(batch.x.clone());
        }
        let mut active = Active::new(batch);
        let mut rays = vec![Ray::new(cx.pixels()); batch.len()];
        let mut point = batch.x.clone();
        for query in 0..self.queries {
            if active.is_empty() {
                break;
            }
            let radii: Vec<f32> = rays.iter_mut().map(Ray::next).collect();
            point.for_each(|i, point| {
                rays[i].point(active.x.row(i), radii[i], point);
            });
            let logits = cx.logits(&point)?;
            let mut done = vec![false; active.len()];
            for (i, ray) in rays.iter_mut().enumerate() {
                let fooled = !stands(logits.row(i), active.labels[i]);
                ray.answer(radii[i], fooled);
                if fooled {
                    active.propose(i, point.row(i));
                    done[i] = !self.minimise && radii[i] <= epsilon;
                }
            }
            let keep = active.leave(&done);
            point.retain(&keep.0);
            rows::keep(&mut rays, &keep.0);
            cx.tick(query + 1, self.queries, active.fooled());
        }
        Ok(active.into_candidates())
    }

    fn key(&self) -> String {
        if self.minimise { format!("{self}-minimise") } else { self.to_string() }
    }

    fn passes(&self, _classes: usize) -> Passes {
        Passes { forward: self.queries, gradient: 0 }
    }

    fn needs(&self) -> Access {
        Access::Labels
    }
}
