//! Speed of the kernels, shape by shape, next to the peak of the machine in the same run.
//!
//! Work is counted as the floating-point operations of a direct convolution, whatever the
//! algorithm, so Winograd can exceed the peak. Each time is the shortest of several repetitions.
//! Threads are those of rayon's current pool.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use half::bf16;

use crate::batch_norm::{BatchNorm, Statistics};
use crate::buffer::Buffer;
use crate::conv::{
    Addend, Algorithms, Conv2d, ConvAlgorithm, ConvGeometry, Direction, Epilogue, Moments,
};
use crate::element::{Element, Precision};
use crate::error::{ShapeError, extent};
use crate::isa::Isa;
use crate::parallel;
use crate::simd::{Kernel, Simd, dispatch};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Config {
    /// Instruction set.
    pub isa: Isa,
    /// Storage of the activations, one after the other.
    pub precisions: Vec<Precision>,
    /// Channels of the first stage of PreActResNet-18.
    pub width: usize,
    /// Side of the images in pixels.
    pub image: usize,
    /// Images in a batch.
    pub batch: usize,
    /// Seconds for each figure, at least; three repetitions in any case.
    pub seconds: f64,
    /// One algorithm for everything it can compute, instead of the fastest; other shapes are left
    /// out.
    pub algorithm: Option<ConvAlgorithm>,
}

/// One measurement. Its `Display` is a JSON object on one line.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The most that the arithmetic can do, without memory.
    Peak {
        /// `fma` (`f32`), `vdpbf16ps` or `tdpbf16ps`.
        instruction: &'static str,
        /// Threads at work.
        threads: usize,
        /// 10^9 floating-point operations a second.
        gflops: f64,
    },
    /// One direction of a convolution.
    Convolution {
        /// How often the network has this shape.
        count: usize,
        /// The shape.
        geometry: ConvGeometry,
        /// Images in a batch.
        batch: usize,
        /// Storage of the activations.
        precision: Precision,
        /// `forward`, `forward+stats` (with shortcut and statistics), `input-grad`, `weight-grad`,
        /// `pack` (for forward) or `pack-input-grad`.
        direction: &'static str,
        /// The algorithm.
        algorithm: ConvAlgorithm,
        /// Milliseconds.
        ms: f64,
        /// 10^9 operations of a direct convolution a second; 0 for packing.
        gflops: f64,
        /// `gflops` over the peak of the fastest instruction that the precision has on this
        /// instruction set.
        of_peak: f64,
    },
    /// Batch norm with ReLU over `[rows][C]`.
    BatchNorm {
        /// Rows.
        rows: usize,
        /// Channels.
        channels: usize,
        /// Storage of the activations.
        precision: Precision,
        /// `forward`, or `backward` (parameter gradients, input gradient and an added gradient).
        direction: &'static str,
        /// Milliseconds.
        ms: f64,
        /// 10^9 bytes a second read and written.
        gigabytes: f64,
    },
    /// Sum over the network's convolutions.
    Total {
        /// Storage of the activations.
        precision: Precision,
        /// As for a convolution.
        direction: &'static str,
        /// Milliseconds.
        ms: f64,
    },
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Peak { instruction, threads, gflops } => {
                write!(
                    f,
                    r#"{{"kind":"peak","instruction":"{instruction}","threads":{threads},"gflops":{gflops:.1}}}"#
                )
            }
            Record::Convolution {
                count,
                geometry: g,
                batch,
                precision,
                direction,
                algorithm,
                ms,
                gflops,
                of_peak,
            } => write!(
                f,
                r#"{{"kind":"conv","count":{count},"in":{},"out":{},"image":[{},{}],"kernel":{},"stride":{},"batch":{batch},"precision":"{precision}","direction":"{direction}","algorithm":"{}","ms":{ms:.3},"gflops":{gflops:.1},"of_peak":{of_peak:.3}}}"#,
                g.in_channels,
                g.out_channels,
                g.input[0],
                g.input[1],
                g.kernel[0],
                g.stride[0],
                algorithm.name(),
            ),
            Record::BatchNorm { rows, channels, precision, direction, ms, gigabytes } => write!(
                f,
                r#"{{"kind":"batch_norm","rows":{rows},"channels":{channels},"precision":"{precision}","direction":"{direction}","ms":{ms:.3},"gigabytes":{gigabytes:.2}}}"#
            ),
            Record::Total { precision, direction, ms } => {
                write!(
                    f,
                    r#"{{"kind":"total","precision":"{precision}","direction":"{direction}","ms":{ms:.2}}}"#
                )
            }
        }
    }
}

