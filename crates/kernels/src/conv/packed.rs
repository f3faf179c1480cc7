//! Weights in the order in which an algorithm reads them.

use super::algorithm::ConvAlgorithm;
#[cfg(target_arch = "x86_64")]
use super::direct_bf16;
use super::geometry::{ConvGeometry, Direction};
use super::{direct, winograd};
use crate::buffer::Buffer;
use crate::isa::Isa;
use crate::parallel::Shared;

/// What weights are packed for.
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
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 => 0,
        }
    }

    /// Packs `weights`, in PyTorch's order and number, into [`Layout::len`] floats.
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let Self { geometry, direction, algorithm, isa } = self;
        match algorithm {
            ConvAlgorithm::Direct => direct::pack(geometry, *direction, *isa, weights, packed),
            ConvAlgorithm::Winograd => winograd::pack(geometry, *direction, *isa, weights, packed),
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::DirectBf16 => {
                direct_bf16::pack(geometry, *direction, *isa, weights, packed)
            }
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 => {}
        }
    }
}

/// Weights rearranged for one direction, algorithm and instruction set. Reused until the weights
/// change.
///
/// One value can also serve many convolutions in turn, each packing its weights when it needs them
/// ([`Conv2d::pack_into`](super::Conv2d::pack_into)): its memory grows to the largest and stays.
#[derive(Debug, Clone, Default)]
pub struct PackedWeights {
    /// `f32`, or pairs of bf16 in as much space. At least as long as the layout says.
    data: Buffer,
    layout: Option<Layout>,
}

impl PackedWeights {
    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Packs `weights`, as many as the geometry has, reusing this memory.
    pub(super) fn fill(&mut self, layout: Layout, weights: &[f32]) {
        let len = layout.len();
        if self.data.len() < len {
            self.data = Buffer::zeroed(len);
        }
        layout.pack(weights, &mut self.data[..len]);
        self.layout = Some(layout);
    }

    /// The weights, if they were packed for `layout`.
    pub(super) fn of(&self, layout: &Layout) -> Option<Shared> {
        (self.layout.as_ref() == Some(layout)).then(|| Shared::read_only(&self.data))
    }
}
