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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const KEY: Key = Key { seed: 7, purpose: Purpose::Start, epoch: 2, step: 3 };

    fn first(key: Key, sample: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        key.stream(sample).fill_bytes(&mut bytes);
        bytes
    }

    fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn distinct_keys_give_distinct_streams() {
        let purposes = [
            Purpose::Shuffle,
            Purpose::Augment,
            Purpose::Synthetic,
            Purpose::Split,
            Purpose::Init,
            Purpose::Start,
            Purpose::StepSize,
            Purpose::Dropout,
            Purpose::Method(0),
            Purpose::Method(1),
            Purpose::Attack(0),
            Purpose::Attack(u16::MAX),
            Purpose::Diagnose(0),
            Purpose::Corruption(0),
        ];
        let mut seen = HashSet::new();
        let mut n = 0;
        for seed in [0, 1, u64::MAX] {
            for purpose in purposes {
                for epoch in [0, 1, 1 << 40] {
                    for step in [0, 1, 1 << 40] {
                        for sample in [0, 1, u64::MAX] {
                            seen.insert(first(Key { seed, purpose, epoch, step }, sample));
                            n += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(seen.len(), n);
    }

    proptest! {
        #[test]
        fn any_two_keys_differ(a: (u64, u16, u64, u64, u64), b: (u64, u16, u64, u64, u64)) {
            prop_assume!(a != b);
            let bytes = |k: (u64, u16, u64, u64, u64)| first(
                Key { seed: k.0, purpose: Purpose::Attack(k.1), epoch: k.2, step: k.3 }, k.4);
            prop_assert_ne!(bytes(a), bytes(b));
        }

        #[test]
        fn a_row_depends_on_its_own_sample_only(ids in proptest::collection::vec(any::<u32>(), 1..9), width in 1usize..70) {
            for fill in [fill_uniform, fill_normal, fill_sign] {
                let mut all = vec![0.0; ids.len() * width];
                fill(&mut all, KEY, &ids);
                for (row, id) in all.chunks(width).zip(&ids) {
                    let mut alone = vec![0.0; width];
                    fill(&mut alone, KEY, &[*id]);
                    prop_assert_eq!(row, &alone[..]);
                }
            }
        }
    }

    /// The words are fixed for good, so that runs recorded with one version replay with the next.
    /// They come from an independent ChaCha8 in Python, with the key laid out as documented.
    #[test]
    fn golden_words() {
        let mut stream = stream(1, Purpose::Augment, 2, 3, 4);
        let words: Vec<u32> = (0..4).map(|_| stream.next_u32()).collect();
        assert_eq!(words, GOLDEN);
    }
    const GOLDEN: [u32; 4] = [624_414_472, 864_314_106, 2_526_204_242, 4_139_019_531];

    #[test]
    fn same_bits_for_every_thread_count() {
        let ids: Vec<u32> = (0..37).rev().collect();
        for fill in [fill_uniform, fill_normal, fill_sign] {
            let run = |threads| {
                in_pool(threads, || {
                    let mut out = vec![0.0; 37 * 51];
                    fill(&mut out, KEY, &ids);
                    out
                })
            };
            assert_eq!(run(1), run(4));
        }
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let ids: Vec<u32> = (0..64).collect();
        let n = 64 * 4096;
        let mut out = vec![0.0f32; n];
        let moments = |x: &[f32]| {
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
            (mean, x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64)
        };
        // The bounds are 5 standard errors of the mean, and loose ones for the variance.
        let five_sigma = |variance: f64| 5.0 * (variance / n as f64).sqrt();
        fill_uniform(&mut out, KEY, &ids);
        let (mean, variance) = moments(&out);
        assert!(out.iter().all(|&v| (0.0..1.0).contains(&v)));
        assert!((mean - 0.5).abs() < five_sigma(1.0 / 12.0), "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 1e-3, "{variance}");
        fill_normal(&mut out, KEY, &ids);
        let (mean, variance) = moments(&out);
        assert!(mean.abs() < five_sigma(1.0) && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        fill_sign(&mut out, KEY, &ids);
        let (mean, _) = moments(&out);
        assert!(out.iter().all(|&v| v.abs() == 1.0) && mean.abs() < five_sigma(1.0), "{mean}");
    }

    /// The layers have the same area under the density (Marsaglia and Tsang 2000).
    #[test]
    fn layers_of_the_ziggurat_have_one_area() {
        let layers = normal_layers();
        let density = |x: f64| (-x * x / 2.0).exp();
        assert_eq!((layers[1], layers[256]), (3.654_152_885_361_009, 0.0));
        let area = layers[0] * density(layers[1]);
        for pair in layers[1..].windows(2) {
            let found = pair[0] * (density(pair[1]) - density(pair[0]));
            assert!(pair[0] > pair[1] && (found - area).abs() < 1e-11, "{pair:?} {found} {area}");
        }
    }

    #[test]
    #[should_panic(expected = "do not divide")]
    fn a_ragged_output_is_refused() {
        fill_uniform(&mut [0.0; 5], KEY, &[1, 2]);
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