/// Deterministic values in `[-1, 1)`.
fn values<E: Element>(len: usize, seed: u32) -> Buffer<E> {
    let mut state = seed | 1;
    let mut buffer = Buffer::zeroed(len);
    for x in buffer.iter_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *x = E::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0);
    }
    buffer
}

/// Shortest time of `run` in seconds, repeated for `budget` seconds and at least three times.
fn best(budget: f64, mut run: impl FnMut() -> Result<(), ShapeError>) -> Result<f64, ShapeError> {
    let start = Instant::now();
    let (mut best, mut count) = (f64::INFINITY, 0);
    while count < 3 || start.elapsed().as_secs_f64() < budget {
        let t = Instant::now();
        run()?;
        best = best.min(t.elapsed().as_secs_f64());
        count += 1;
    }
    Ok(best.max(1e-9))
}

/// Independent sums, enough to hide the latency of an operation.
const CHAINS: usize = 12;
/// Operations on each of them.
const ROUNDS: usize = 100_000;

/// Fused multiply-adds on registers alone; the number of operations.
struct Fma;

impl Kernel for Fma {
    type Element = f32;
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        // SAFETY: the features are those of the instruction set.
        unsafe {
            let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(1e-3)));
            let mut sums = [b; CHAINS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = sum.mul_add(a, b);
                }
            }
            for sum in sums {
                let mut lanes = [0.0f32; 16];
                sum.store(lanes.as_mut_ptr());
                black_box(lanes);
            }
        }
        2 * ROUNDS * CHAINS * S::LANES
    }
}

/// Rate of `operations` run on every thread of the pool at once.
fn peak(
    instruction: &'static str,
    seconds: f64,
    operations: impl Fn() -> usize + Sync,
) -> Result<Record, ShapeError> {
    let threads = parallel::threads();
    let count = operations();
    let time = best(seconds, || {
        parallel::on_every_thread(|| {
            black_box(operations());
        });
        Ok(())
    })?;
    Ok(Record::Peak { instruction, threads, gflops: (count * threads) as f64 / time / 1e9 })
}

/// The peaks of the instructions that `isa` has: that of `f32`, then that of bf16.
///
/// # Errors
/// Never for an instruction set that the machine has.
pub fn peaks(isa: Isa, seconds: f64) -> Result<Vec<Record>, ShapeError> {
    // SAFETY: the kernel has no conditions of its own.
    let mut peaks = vec![peak("fma", seconds, || unsafe { dispatch(isa, Fma) })?];
    #[cfg(target_arch = "x86_64")]
    if matches!(isa, Isa::Avx512Bf16 | Isa::Amx) && isa.is_available() {
        // SAFETY: the instruction set has just been found.
        peaks.push(peak("vdpbf16ps", seconds, || unsafe { crate::pair_tile::pair_peak(ROUNDS) })?);
    }
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx && isa.is_available() {
        // SAFETY: the instruction set has just been found.
        peaks.push(peak("tdpbf16ps", seconds, || unsafe { crate::amx::peak(1000) })?);
    }
    Ok(peaks)
}

