//! Weights packed for the direct algorithm.

use crate::conv::geometry::{ConvGeometry, Direction, Mapping};
use crate::isa::Isa;
use crate::simd;

/// Number of `f32` of the packed weights.
pub(in crate::conv) fn packed_len(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
) -> usize {
    let mapping = Mapping::new(geometry, direction);
    let columns = mapping.to.next_multiple_of(simd::tile_columns(isa));
    geometry.groups * geometry.taps() * mapping.from * columns
}

/// Packs weights as `[group][panel][tap][from][TILE_COLUMNS]`; columns beyond the last channel are
/// zero.
pub(in crate::conv) fn pack(
    geometry: &ConvGeometry,
    direction: Direction,
    isa: Isa,
    w: &[f32],
    packed: &mut [f32],
) {
    let mapping = Mapping::new(geometry, direction);
    let (from, to, taps) = (mapping.from, mapping.to, geometry.taps());
    let columns = simd::tile_columns(isa);
    let panel_len = taps * from * columns;
    if panel_len == 0 {
        return;
    }
    let panels = to.div_ceil(columns);
    for (index, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
        let (group, first) = (index / panels, index % panels * columns);
        for (row, values) in panel.chunks_exact_mut(columns).enumerate() {
            let (tap, f) = (row / from, row % from);
            for (column, value) in values.iter_mut().enumerate() {
                let t = first + column;
                *value = if t >= to {
                    0.0
                } else {
                    let (o, i) = match direction {
                        Direction::Forward => (group * to + t, f),
                        Direction::InputGrad => (group * from + f, t),
                    };
                    w[(o * geometry.group_in() + i) * taps + tap]
                };
            }
        }
    }
}
