//! Random numbers that do not depend on the order of work.
//!
//! Every stream is ChaCha with 8 rounds, a counter-based generator: block `i` of a stream is a
//! function of the key, the stream number and `i` alone. The 256-bit key holds `(seed, purpose,
//! epoch, step)` and the 64-bit stream number holds the sample, each in its own bits, so two
//! different keys can never name the same stream. Any step of a run can be replayed alone, and
//! threads can draw for different samples in any order, to the same bits.

#![forbid(unsafe_code)]

use std::{convert::Infallible, sync::OnceLock};

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// The generator behind [`Key::stream`]; use it through [`rand::Rng`] and [`rand::RngExt`].
pub type Stream = ChaCha8Rng;

/// The purpose of a stream. The numeric values are part of what makes a run reproducible: never
/// reuse or change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Order of the training samples in an epoch.
    Shuffle,
    /// Augmentation of one sample.
    Augment,
    /// Pixels of the synthetic data set.
    Synthetic,
    /// Choice of the validation split.
    Split,
    /// Initial weights.
    Init,
    /// Random start of the perturbation (eta).
    Start,
    /// Random step sizes (SORA's r).
    StepSize,
    /// Any other draw of a training method; the number is the method's own.
    Method(u16),
    /// Draws of an evaluation attack; the number tells attacks and restarts apart.
    Attack(u16),
    /// Dropout and stochastic depth.
    Dropout,
    /// Diagnostics: landscape directions, sanity checks.
    Diagnose(u16),
    /// Draws of a corruption of images; the number tells corruptions and severities apart.
    Corruption(u16),
    /// Order of the extra training images; the epoch counts the passes over them.
    Extra,
}

impl Purpose {
    /// The stable number of the purpose: `family << 16 | sub-number`.
    pub fn number(self) -> u32 {
        let (family, sub) = match self {
            Self::Shuffle => (1u32, 0),
            Self::Augment => (2, 0),
            Self::Synthetic => (3, 0),
            Self::Split => (4, 0),
            Self::Init => (5, 0),
            Self::Start => (6, 0),
            Self::StepSize => (7, 0),
            Self::Method(n) => (8, n),
            Self::Attack(n) => (9, n),
            Self::Dropout => (10, 0),
            Self::Diagnose(n) => (11, n),
            Self::Corruption(n) => (12, n),
            Self::Extra => (13, 0),
        };
        family << 16 | u32::from(sub)
    }
}

/// Names a family of streams, one per sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The run's seed.
    pub seed: u64,
    /// The purpose of the numbers.
    pub purpose: Purpose,
    /// Epoch, or 0 where the draws belong to no epoch.
    pub epoch: u64,
    /// Step within the run, restart of an attack, or another counter of the purpose; 0 where there
    /// is none.
    pub step: u64,
}

impl Key {
    /// A key of epoch 0 and step 0.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Self { seed, purpose, epoch: 0, step: 0 }
    }

    /// The same key at another epoch.
    pub fn at_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// The same key at another step.
    pub fn at_step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// The stream of sample number `sample`, at its beginning.
    pub fn stream(&self, sample: u64) -> Stream {
        let mut stream = ChaCha8Rng::from_seed(self.bytes());
        stream.set_stream(sample);
        stream
    }

    /// The key of the generator, as its eight little-endian words: block `i` of the stream of a sample
    /// is ChaCha's block `i` (64 bits) of stream number `sample` (64 bits) under this key.
    pub fn words(&self) -> [u32; 8] {
        let bytes = self.bytes();
        std::array::from_fn(|i| {
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        })
    }

    fn bytes(&self) -> [u8; 32] {
        let mut key = [0u8; 32];
        key[0..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..12].copy_from_slice(&self.purpose.number().to_le_bytes());
        // The last word of this group separates these streams from any other use of ChaCha with a
        // small key.
        key[12..16].copy_from_slice(b"sora");
        key[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        key[24..32].copy_from_slice(&self.step.to_le_bytes());
        key
    }
}

/// The stream of `(seed, purpose, epoch, step, sample)`; see [`Key::stream`].
///
/// ```
/// use rand::RngExt;
/// use sora_rng::{Purpose, stream};
/// let draw = |sample| -> f64 { stream(0, Purpose::Augment, 2, 0, sample).random() };
/// assert_eq!(draw(7), draw(7));
/// assert_ne!(draw(7), draw(8));
/// ```
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, step: u64, sample: u64) -> Stream {
    Key { seed, purpose, epoch, step }.stream(sample)
}

