//! Where the time of a step goes, by part: counters that are always on, at the cost of two clock readings an operation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// A part of the work that is timed on its own. Parts do not contain each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Part {
    /// Convolutions, forward.
    ConvForward,
    /// Gradients of convolutions for their inputs.
    ConvInputGrad,
    /// Gradients of convolutions for their weights.
    ConvWeightGrad,
    /// Batch norm and ReLU, forward.
    NormForward,
    /// Batch norm and ReLU, backward.
    NormBackward,
    /// Packing weights for the kernels.
    Pack,
    /// Changing between image and kernel layout.
    Layout,
    /// Pooling.
    Pool,
    /// Random draws.
    Noise,
    /// The optimizer's update.
    Optimizer,
}

const NAMES: [&str; 10] = [
    "conv_forward",
    "conv_input_grad",
    "conv_weight_grad",
    "norm_forward",
    "norm_backward",
    "pack",
    "layout",
    "pool",
    "noise",
    "optimizer",
];

static NANOSECONDS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// Does `work` and adds its time to `part`.
pub fn time<T>(part: Part, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    NANOSECONDS[part as usize].fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}

/// Seconds of each part since the last call, in a fixed order; sets them back to 0.
pub fn take() -> Vec<(&'static str, f64)> {
    NAMES.iter().zip(&NANOSECONDS).map(|(name, part)| (*name, part.swap(0, Ordering::Relaxed) as f64 * 1e-9)).collect()
}
