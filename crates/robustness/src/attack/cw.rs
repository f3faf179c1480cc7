//! Carlini and Wagner's l2 attack (2017, arXiv 1608.04644, section V): Adam on `||x' - x||^2 + c
//! max(z_y - max_(k != y) z_k, 0)` over w with x' = (tanh w + 1) / 2, and a binary search over c.
//! In l-inf `cw` is [PGD on the margin](super::pgd).
//!
//! 9 searches as in the authors' code, of 100 steps (theirs: up to 10000); learning rate 0.01,
//! confidence 0. c begins where it would just fool a linear network of the same margin and gradient
//! (theirs begins at 0.001), so that the search does not depend on the scale of the logits. An
//! image whose adversarial example lies in the ball leaves at once.

use std::{fmt, str::FromStr};

use super::{
    Active, Attack, AttackBatch, AttackContext, AttackInfo, HALVINGS, Passes, largest_other,
    names::{self, Numbers},
    nearest_between,
    pgd::Pgd,
    registry::BOTH,
};
use crate::{
    classifier::{Access, stands},
    error::{Error, Result},
    rows::{self, Rows},
    threat::Norm,
};

pub(super) const INFO: AttackInfo = AttackInfo {
    base: "cw",
    name: "cw[-K[xR]]",
    summary: "Carlini-Wagner: in l-inf PGD on the margin, 50 steps; in l2 the nearest image by \
         Adam with a binary search over c, 100 steps for each of 9 c",
    source: "Carlini and Wagner 2017, arXiv 1608.04644",
    norms: BOTH,
    needs: Access::Gradients,
    parse: |name, norm| {
        Ok(match norm {
            Norm::Linf => Box::new(Pgd::on_margin(name)?),
            Norm::L2 | Norm::L1 => Box::new(name.parse::<CarliniWagner>()?),
        })
    },
};

/// Steps for each c when the attack's name gives no number, and the number of values of c.
const STEPS: usize = 100;
const SEARCHES: usize = 9;
/// Adam's learning rate and constants.
const RATE: f64 = 0.01;
const BETAS: [f64; 2] = [0.9, 0.999];
/// Keeps images with pixels of 0 and 1 inside the range of tanh.
const INSIDE: f64 = 0.999_999;

/// The l2 attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarliniWagner {
    /// Steps of Adam for each c.
    pub steps: usize,
    /// Number of values of c.
    pub searches: usize,
    /// Whether the attack goes on after an adversarial example within epsilon, to find the nearest;
    /// it then ends with a search on the segment back to the image.
    pub minimise: bool,
}

impl fmt::Display for CarliniWagner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names::spell("cw", self.steps, Some(STEPS), 1))
    }
}

impl FromStr for CarliniWagner {
    type Err = Error;

    /// Reads `cw` or `cw-K`.
    fn from_str(name: &str) -> Result<Self> {
        let Numbers { steps, restarts } = Numbers::after("cw", name)?;
        if restarts != 1 {
            let problem = "has no restarts in l2; expected cw or cw-K".into();
            return Err(Error::AttackForm { name: name.to_owned(), problem });
        }
        Ok(Self { steps: steps.unwrap_or(STEPS), searches: SEARCHES, minimise: false })
    }
}

/// The search for one image's constant.
#[derive(Clone, Copy, Debug)]
struct Constant {
    low: f64,
    high: f64,
    value: f64,
    succeeded: bool,
    /// Length of the shortest adversarial perturbation.
    nearest: f64,
}

impl Constant {
    const START: Self = Self {
        low: 0.0,
        high: f64::INFINITY,
        value: 1.0,
        succeeded: false,
        nearest: f64::INFINITY,
    };

    /// Begins at twice the constant that fools a linear network: `2 margin / |g|^2` for a `margin`
    /// with the gradient g. The start thereby follows the scale of the logits, which can be
    /// anything: the logits of a saturated network lie thousands apart.
    fn begin(&mut self, margin: f64, grad: &[f32]) {
        let value = 4.0 * margin / rows::l2(grad).powi(2);
        if margin > 0.0 && value.is_finite() && value > 0.0 {
            self.value = value;
        }
    }

    fn next(&mut self) {
        if self.succeeded {
            self.high = self.high.min(self.value);
        } else {
            self.low = self.low.max(self.value);
        }
        self.value = if self.high.is_finite() {
            f64::midpoint(self.low, self.high)
        } else {
            self.value * 10.0
        };
        self.succeeded = false;
    }
}

