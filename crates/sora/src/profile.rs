//! The time of a step by stage, from counters that are always on and cost two clock readings per
//! operation.
//!
//! Stages may be nested; each counts only the time outside of inner stages, so that their sum is
//! the time of the outermost stage. The counters belong to the process, because an operation of the
//! engine is a function without a handle (see `nn/engine`); an atomic addition is their whole cost.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::names::named;

/// A stage of the work that is timed on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// Convolutions, forward.
    ConvForward,
    /// Gradients of convolutions for their inputs.
    ConvInputGrad,
    /// Gradients of convolutions for their weights.
    ConvWeightGrad,
    /// Batch norm and ReLU, forward.
    NormForward,
    /// Batch norm and ReLU computed again for the weight gradient of the convolution behind them.
    NormAgain,
    /// Batch norm and ReLU, backward.
    NormBackward,
    /// Packing weights for the kernels.
    Pack,
    /// Normalising images, and converting between image and kernel layout.
    Layout,
    /// Pooling.
    Pool,
    /// Fully connected layers.
    Linear,
    /// Other layers: layer norm, GELU.
    Pointwise,
    /// Attention of tokens to tokens.
    Attention,
    /// The rest of the forward passes: recording of operations, views of the weights, layers
    /// without a kernel.
    Network,
    /// The rest of the backward passes: their bookkeeping, gradient additions, layers without a
    /// kernel.
    Autodiff,
    /// The loss.
    Loss,
    /// Random draws.
    Noise,
    /// Perturbation arithmetic, and other work of a method between the passes.
    Perturbation,
    /// The figures of the log: accuracy, PertAlign, linearity.
    Metrics,
    /// Running statistics.
    Statistics,
    /// The optimizer's update.
    Optimizer,
    /// Waiting for the loader, and making tensors of a batch.
    Loader,
    /// Writing the log.
    Log,
    /// Sums over the ranks of a training on several processes, the wait for the slowest included.
    Ranks,
}

named!(Stage, "stage":
    ConvForward = "conv_forward",
    ConvInputGrad = "conv_input_grad",
    ConvWeightGrad = "conv_weight_grad",
    NormForward = "norm_forward",
    NormAgain = "norm_again",
    NormBackward = "norm_backward",
    Pack = "pack",
    Layout = "layout",
    Pool = "pool",
    Linear = "linear",
    Pointwise = "pointwise",
    Attention = "attention",
    Network = "network",
    Autodiff = "autodiff",
    Loss = "loss",
    Noise = "noise",
    Perturbation = "perturbation",
    Metrics = "metrics",
    Statistics = "statistics",
    Optimizer = "optimizer",
    Loader = "loader",
    Log = "log",
    Ranks = "ranks",
);

static NANOSECONDS: [AtomicU64; Stage::ALL.len()] = [const { AtomicU64::new(0) }; Stage::ALL.len()];

thread_local! {
    /// The stage that this thread is in, and its beginning.
    static INSIDE: Cell<Option<(Stage, Instant)>> = const { Cell::new(None) };
}

fn count((stage, since): (Stage, Instant), until: Instant) {
    NANOSECONDS[stage as usize]
        .fetch_add(until.duration_since(since).as_nanos() as u64, Ordering::Relaxed);
}

/// Ends a stage, also when its work panics.
struct Inside {
    outer: Option<Stage>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(inner) = INSIDE.replace(self.outer.map(|part| (part, now))) {
            count(inner, now);
        }
    }
}

/// Runs `work` and adds its time to `stage`, without the time of stages inside it.
pub fn time<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    let now = Instant::now();
    let outer = INSIDE.replace(Some((stage, now)));
    if let Some(outer) = outer {
        count(outer, now);
    }
    let _inside = Inside { outer: outer.map(|(part, _)| part) };
    work()
}

/// Seconds of each stage since the last call, in a fixed order; the call resets them to 0.
pub fn take() -> Vec<(&'static str, f64)> {
    Stage::NAMES
        .iter()
        .zip(&NANOSECONDS)
        .map(|(name, stage)| (*name, stage.swap(0, Ordering::Relaxed) as f64 * 1e-9))
        .collect()
}

/// Number of page faults of this process so far that needed no disk: each is a page of memory used
/// for the first time; `None` where the platform does not tell.
pub fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name in brackets, may hold spaces; the faults are the eighth
    // field after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{thread::sleep, time::Duration};

    use super::*;

    #[test]
    fn a_stage_does_not_count_what_is_inside_another() {
        let inside = || INSIDE.get().map(|(part, _)| part);
        time(Stage::Perturbation, || {
            assert_eq!(inside(), Some(Stage::Perturbation));
            time(Stage::Loss, || assert_eq!(inside(), Some(Stage::Loss)));
            assert_eq!(inside(), Some(Stage::Perturbation));
            let caught =
                std::panic::catch_unwind(|| time(Stage::Metrics, || panic!("for the test")));
            assert!(caught.is_err());
            assert_eq!(inside(), Some(Stage::Perturbation), "also after a panic");
        });
        assert_eq!(inside(), None);
        let before = NANOSECONDS[Stage::Log as usize].load(Ordering::Relaxed);
        time(Stage::Log, || sleep(Duration::from_millis(3)));
        assert!(NANOSECONDS[Stage::Log as usize].load(Ordering::Relaxed) - before >= 3_000_000);
    }

    #[test]
    fn counters_lie_in_the_order_of_the_names() {
        for (index, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!((*stage as usize, stage.name()), (index, Stage::NAMES[index]));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn touching_memory_costs_page_faults() {
        let before = page_faults().unwrap();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(page_faults().unwrap() > before);
        drop(touched);
    }
}
