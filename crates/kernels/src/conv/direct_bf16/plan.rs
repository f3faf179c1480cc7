//! Plans how the weight gradient goes through images and samples.

use crate::amx;
use crate::conv::geometry::{ConvGeometry, Direction};
use crate::isa::Isa;

/// The convolution that is multiplied, and its batch. A kernel of one tap without stride or padding
/// is one matrix product over the pixels of all samples, as if each were an image of one pixel.
pub(super) fn as_product(geometry: &ConvGeometry, n: usize, isa: Isa) -> (ConvGeometry, usize) {
    let is_product = geometry.kernel == [1; 2] && geometry.stride == [1; 2];
    // Products of AMX tiles take 32 samples at a time, whatever the image.
    if !is_product || isa == Isa::Amx {
        return (*geometry, n);
    }
    let [height, width] = geometry.input;
    (ConvGeometry { input: [1; 2], ..*geometry }, height * width * n)
}

/// Pixels times samples that a step aims for: a product this long hides the cost of loading and
/// storing its sums. Kernels of one tap have larger blocks of channels, whose operands would not
/// stay in the second-level cache.
const STEP_ROWS: usize = 1024;
const STEP_ROWS_OF_ONE_TAP: usize = 256;
/// Most input and output channels of a task, for kernels of several taps and of one. With one tap,
/// every value of an operand serves one product alone, so a task needs more channels to pay for
/// making its operands.
const BLOCK: [usize; 2] = [64, 128];
const BLOCK_OF_ONE_TAP: [usize; 2] = [256, 256];

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
    /// Most input and output channels of a task.
    pub(super) block: [usize; 2],
}

impl Plan {
    pub(super) fn new(geometry: &ConvGeometry, n: usize) -> Self {
        let [height, width] = geometry.output();
        let one_tap = geometry.taps() == 1;
        let rows = if one_tap { STEP_ROWS_OF_ONE_TAP } else { STEP_ROWS };
        let samples = (rows / width)
            .next_multiple_of(amx::STEP)
            .clamp(amx::STEP, n.next_multiple_of(amx::STEP));
        let step_rows = (rows / (width * samples)).clamp(1, height);
        let ring =
            ((step_rows - 1) * geometry.stride[0] + geometry.kernel[0]).min(geometry.input[0]);
        Self {
            samples,
            sample_blocks: n.div_ceil(samples),
            step_rows,
            steps: height.div_ceil(step_rows),
            ring,
            block: if one_tap { BLOCK_OF_ONE_TAP } else { BLOCK },
        }
    }

    /// Number of units.
    pub(super) fn units(&self) -> usize {
        self.sample_blocks * self.steps
    }

    /// Number of values of the left and the right operand of a step, for `padded` channels each.
    pub(super) fn operand_lens(&self, geometry: &ConvGeometry, padded: [usize; 2]) -> [usize; 2] {
        let pixels = [self.ring * geometry.input[1], self.step_rows * geometry.output()[1]];
        [0, 1].map(|side| pixels[side] * padded[side] * self.samples)
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