impl Attack for CarliniWagner {
    fn key(&self) -> String {
        let mut key = self.to_string();
        if self.searches != SEARCHES {
            key += &format!("-searches-{}", self.searches);
        }
        if self.minimise { key + "-minimise" } else { key }
    }

    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let (threat, classes) = (cx.threat, cx.classes());
        if classes < 2 {
            return Ok(batch.x.clone());
        }
        let mut active = Active::new(batch);
        let mut constants = vec![Constant::START; batch.len()];
        for search in 0..self.searches {
            let mut adam = Adam::new(&active.x);
            for step in 0..=self.steps {
                if active.is_empty() {
                    break;
                }
                let point = adam.points();
                let back = cx.model.pull_back(&point, &mut |first, logits| {
                    let mut cotangent = vec![0.0; logits.len()];
                    for ((z, c), &y) in logits
                        .chunks(classes)
                        .zip(cotangent.chunks_mut(classes))
                        .zip(&active.labels[first..])
                    {
                        if let Some(m) = largest_other(z, y).filter(|&m| z[y] > z[m]) {
                            (c[y], c[m]) = (1.0, -1.0);
                        }
                    }
                    cotangent
                })?;
                let (logits, grad) =
                    (Rows::new(back.logits, classes), Rows::new(back.grad, cx.pixels()));
                if search == 0 && step == 0 {
                    for (i, constant) in constants.iter_mut().enumerate() {
                        let (z, y) = (logits.row(i), active.labels[i]);
                        let margin = largest_other(z, y).map_or(0.0, |m| z[y] - z[m]);
                        constant.begin(f64::from(margin), grad.row(i));
                    }
                }
                let mut done = vec![false; active.len()];
                for i in 0..active.len() {
                    if !stands(logits.row(i), active.labels[i]) {
                        let point = point.row(i);
                        let distance = rows::distance(Norm::L2, point, active.x.row(i));
                        constants[i].succeeded = true;
                        if distance < constants[i].nearest {
                            constants[i].nearest = distance;
                            active.propose(i, point);
                        }
                        done[i] = !self.minimise && distance <= f64::from(threat.epsilon);
                    }
                }
                let keep = active.leave(&done);
                rows::keep(&mut constants, &keep.0);
                adam.retain(&keep.0);
                if step < self.steps {
                    adam.step(&active.x, &keep.apply(grad), &constants);
                }
                cx.tick(search * self.steps + step, self.searches * self.steps, active.fooled());
            }
            constants.iter_mut().for_each(Constant::next);
        }
        if self.minimise {
            return nearest_between(cx, batch, active.into_candidates());
        }
        Ok(active.into_candidates())
    }

    fn passes(&self, _classes: usize) -> Passes {
        let forward = if self.minimise { HALVINGS } else { 0 };
        Passes { forward, gradient: self.searches * (self.steps + 1) }
    }
}

/// Adam on w, with one image a row.
#[derive(Debug)]
struct Adam {
    /// w, first and second moment of each pixel.
    state: Vec<[f64; 3]>,
    /// Number of values of an image.
    width: usize,
    steps: i32,
}

impl Adam {
    fn new(x: &Rows) -> Self {
        let width = x.width();
        let state =
            x.iter().map(|&x| [((2.0 * f64::from(x) - 1.0) * INSIDE).atanh(), 0.0, 0.0]).collect();
        Self { state, width, steps: 0 }
    }

    fn points(&self) -> Rows {
        let values = self
            .state
            .iter()
            .map(|[w, ..]| (f64::midpoint(w.tanh(), 1.0) as f32).clamp(0.0, 1.0))
            .collect();
        Rows::new(values, self.width)
    }

    /// Makes one step; `grad` is the gradient of the margin by the pixels.
    fn step(&mut self, x: &Rows, grad: &Rows, constants: &[Constant]) {
        use rayon::prelude::*;
        self.steps += 1;
        let correction = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        self.state.par_chunks_mut(self.width.max(1)).enumerate().for_each(|(i, row)| {
            let pixels = x.row(i).iter().zip(grad.row(i));
            for ([w, first, second], (&x, &g)) in row.iter_mut().zip(pixels) {
                let tanh = w.tanh();
                let slope = f64::midpoint(1.0, -tanh * tanh);
                let away = f64::midpoint(tanh, 1.0) - f64::from(x);
                let g = (2.0 * away + constants[i].value * f64::from(g)) * slope;
                *first = BETAS[0] * *first + (1.0 - BETAS[0]) * g;
                *second = BETAS[1] * *second + (1.0 - BETAS[1]) * g * g;
                *w -= RATE * (*first / correction[0]) / ((*second / correction[1]).sqrt() + 1e-8);
            }
        });
    }

    fn retain(&mut self, keep: &[bool]) {
        let width = self.width;
        let mut kept = 0;
        for (i, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            self.state.copy_within(i * width..(i + 1) * width, kept * width);
            kept += 1;
        }
        self.state.truncate(kept * width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_options_have_other_keys() {
        let key = |steps, searches, minimise| CarliniWagner { steps, searches, minimise }.key();
        let usual = [(STEPS, false), (STEPS, true), (7, false), (7, true)];
        let keys = usual.map(|(steps, minimise)| key(steps, SEARCHES, minimise));
        assert_eq!(keys, ["cw", "cw-minimise", "cw-7", "cw-7-minimise"]);
        let mut all = keys.to_vec();
        for searches in [1, 7, 10] {
            all.extend(usual.map(|(steps, minimise)| key(steps, searches, minimise)));
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 16, "{all:?}");
    }

    #[test]
    fn the_constant_is_found_by_halving() {
        let mut constant = Constant::START;
        constant.next();
        assert_eq!((constant.value, constant.low), (10.0, 1.0));
        constant.succeeded = true;
        constant.next();
        assert_eq!((constant.value, constant.high), (5.5, 10.0));
        constant.next();
        assert_eq!(constant.value, 7.75);
    }
}