/// Fills `out` with U[0, 1): multiples of 2^-24, every one equally likely.
///
/// # Shapes
/// `out` is `[samples.len(), anything]`; row `i` is drawn from the stream of `samples[i]`.
///
/// # Panics
/// If `out.len()` is not a multiple of `samples.len()`.
///
/// ```
/// use sora_rng::{Key, Purpose, fill_uniform};
/// let key = Key::new(0, Purpose::Start).at_epoch(1);
/// let (mut two, mut one) = ([0.0; 6], [0.0; 3]);
/// fill_uniform(&mut two, key, &[17, 5]);
/// fill_uniform(&mut one, key, &[5]);
/// assert_eq!(two[3..], one, "a row is a function of its own sample");
/// ```
pub fn fill_uniform(out: &mut [f32], key: Key, samples: &[u32]) {
    rows(out, key, samples, |row, rng| {
        words(row, rng, |word| (word >> 8) as f32 * (1.0 / 16_777_216.0));
    });
}

/// Fills `out` with N(0, 1), drawn by the ziggurat method. Shapes and panics are those of
/// [`fill_uniform`].
pub fn fill_normal(out: &mut [f32], key: Key, samples: &[u32]) {
    rows(out, key, samples, |row, rng| {
        for value in row {
            *value = StandardNormal.sample(rng);
        }
    });
}

/// The edges of the ziggurat from which [`fill_normal`] draws: the width of each of its 256 layers from
/// the bottom up, of which the first is the base with the tail, and 0. The tail begins at the second.
///
/// A program that draws elsewhere to the same values needs them.
pub fn normal_layers() -> &'static [f64; 257] {
    static LAYERS: OnceLock<[f64; 257]> = OnceLock::new();
    LAYERS.get_or_init(|| {
        let mut layers = [0.0; 257];
        for (layer, width) in (0..256).zip(&mut layers) {
            // The sampler itself tells: in the layer of the low byte, the point at half the width (u =
            // 1/2 in its high 52 bits), which a second word of ones accepts where it is in doubt.
            let half: f64 = StandardNormal.sample(&mut Said([0xc << 60 | layer, u64::MAX]));
            *width = 2.0 * half;
        }
        layers
    })
}

/// Says its words again and again.
struct Said([u64; 2]);

impl rand::TryRng for Said {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| word as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.swap(0, 1);
        Ok(self.0[1])
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Fills `out` with -1 or +1, equally likely. Shapes and panics are those of [`fill_uniform`].
pub fn fill_sign(out: &mut [f32], key: Key, samples: &[u32]) {
    rows(out, key, samples, |row, rng| {
        for chunk in row.chunks_mut(32) {
            let bits = rng.next_u32();
            for (i, value) in chunk.iter_mut().enumerate() {
                // The random bit becomes the sign bit of 1.0, which avoids a branch on random data.
                *value = f32::from_bits(1f32.to_bits() | (bits >> i) << 31);
            }
        }
    });
}

/// Runs `fill` on every sample's row with that sample's stream, in parallel.
fn rows(out: &mut [f32], key: Key, samples: &[u32], fill: impl Fn(&mut [f32], &mut Stream) + Sync) {
    if samples.is_empty() {
        assert!(out.is_empty(), "{} values to fill but no samples", out.len());
        return;
    }
    assert!(
        out.len().is_multiple_of(samples.len()),
        "{} values do not divide into {} samples",
        out.len(),
        samples.len()
    );
    let width = out.len() / samples.len();
    if width == 0 {
        return;
    }
    out.par_chunks_mut(width)
        .zip(samples.par_iter())
        .for_each(|(row, &sample)| fill(row, &mut key.stream(u64::from(sample))));
}

/// Maps the stream's next 32-bit words through `map` into `row`, one block at a time, which is
/// quicker than one call per word.
fn words(row: &mut [f32], rng: &mut Stream, map: impl Fn(u32) -> f32) {
    let mut bytes = [0u8; 1024];
    for chunk in row.chunks_mut(bytes.len() / 4) {
        let bytes = &mut bytes[..chunk.len() * 4];
        rng.fill_bytes(bytes);
        let (fours, _) = bytes.as_chunks::<4>();
        for (value, four) in chunk.iter_mut().zip(fours) {
            *value = map(u32::from_le_bytes(*four));
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
