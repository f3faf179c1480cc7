//! How the direct algorithms cut output pixels and samples into tasks, and in which order a task
//! goes through them.

use super::geometry::{ConvGeometry, Direction, Mapping};
use crate::parallel::block_size;

/// Most samples of a task.
pub(super) const BLOCK_SAMPLES: usize = block_size(256, 5);
/// Largest number of packed weights (`f32`) for which a task goes pixel by pixel: that many stay in
/// the second-level cache.
const FEW_WEIGHTS: usize = block_size(1 << 16, 512);
/// Rows (pixels times samples) that a task aims for.
const TASK_ROWS: usize = block_size(512, 16);

/// How output pixels and samples are cut into tasks.
pub(super) struct Tasks {
    pixels: usize,
    group: usize,
    pub samples: usize,
    blocks: usize,
}

impl Tasks {
    /// Cuts the work into tasks of at most `block` samples.
    pub(super) fn new(
        geometry: &ConvGeometry,
        direction: Direction,
        n: usize,
        block: usize,
    ) -> Self {
        let [h, w] = Mapping::new(geometry, direction).to_size;
        let samples = n.clamp(1, block);
        Self {
            pixels: h * w,
            group: (TASK_ROWS / samples).max(1),
            samples,
            blocks: n.div_ceil(samples),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.pixels.div_ceil(self.group) * self.blocks
    }

    /// Number of outputs per channel of each task.
    pub(super) fn counts(&self, n: usize) -> Vec<usize> {
        let outputs = |task| {
            let (pixels, samples) = self.range(task, n);
            (pixels.1 - pixels.0) * (samples.1 - samples.0)
        };
        (0..self.count()).map(outputs).collect()
    }

    /// The ranges of pixels and samples of a task.
    pub(super) fn range(&self, task: usize, n: usize) -> ((usize, usize), (usize, usize)) {
        let (group, block) = (task / self.blocks, task % self.blocks);
        (
            (group * self.group, ((group + 1) * self.group).min(self.pixels)),
            (block * self.samples, ((block + 1) * self.samples).min(n)),
        )
    }
}

/// The order in which a task goes through its panels and pixels. With many weights it goes panel by
/// panel, so that each panel serves all pixels from a nearby cache. With few weights it goes pixel
/// by pixel, so that each pixel is read and written in one go.
pub(super) fn order(
    pixels: (usize, usize),
    panels: (usize, usize),
    panel_len: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let (first, count, panels) = (panels.0, pixels.1 - pixels.0, panels.1 - panels.0);
    let by_pixel = panels * panel_len <= FEW_WEIGHTS;
    (0..panels * count).map(move |index| {
        let (panel, pixel) = if by_pixel {
            (index % panels, index / panels)
        } else {
            (index / count, index % count)
        };
        (first + panel, pixels.0 + pixel)
    })
}