/// The convolutions of PreActResNet-18 on images of `image` pixels a side, and how often each
/// occurs.
#[must_use]
pub fn preact_resnet18(width: usize, image: usize) -> Vec<(usize, ConvGeometry)> {
    let mut shapes = vec![(1, ConvGeometry::square(3, width, [image; 2], 3, 1))];
    for stage in 0..4 {
        let (c, size) = (width << stage, image >> stage);
        if stage > 0 {
            shapes.push((1, ConvGeometry::square(c / 2, c, [size * 2; 2], 3, 2)));
            shapes.push((
                1,
                ConvGeometry {
                    padding: [0; 2],
                    ..ConvGeometry::square(c / 2, c, [size * 2; 2], 1, 2)
                },
            ));
        }
        shapes.push((if stage == 0 { 4 } else { 3 }, ConvGeometry::square(c, c, [size; 2], 3, 1)));
    }
    shapes
}

/// Measures peaks, every convolution and batch norm of the network, and hands each record to
/// `found` as it comes.
///
/// # Errors
/// [`ShapeError`] when a size is zero or too large, or the machine lacks the instruction set.
pub fn run(config: &Config, mut found: impl FnMut(&Record)) -> Result<(), ShapeError> {
    // The widest stage has eight times the channels of the first.
    extent("bench", &[8, config.width, config.image, config.image, config.batch])?;
    let peaks = peaks(config.isa, config.seconds)?;
    peaks.iter().for_each(&mut found);
    let rate = |record: Option<&Record>| match record {
        Some(Record::Peak { gflops, .. }) => *gflops,
        _ => f64::INFINITY,
    };
    for &precision in &config.precisions {
        match precision {
            Precision::F32 => convolutions::<f32>(config, rate(peaks.first()), &mut found)?,
            Precision::Bf16 => convolutions::<bf16>(config, rate(peaks.last()), &mut found)?,
        }
    }
    for &precision in &config.precisions {
        for stage in 0..4 {
            let rows = (config.image >> stage).pow(2) * config.batch;
            match precision {
                Precision::F32 => {
                    batch_norm::<f32>(config, rows, config.width << stage, &mut found)?
                }
                Precision::Bf16 => {
                    batch_norm::<bf16>(config, rows, config.width << stage, &mut found)?
                }
            }
        }
    }
    Ok(())
}

fn convolutions<E: Element>(
    config: &Config,
    peak: f64,
    found: &mut impl FnMut(&Record),
) -> Result<(), ShapeError> {
    const DIRECTIONS: [&str; 6] =
        ["forward", "forward+stats", "input-grad", "weight-grad", "pack", "pack-input-grad"];
    let n = config.batch;
    let mut total = [0.0; DIRECTIONS.len()];
    for (count, geometry) in preact_resnet18(config.width, config.image) {
        let mut conv = Conv2d::<E>::new(geometry, config.isa)?;
        if let Some(algorithm) = config.algorithm {
            if !conv.supports(algorithm) {
                continue;
            }
            conv = conv.with_algorithm(algorithm)?;
        }
        let w = values::<f32>(conv.weight_len(), 3);
        let mut forward = conv.pack(&w, Direction::Forward)?;
        let mut backward = conv.pack(&w, Direction::InputGrad)?;
        let (x, dy) = (values::<E>(conv.input_len(n)?, 4), values::<E>(conv.output_len(n)?, 5));
        let (mut y, mut dx) = (Buffer::<E>::zeroed(dy.len()), Buffer::<E>::zeroed(x.len()));
        let mut dw = vec![0.0; w.len()];
        let (mut mean, mut variance) =
            (vec![0.0; geometry.out_channels], vec![0.0; geometry.out_channels]);
        let flops = 2.0 * dy.len() as f64 * (w.len() / geometry.out_channels.max(1)) as f64;
        let times = [
            best(config.seconds, || conv.forward(n, &x, &forward, &mut y, Epilogue::default()))?,
            best(config.seconds, || {
                let epilogue = Epilogue {
                    add: Addend::Tensor(&dy),
                    moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
                    ..Epilogue::default()
                };
                conv.forward(n, &x, &forward, &mut y, epilogue)
            })?,
            best(config.seconds, || {
                conv.input_grad(n, &dy, &backward, &mut dx, Epilogue::default())
            })?,
            best(config.seconds, || conv.weight_grad(n, &x, &dy, &mut dw))?,
            best(config.seconds, || conv.pack_into(&w, Direction::Forward, &mut forward))?,
            best(config.seconds, || conv.pack_into(&w, Direction::InputGrad, &mut backward))?,
        ];
        let Algorithms { forward, input_grad, weight_grad } = conv.algorithms();
        let algorithms = [forward, forward, input_grad, weight_grad, forward, input_grad];
        for (index, (time, algorithm)) in times.into_iter().zip(algorithms).enumerate() {
            let gflops = if index < 4 { flops / time / 1e9 } else { 0.0 };
            total[index] += count as f64 * time * 1e3;
            found(&Record::Convolution {
                count,
                geometry,
                batch: n,
                precision: E::PRECISION,
                direction: DIRECTIONS[index],
                algorithm,
                ms: time * 1e3,
                gflops,
                of_peak: gflops / peak,
            });
        }
    }
    for (direction, ms) in DIRECTIONS.into_iter().zip(total) {
        found(&Record::Total { precision: E::PRECISION, direction, ms });
    }
    Ok(())
}

