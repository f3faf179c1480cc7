//! Plans how the weight gradient goes through images and samples.

use crate::amx;
use crate::conv::geometry::{ConvGeometry, Direction};

/// Pixels times samples that a step aims for: a product this long hides the cost of loading and
/// storing its sums.
const STEP_ROWS: usize = 1024;

/// The work of a weight gradient, cut into units of one block of samples and one step of output
/// rows.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Samples of a block, a multiple of 32.
    pub(super) samples: usize,
    pub(super) sample_blocks: usize,
    /// Output rows of a step.
    pub(super) step_rows: usize,
    /// Number of steps from the top of the image to its bottom.
    pub(super) steps: usize,
    /// Number of input rows that the ring holds.
    pub(super) ring: usize,
}

impl Plan {
    pub(super) fn new(geometry: &ConvGeometry, n: usize) -> Self {
        let [height, width] = geometry.output();
        let samples = (STEP_ROWS / width)
            .next_multiple_of(amx::STEP)
            .clamp(amx::STEP, n.next_multiple_of(amx::STEP));
        let step_rows = (STEP_ROWS / (width * samples)).clamp(1, height);
        let ring =
            ((step_rows - 1) * geometry.stride[0] + geometry.kernel[0]).min(geometry.input[0]);
        Self {
            samples,
            sample_blocks: n.div_ceil(samples),
            step_rows,
            steps: height.div_ceil(step_rows),
            ring,
        }
    }
}

/// Which input rows (dimension 0) or columns (1) at least one output reads.
pub(super) fn used(geometry: &ConvGeometry, dimension: usize) -> Vec<bool> {
    let size = geometry.input[dimension];
    let mut used = vec![false; size];
    for at in 0..geometry.output()[dimension] {
        for tap in 0..geometry.kernel[dimension] {
            if let Some(found) = geometry.source(Direction::Forward, dimension, at, tap, size) {
                used[found] = true;
            }
        }
    }
    used
}
