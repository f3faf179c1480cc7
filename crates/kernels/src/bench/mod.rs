//! Measures the speed of the kernels, shape by shape, next to the peak of the machine in the same
//! run.
//!
//! Work is counted as the floating-point operations of a direct convolution, whatever the
//! algorithm, so Winograd can exceed the peak. Each time is the shortest of several repetitions.
//! The threads are those of rayon's current pool.

mod network;
mod peak;
mod record;

pub use network::{BenchNetwork, UnknownNetwork};
pub use peak::peaks;
pub use record::BenchRecord;

use half::bf16;

use crate::addend::Addend;
use crate::batch_norm::{BatchNorm, Statistics};
use crate::buffer::Buffer;
use crate::conv::{Algorithms, Conv2d, ConvAlgorithm, Direction, Epilogue, Moments};
use crate::element::{Element, ElementType};
use crate::error::{ShapeError, extent};
use crate::isa::Isa;
use peak::best;

/// What [`run`] measures.
#[derive(Debug, Clone)]
pub struct Config {
    /// Instruction set.
    pub isa: Isa,
    /// Storage types of the activations; they are measured one after the other.
    pub precisions: Vec<ElementType>,
    /// Network whose convolutions are measured.
    pub network: BenchNetwork,
    /// Channels of the network's first stage.
    pub width: usize,
    /// Side of the images in pixels.
    pub image: usize,
    /// Images in a batch.
    pub batch: usize,
    /// Least number of seconds spent on each figure. At least three repetitions run in any case.
    pub seconds: f64,
    /// The one algorithm to measure, for the shapes that it can compute; other shapes are left out.
    /// `None` measures the fastest algorithm of each shape.
    pub algorithm: Option<ConvAlgorithm>,
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

/// Measures the peaks, every convolution and every batch norm of the network, and hands each record
/// to `found` as soon as it is measured.
///
/// # Errors
/// [`ShapeError`] when a size is zero or too large, or the machine lacks the instruction set.
pub fn run(config: &Config, mut found: impl FnMut(&BenchRecord)) -> Result<(), ShapeError> {
    // The widest layer has 32 times the channels of the first stage.
    extent("bench", &[32, config.width, config.image, config.image, config.batch])?;
    let peaks = peaks(config.isa, config.seconds)?;
    peaks.iter().for_each(&mut found);
    let rate = |record: Option<&BenchRecord>| match record {
        Some(BenchRecord::Peak { gflops, .. }) => *gflops,
        _ => f64::INFINITY,
    };
    for &precision in &config.precisions {
        match precision {
            ElementType::F32 => convolutions::<f32>(config, rate(peaks.first()), &mut found)?,
            ElementType::Bf16 => convolutions::<bf16>(config, rate(peaks.last()), &mut found)?,
        }
    }
    for &precision in &config.precisions {
        for (pixels, channels) in config.network.norms(config.width, config.image) {
            let rows = pixels * config.batch;
            match precision {
                ElementType::F32 => batch_norm::<f32>(config, rows, channels, &mut found)?,
                ElementType::Bf16 => batch_norm::<bf16>(config, rows, channels, &mut found)?,
            }
        }
    }
    Ok(())
}

/// The directions that are measured of each convolution.
const DIRECTIONS: [&str; 6] =
    ["forward", "forward+stats", "input-grad", "weight-grad", "pack", "pack-input-grad"];

fn convolutions<E: Element>(
    config: &Config,
    peak: f64,
    found: &mut impl FnMut(&BenchRecord),
) -> Result<(), ShapeError> {
    let n = config.batch;
    let mut total = [0.0; DIRECTIONS.len()];
    for (count, geometry) in config.network.convolutions(config.width, config.image) {
        let mut conv = Conv2d::<E>::new(geometry, config.isa)?;
        if let Some(algorithm) = config.algorithm {
            if !conv.supports(algorithm) {
                continue;
            }
            conv = conv.with_algorithm(algorithm)?;
        }
        let taps = conv.weight_len() / geometry.out_channels.max(1);
        let flops = 2.0 * conv.output_len(n)? as f64 * taps as f64;
        let Algorithms { forward, input_grad, weight_grad } = conv.algorithms();
        let algorithms = [forward, forward, input_grad, weight_grad, forward, input_grad];
        let times = times(&conv, n, config.seconds)?;
        for (index, (time, algorithm)) in times.into_iter().zip(algorithms).enumerate() {
            let gflops = if index < 4 { flops / time / 1e9 } else { 0.0 };
            total[index] += count as f64 * time * 1e3;
            found(&BenchRecord::Convolution {
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
        found(&BenchRecord::Total { precision: E::PRECISION, direction, ms });
    }
    Ok(())
}

/// Returns the seconds of each of [`DIRECTIONS`].
fn times<E: Element>(
    conv: &Conv2d<E>,
    n: usize,
    seconds: f64,
) -> Result<[f64; DIRECTIONS.len()], ShapeError> {
    let w = values::<f32>(conv.weight_len(), 3);
    let mut forward = conv.pack(&w, Direction::Forward)?;
    let mut backward = conv.pack(&w, Direction::InputGrad)?;
    let (x, dy) = (values::<E>(conv.input_len(n)?, 4), values::<E>(conv.output_len(n)?, 5));
    let (mut y, mut dx) = (Buffer::<E>::zeroed(dy.len()), Buffer::<E>::zeroed(x.len()));
    let mut dw = vec![0.0; w.len()];
    let channels = conv.geometry().out_channels;
    let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
    Ok([
        best(seconds, || conv.forward(n, &x, &forward, &mut y, Epilogue::default()))?,
        best(seconds, || {
            let epilogue = Epilogue {
                add: Addend::Tensor(&dy),
                moments: Some(Moments { mean: &mut mean, variance: &mut variance }),
                ..Epilogue::default()
            };
            conv.forward(n, &x, &forward, &mut y, epilogue)
        })?,
        best(seconds, || conv.input_grad(n, &dy, &backward, &mut dx, Epilogue::default()))?,
        best(seconds, || conv.weight_grad(n, &x, &dy, &mut dw))?,
        best(seconds, || conv.pack_into(&w, Direction::Forward, &mut forward))?,
        best(seconds, || conv.pack_into(&w, Direction::InputGrad, &mut backward))?,
    ])
}

fn batch_norm<E: Element>(
    config: &Config,
    rows: usize,
    channels: usize,
    found: &mut impl FnMut(&BenchRecord),
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
    // The forward pass reads x and writes y: 2 tensors. The backward pass reads x and dy twice and
    // `add` once, and writes dx: 6 tensors.
    for (direction, time, tensors) in [("forward", forward, 2), ("backward", backward, 6)] {
        let gigabytes = (tensors * len * size_of::<E>()) as f64 / time / 1e9;
        found(&BenchRecord::BatchNorm {
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
    #[cfg_attr(miri, ignore = "millions of operations")]
    fn every_record_of_a_small_network_is_a_json_line() {
        let config = Config {
            isa: Isa::detect(),
            precisions: vec![ElementType::F32, ElementType::Bf16],
            network: BenchNetwork::PreactResnet18,
            width: 4,
            image: 8,
            batch: 2,
            seconds: 0.0,
            algorithm: None,
        };
        let mut lines = Vec::new();
        run(&config, |record| lines.push(record.to_string())).unwrap();
        // In both precisions: eleven shapes with six figures each, and a total; batch norms of four
        // sizes with two figures each.
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
