//! Sizes of a convolution, and which pixels its taps read.

use crate::error::{ShapeError, extent, padded, parameter};

/// Columns of the widest panel of packed weights on any instruction set.
const WIDEST_PANEL: usize = 32;
/// Most samples that one task gathers.
const MOST_SAMPLES: usize = 1024;
/// Points of a Winograd tile: a packed kernel of nine weights takes 36 floats.
const MOST_POINTS: usize = 36;

/// The sizes of a convolution, apart from the batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the input, in pixels.
    pub input: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride, at least 1.
    pub stride: [usize; 2],
    /// Zero padding above and below, left and right.
    pub padding: [usize; 2],
    /// Number of channel groups; divides both channel counts.
    pub groups: usize,
}

impl ConvGeometry {
    /// A square kernel with stride `stride` and padding `kernel / 2` in one group.
    #[must_use]
    pub fn square(
        in_channels: usize,
        out_channels: usize,
        input: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Self {
        Self {
            in_channels,
            out_channels,
            input,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups: 1,
        }
    }

    /// Height and width of the output; zero where the kernel does not fit into the padded input or
    /// the stride is zero.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|d| {
            let padded = self.input[d].saturating_add(self.padding[d].saturating_mul(2));
            let room = padded.checked_sub(self.kernel[d]);
            room.and_then(|room| room.checked_div(self.stride[d]))
                .map_or(0, |steps| steps.saturating_add(1))
        })
    }

    /// Checks that the geometry describes a convolution, and that no product or index that a kernel
    /// forms of it overflows for a batch of one. [`ConvGeometry::check_batch`] does the same for a
    /// batch.
    pub(super) fn check(&self) -> Result<(), ShapeError> {
        if self.stride.contains(&0) {
            return Err(parameter("stride", "must be at least 1"));
        }
        if self.kernel.contains(&0) {
            return Err(parameter("kernel", "must be at least 1"));
        }
        let is_whole = |channels: usize| {
            channels.checked_rem(self.groups).is_some_and(|remainder| remainder == 0)
        };
        if !is_whole(self.in_channels) || !is_whole(self.out_channels) {
            return Err(parameter(
                "groups",
                format!(
                    "{} groups must divide {} input and {} output channels",
                    self.groups, self.in_channels, self.out_channels
                ),
            ));
        }
        if self.padding[0] >= self.kernel[0] || self.padding[1] >= self.kernel[1] {
            return Err(parameter("padding", "must be smaller than the kernel"));
        }
        self.check_weights()?;
        self.check_batch(1)
    }

    /// Checks the number of weights, packed or not, and of the values that a task gathers for a
    /// pixel.
    fn check_weights(&self) -> Result<(), ShapeError> {
        let taps = extent("kernel", &self.kernel)?;
        for (from, to) in [(self.group_in(), self.group_out()), (self.group_out(), self.group_in())]
        {
            let from = padded("weights", from, WIDEST_PANEL)?;
            let to = padded("weights", to, WIDEST_PANEL)?;
            extent("weights", &[self.groups, from, to, taps.max(MOST_POINTS)])?;
            extent("weights", &[MOST_SAMPLES, from, taps.max(MOST_POINTS)])?;
        }
        Ok(())
    }

    /// Checks that no product or index overflows for a batch of `n`.
    pub(super) fn check_batch(&self, n: usize) -> Result<(), ShapeError> {
        let n = padded("conv batch", n, WIDEST_PANEL)?;
        for (what, size, channels) in [
            ("conv input", self.padded_input()?, self.in_channels),
            ("conv output", self.output(), self.out_channels),
        ] {
            extent(what, &[size[0], size[1], n, padded(what, channels, WIDEST_PANEL)?])?;
        }
        Ok(())
    }

    /// Height and width of the input with its padding.
    fn padded_input(&self) -> Result<[usize; 2], ShapeError> {
        let mut size = [0; 2];
        for (d, size) in size.iter_mut().enumerate() {
            // The kernels form the position of a tap before they compare it with the image, so it
            // must not overflow outside the image either.
            *size = self.padding[d]
                .checked_mul(2)
                .and_then(|padding| padding.checked_add(self.input[d]))
                .ok_or_else(|| ShapeError::Overflow {
                    what: "padded conv input",
                    dims: vec![self.input[d], self.padding[d]],
                })?;
        }
        Ok(size)
    }

    pub(super) fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(super) fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The source coordinate that `tap` of the output pixel at `at` reads, along one dimension of
    /// `size` source pixels; `None` outside the image.
    #[inline(always)]
    pub(super) fn source(
        &self,
        direction: Direction,
        dimension: usize,
        at: usize,
        tap: usize,
        size: usize,
    ) -> Option<usize> {
        let (stride, padding) = (self.stride[dimension], self.padding[dimension]);
        let found = match direction {
            Direction::Forward => (at * stride + tap).checked_sub(padding)?,
            Direction::InputGrad => {
                let scaled = (at + padding).checked_sub(tap)?;
                if scaled % stride != 0 {
                    return None;
                }
                scaled / stride
            }
        };
        (found < size).then_some(found)
    }
}

/// The direction for which weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `y = conv(x, w)`.
    Forward,
    /// `dx = conv^T(dy, w)`.
    InputGrad,
}

/// One direction of a convolution: it computes pixels of `to_size` with `to` channels per group
/// from pixels of `from_size` with `from` channels per group.
pub(super) struct Mapping {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) from_size: [usize; 2],
    pub(super) to_size: [usize; 2],
}

impl Mapping {
    pub(super) fn new(geometry: &ConvGeometry, direction: Direction) -> Self {
        let (input, output) = (geometry.input, geometry.output());
        let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
        match direction {
            Direction::Forward => {
                Self { from: group_in, to: group_out, from_size: input, to_size: output }
            }
            Direction::InputGrad => {
                Self { from: group_out, to: group_in, from_size: output, to_size: input }
            }
        }
    }

    /// Finds the source pixels of output `pixel` that lie inside the image, and their taps.
    #[inline(always)]
    pub(super) fn find_sources(
        &self,
        geometry: &ConvGeometry,
        direction: Direction,
        pixel: usize,
        sources: &mut Vec<(usize, usize)>,
    ) {
        let (y, x) = (pixel / self.to_size[1], pixel % self.to_size[1]);
        sources.clear();
        for ky in 0..geometry.kernel[0] {
            let Some(sy) = geometry.source(direction, 0, y, ky, self.from_size[0]) else {
                continue;
            };
            for kx in 0..geometry.kernel[1] {
                if let Some(sx) = geometry.source(direction, 1, x, kx, self.from_size[1]) {
                    sources.push((sy * self.from_size[1] + sx, ky * geometry.kernel[1] + kx));
                }
            }
        }
    }
}
