//! Carlini and Wagner's l2 attack (2017, arXiv 1608.04644, section V): Adam on `||x' - x||^2 + c
//! max(z_y - max_(k != y) z_k, 0)` over w with x' = (tanh w + 1) / 2, and a binary search over c.
//! In l-inf `cw` is [PGD on the margin](super::pgd).
//!
//! 9 searches as in the authors' code, from c = 1 (theirs: 0.001), of 100 steps (theirs: up to
//! 10000); learning rate 0.01, confidence 0. An image whose adversarial example lies in the ball
//! leaves at once.

use super::{
    Active, Attack, AttackContext, Batch, Numbers, largest_other, nearest_between, rows, stands,
};
use crate::{error::Result, threat::Norm};

/// Adam's learning rate and constants.
const RATE: f64 = 0.01;
const BETAS: [f64; 2] = [0.9, 0.999];
/// A bound on c that counts as none.
const UNBOUNDED: f64 = 1e10;
/// Keeps images with pixels of 0 and 1 inside the range of tanh.
const INSIDE: f64 = 0.999_999;

/// The l2 attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarliniWagner {
    /// Steps of Adam for each c.
    pub steps: usize,
    /// Values of c.
    pub searches: usize,
    /// Goes on after an adversarial example within epsilon, to find the nearest, and ends with a
    /// search on the way back to the image.
    pub minimise: bool,
}

impl CarliniWagner {
    /// Reads `cw` or `cw-K`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let Numbers { steps, restarts } = Numbers::after("cw", name)?;
        (restarts == 1).then_some(Self {
            steps: steps.unwrap_or(100),
            searches: 9,
            minimise: false,
        })
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
    const START: Self =
        Self { low: 0.0, high: UNBOUNDED, value: 1.0, succeeded: false, nearest: f64::INFINITY };

    fn next(&mut self) {
        if self.succeeded {
            self.high = self.high.min(self.value);
        } else {
            self.low = self.low.max(self.value);
        }
        self.value = if self.high < UNBOUNDED {
            f64::midpoint(self.low, self.high)
        } else {
            self.value * 10.0
        };
        self.succeeded = false;
    }
}

impl Attack for CarliniWagner {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let (threat, width, classes) = (cx.threat, cx.pixels(), cx.classes());
        if classes < 2 {
            return Ok(batch.x.to_vec());
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
                let mut done = vec![false; active.len()];
                for i in 0..active.len() {
                    if !stands(rows::row(&back.logits, classes, i), active.labels[i]) {
                        let point = rows::row(&point, width, i);
                        let distance =
                            rows::distance(Norm::L2, point, rows::row(&active.x, width, i));
                        constants[i].succeeded = true;
                        if distance < constants[i].nearest {
                            constants[i].nearest = distance;
                            active.propose(i, point);
                        }
                        done[i] = !self.minimise && distance <= f64::from(threat.epsilon);
                    }
                }
                let keep = active.leave(&done, width);
                rows::retain(&mut constants, 1, &keep.0);
                adam.retain(&keep.0, width);
                if step < self.steps {
                    adam.step(&active.x, &keep.apply(back.grad, width), &constants, width);
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
}

/// Adam on w, an image a row.
#[derive(Debug)]
struct Adam {
    /// w, first and second moment of each pixel.
    state: Vec<[f64; 3]>,
    steps: i32,
}

impl Adam {
    fn new(x: &[f32]) -> Self {
        let state =
            x.iter().map(|&x| [((2.0 * f64::from(x) - 1.0) * INSIDE).atanh(), 0.0, 0.0]).collect();
        Self { state, steps: 0 }
    }

    fn points(&self) -> Vec<f32> {
        self.state
            .iter()
            .map(|[w, ..]| (f64::midpoint(w.tanh(), 1.0) as f32).clamp(0.0, 1.0))
            .collect()
    }

    /// A step; `grad` is the gradient of the margin for the pixels.
    fn step(&mut self, x: &[f32], grad: &[f32], constants: &[Constant], width: usize) {
        use rayon::prelude::*;
        self.steps += 1;
        let correction = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        self.state.par_chunks_mut(width).enumerate().for_each(|(i, row)| {
            let pixels = rows::row(x, width, i).iter().zip(rows::row(grad, width, i));
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

    fn retain(&mut self, keep: &[bool], width: usize) {
        rows::retain(&mut self.state, width, keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
