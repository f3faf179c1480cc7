//! Weights in the order in which an algorithm reads them.

use super::algorithm::ConvAlgorithm;
#[cfg(target_arch = "x86_64")]
use super::direct_bf16;
use super::geometry::{ConvGeometry, Direction};
use super::{direct, winograd};
use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::parallel::Shared;

/// The convolution, direction, algorithm and instruction set for which weights are packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Layout {
    pub(super) geometry: ConvGeometry,
    pub(super) direction: Direction,
    pub(super) algorithm: ConvAlgorithm,
    pub(super) isa: Isa,
}

impl Layout {
    /// Number of packed weights, in `f32`.
    pub(super) fn len(&self) -> usize {
        let Self { geometry, direction, algorithm, isa } = self;
        match algorithm {
            ConvAlgorithm::Direct => direct::packed_len(geometry, *direction, *isa),
            ConvAlgorithm::Winograd => winograd::packed_len(geometry, *direction, *isa),
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::DirectBf16 => direct_bf16::packed_len(geometry, *direction, *isa),
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::WinogradBf16 => winograd::pairs::packed_len(geometry, *direction),
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 | ConvAlgorithm::WinogradBf16 => 0,
        }
    }

    /// Packs `weights`, which have PyTorch's order and number, into [`Layout::len`] floats.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let Self { geometry, direction, algorithm, isa } = self;
        match algorithm {
            ConvAlgorithm::Direct => direct::pack(geometry, *direction, *isa, weights, packed),
            ConvAlgorithm::Winograd => winograd::pack(geometry, *direction, *isa, weights, packed),
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::DirectBf16 => {
                direct_bf16::pack(geometry, *direction, *isa, weights, packed)
            }
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::WinogradBf16 => {
                winograd::pairs::pack(geometry, *direction, *isa, weights, packed)
            }
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 | ConvAlgorithm::WinogradBf16 => {}
        }
    }
}

/// Weights rearranged for one direction, algorithm and instruction set. They are used until the
/// weights change.
///
/// One value can also serve many convolutions in turn, when each packs its weights just before it
/// uses them ([`Conv2d::pack_into`](super::Conv2d::pack_into)). The memory grows to the size of the
/// largest and stays.
#[derive(Debug, Clone, Default)]
pub struct PackedWeights {
    /// Packed `f32`, or pairs of bf16 in the same space. The buffer is at least as long as the
    /// layout says.
    data: Buffer,
    layout: Option<Layout>,
}

/// The packed weights of a fully connected layer: a panel of columns after the other.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    /// Depths of `f32`, or of pairs of bf16 in the same space; each holds a panel's columns.
    pub(crate) data: Shared,
    /// Distance between panels in floats, which may be more than their depths.
    pub(crate) panel: usize,
    /// Number of depths.
    pub(crate) depth: usize,
    /// Columns of all panels.
    pub(crate) columns: usize,
    /// Whether they hold pairs of bf16, on a processor that multiplies these.
    pub(crate) pairs: bool,
}

impl PackedWeights {
    /// Number of bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Packs `weights`, which the caller has checked against the geometry, into this memory.
    pub(super) fn fill(&mut self, layout: Layout, weights: &[f32]) {
        let len = layout.len();
        if self.data.len() < len {
            self.data = Buffer::zeroed(len);
        }
        layout.pack(weights, &mut self.data[..len]);
        self.layout = Some(layout);
    }

    /// The packed weights, or `None` if they were packed for another layout.
    pub(super) fn of(&self, layout: &Layout) -> Option<Shared> {
        (self.layout.as_ref() == Some(layout)).then(|| Shared::read_only(&self.data))
    }
}
