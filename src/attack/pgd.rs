//! Projected gradient descent (Madry et al. 2018, arXiv 1706.06083) with restarts (the 50x10 protocol of Wong et al. 2020, arXiv 2001.03994).

use burn::tensor::{Int, Tensor};

use super::{Attack, AttackContext};
use crate::threat::{Norm, clamp_to_box};

/// Steps along the gradient from a random start in the ball; the last iterate counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pgd {
    steps: u64,
    restarts: u64,
}

impl Pgd {
    /// Reads `pgd-K` or `pgd-KxR`, with K and R from 1 to 10000.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("pgd-")?;
        let (steps, restarts) = rest.split_once('x').unwrap_or((rest, "1"));
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| (1..=10_000).contains(n));
        Some(Self { steps: number(steps)?, restarts: number(restarts)? })
    }

    fn alpha(&self, cx: &AttackContext<'_>) -> f32 {
        match (cx.threat.norm, self.steps, self.restarts) {
            (Norm::Linf, 50, 10) => 2.0 / 255.0,
            _ => cx.threat.epsilon / 4.0,
        }
    }
}

impl Attack for Pgd {
    fn run(&self, cx: &mut AttackContext<'_>, x: Tensor<4>, labels: Tensor<1, Int>) -> Tensor<4> {
        let alpha = self.alpha(cx);
        let mut delta = clamp_to_box(&x, cx.threat.random_start(&mut cx.noise, x.dims()));
        for _ in 0..self.steps {
            let grad = cx.gradient(x.clone() + delta.clone(), &labels);
            delta = cx.threat.step(&x, Some(delta), grad, alpha, None, true);
        }
        x + delta
    }

    fn restarts(&self) -> u64 {
        self.restarts
    }

    fn passes(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::Pgd;

    #[test]
    fn names() {
        assert_eq!(Pgd::parse("pgd-10"), Some(Pgd { steps: 10, restarts: 1 }));
        assert_eq!(Pgd::parse("pgd-50x10"), Some(Pgd { steps: 50, restarts: 10 }));
        for wrong in ["pgd", "pgd-", "pgd-0", "pgd-5x", "pgd-5x0", "pgd-x5", "pgd--1", "pgd-99999"] {
            assert_eq!(Pgd::parse(wrong), None, "{wrong}");
        }
    }
}
