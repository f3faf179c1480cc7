//! Where the random numbers of a corruption come from.

use sora_rng::{self as rng, Key, Purpose};

use super::{Corruption, Severity};

/// A source of random numbers.
pub trait Draws {
    /// A number in [0, 1), each as likely.
    fn uniform(&mut self) -> f64;

    /// A number of the standard normal distribution.
    fn normal(&mut self) -> f64;

    /// A whole number in [0, `n`), each as likely; 0 where `n` is 0.
    fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// A number in [`low`, `high`).
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }
}

/// Numbers that are drawn at a time.
const BLOCK: usize = 1024;

/// Draws for one image: a function of seed, corruption, severity and the image's id.
#[derive(Clone, Debug)]
pub struct Seeded {
    uniform: Drawn,
    normal: Drawn,
}

impl Seeded {
    /// The draws of `corruption` at `severity` for the image `id`.
    pub fn new(seed: u64, corruption: Corruption, severity: Severity, id: u32) -> Self {
        let place = Corruption::ALL.iter().position(|&c| c == corruption).unwrap_or_default();
        let number = (place as u16) << 8 | u16::from(severity.number()) << 1;
        let of = |kind| {
            let key = Key::new(seed, Purpose::Corruption(number | kind));
            Drawn { key, id, block: 0, values: Vec::new() }
        };
        Self { uniform: of(0), normal: of(1) }
    }
}

/// Numbers of one distribution, drawn a block at a time.
#[derive(Clone, Debug)]
struct Drawn {
    key: Key,
    id: u32,
    block: u64,
    /// Those not used yet, last first.
    values: Vec<f32>,
}

impl Drawn {
    fn next(&mut self, fill: fn(&mut [f32], Key, &[u32])) -> f64 {
        if self.values.is_empty() {
            self.values = vec![0.0; BLOCK];
            fill(&mut self.values, self.key.at_step(self.block), &[self.id]);
            self.values.reverse();
            self.block += 1;
        }
        f64::from(self.values.pop().unwrap_or_default())
    }
}

impl Draws for Seeded {
    fn uniform(&mut self) -> f64 {
        self.uniform.next(rng::fill_uniform)
    }

    fn normal(&mut self) -> f64 {
        self.normal.next(rng::fill_normal)
    }
}