fn batch_norm<E: Element>(
    config: &Config,
    rows: usize,
    channels: usize,
    found: &mut impl FnMut(&Record),
) -> Result<(), ShapeError> {
    let len = rows * channels;
    let (x, dy, add) = (values::<E>(len, 1), values::<E>(len, 2), values::<E>(len, 3));
    let (mut y, mut dx) = (Buffer::<E>::zeroed(len), Buffer::<E>::zeroed(len));
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let norm = BatchNorm {
        mean: &zeros,
        variance: &ones,
        gamma: &ones,
        beta: &zeros,
        epsilon: 1e-5,
        relu: true,
    };
    let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
    let forward = best(config.seconds, || norm.forward(config.isa, &x, &mut y))?;
    let backward = best(config.seconds, || {
        norm.parameter_grads(config.isa, &x, &dy, &mut dgamma, &mut dbeta)?;
        let statistics = Statistics::Batch { dgamma: &dgamma, dbeta: &dbeta };
        norm.input_grad(config.isa, &x, &dy, statistics, &mut dx, Addend::Tensor(&add))
    })?;
    // Tensors read or written: x and y; x, dy, x, dy, add and dx.
    for (direction, time, tensors) in [("forward", forward, 2), ("backward", backward, 6)] {
        let gigabytes = (tensors * len * size_of::<E>()) as f64 / time / 1e9;
        found(&Record::BatchNorm {
            rows,
            channels,
            precision: E::PRECISION,
            direction,
            ms: time * 1e3,
            gigabytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_of_a_small_network_is_a_json_line() {
        let config = Config {
            isa: Isa::detect(),
            precisions: vec![Precision::F32, Precision::Bf16],
            width: 4,
            image: 8,
            batch: 2,
            seconds: 0.0,
            algorithm: None,
        };
        let mut lines = Vec::new();
        run(&config, |record| lines.push(record.to_string())).unwrap();
        // Eleven shapes, six figures each and a total, in both precisions; two batch norms of four
        // sizes.
        let count = |kind: &str| {
            lines.iter().filter(|line| line.starts_with(&format!(r#"{{"kind":"{kind}","#))).count()
        };
        assert_eq!((count("conv"), count("total"), count("batch_norm")), (2 * 11 * 6, 12, 16));
        assert!(count("peak") >= 1);
        for line in &lines {
            assert!(
                line.ends_with('}')
                    && !line.contains('\n')
                    && !line.contains("inf")
                    && !line.contains("NaN"),
                "{line}"
            );
        }
    }
}
