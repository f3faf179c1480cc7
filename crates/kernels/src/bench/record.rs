//! What a measurement found.

use std::fmt;

use crate::conv::{ConvAlgorithm, ConvGeometry};
use crate::element::ElementType;

/// One measurement. Its `Display` is a JSON object on one line.
#[derive(Debug, Clone, PartialEq)]
pub enum BenchRecord {
    /// The highest rate of the processor's arithmetic when no memory is involved.
    Peak {
        /// `fma` (`f32`), `vdpbf16ps` or `tdpbf16ps`.
        instruction: &'static str,
        /// Number of threads that computed at once.
        threads: usize,
        /// 10^9 floating-point operations a second.
        gflops: f64,
    },
    /// One direction of a convolution.
    Convolution {
        /// How often the network has this shape.
        count: usize,
        /// Sizes of the convolution.
        geometry: ConvGeometry,
        /// Images in a batch.
        batch: usize,
        /// Storage of the activations.
        precision: ElementType,
        /// `forward`, `forward+stats` (with shortcut and statistics), `input-grad`, `weight-grad`,
        /// `pack` (for forward) or `pack-input-grad`.
        direction: &'static str,
        /// The algorithm that was measured.
        algorithm: ConvAlgorithm,
        /// Milliseconds.
        ms: f64,
        /// 10^9 floating-point operations of a direct convolution a second; 0 for packing.
        gflops: f64,
        /// `gflops` divided by the peak of the fastest instruction that this instruction set has
        /// for the precision.
        of_peak: f64,
    },
    /// Batch norm with ReLU over `[rows][C]`.
    BatchNorm {
        /// Number of rows.
        rows: usize,
        /// Number of channels.
        channels: usize,
        /// Storage of the activations.
        precision: ElementType,
        /// `forward`, or `backward` (parameter gradients and input gradient with an added
        /// gradient).
        direction: &'static str,
        /// Milliseconds.
        ms: f64,
        /// 10^9 bytes read and written a second.
        gigabytes: f64,
    },
    /// Sum of the times of all the network's convolutions.
    Total {
        /// Storage of the activations.
        precision: ElementType,
        /// The direction, with the names of `Convolution`'s.
        direction: &'static str,
        /// Milliseconds.
        ms: f64,
    },
}

impl fmt::Display for BenchRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchRecord::Peak { instruction, threads, gflops } => {
                write!(
                    f,
                    r#"{{"kind":"peak","instruction":"{instruction}","threads":{threads},"gflops":{gflops:.1}}}"#
                )
            }
            BenchRecord::Convolution {
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
            BenchRecord::BatchNorm { rows, channels, precision, direction, ms, gigabytes } => {
                write!(
                    f,
                    r#"{{"kind":"batch_norm","rows":{rows},"channels":{channels},"precision":"{precision}","direction":"{direction}","ms":{ms:.3},"gigabytes":{gigabytes:.2}}}"#
                )
            }
            BenchRecord::Total { precision, direction, ms } => {
                write!(
                    f,
                    r#"{{"kind":"total","precision":"{precision}","direction":"{direction}","ms":{ms:.2}}}"#
                )
            }
        }
    }
}
