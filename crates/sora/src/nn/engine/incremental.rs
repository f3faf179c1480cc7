//! Convolutions and batch norms of maps in which a few pixels have changed, in eval mode and f32.
//! Only the output tiles that read a changed pixel are computed again. After a change that only
//! some outputs of a tile read, Winograd's algorithm rounds the tile's other outputs a little
//! differently, so the results equal those of a whole pass up to rounding. The rounding depends on
//! the changes alone.

use std::sync::Arc;

use sora_kernels::{
    Buffer,
    batch_norm::BatchNorm,
    conv::{
        Addend, Conv2d, ConvGeometry, Direction, Epilogue, Normed, Overlay, PackedWeights, Partial,
        TILE_SIDE, TileIndex,
    },
};

use super::{
    batch_norm::EPSILON,
    flex::{isa, ok},
    packed::packed,
};
use crate::profile::{self, Stage};

/// Pixels of a map in rows `top..bottom` and columns `left..right`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

impl Area {
    /// The area of a whole map.
    pub(crate) fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, bottom: height, right: width }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.top >= self.bottom || self.left >= self.right
    }

    fn holds(self, y: usize, x: usize) -> bool {
        self.top <= y && y < self.bottom && self.left <= x && x < self.right
    }

    /// The smallest area that holds both areas.
    pub(crate) fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self {
            top: self.top.min(other.top),
            left: self.left.min(other.left),
            bottom: self.bottom.max(other.bottom),
            right: self.right.max(other.right),
        }
    }

    /// The outputs of a convolution that read a pixel of this area.
    fn through(self, geometry: &ConvGeometry) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        let output = geometry.output();
        let reach = |d: usize, from: usize, to: usize| {
            let first = (from + geometry.padding[d])
                .saturating_sub(geometry.kernel[d] - 1)
                .div_ceil(geometry.stride[d]);
            (first, ((to - 1 + geometry.padding[d]) / geometry.stride[d] + 1).min(output[d]))
        };
        let ((top, bottom), (left, right)) =
            (reach(0, self.top, self.bottom), reach(1, self.left, self.right));
        Self { top, left, bottom, right }
    }

    /// Indices of the tiles that the area touches, in a map of `size`.
    fn tiles(self, [_, width]: [usize; 2]) -> impl Iterator<Item = usize> {
        let (rows, columns) = if self.is_empty() {
            (0..0, 0..0)
        } else {
            (
                self.top / TILE_SIDE..(self.bottom - 1) / TILE_SIDE + 1,
                self.left / TILE_SIDE..(self.right - 1) / TILE_SIDE + 1,
            )
        };
        rows.flat_map(move |row| {
            columns.clone().map(move |column| row * width.div_ceil(TILE_SIDE) + column)
        })
    }

    /// The pixels of these tiles.
    fn cover(self, [height, width]: [usize; 2]) -> Self {
        if self.is_empty() {
            return self;
        }
        Self {
            top: self.top / TILE_SIDE * TILE_SIDE,
            left: self.left / TILE_SIDE * TILE_SIDE,
            bottom: self.bottom.next_multiple_of(TILE_SIDE).min(height),
            right: self.right.next_multiple_of(TILE_SIDE).min(width),
        }
    }
}

/// A batch norm's running statistics and parameters.
#[derive(Clone, Debug)]
pub(crate) struct NormValues {
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
    pub(crate) relu: bool,
}

impl NormValues {
    fn kernel(&self) -> BatchNorm<'_> {
        let Self { gamma, beta, mean, variance, relu } = self;
        BatchNorm { mean, variance, gamma, beta, epsilon: EPSILON, relu: *relu }
    }
}

/// A convolution with its epilogue; maps are identified by number.
#[derive(Debug)]
pub(crate) struct IncrementalConv {
    kernel: Conv2d<f32>,
    weights: Arc<PackedWeights>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) input: usize,
    pub(crate) add: Option<usize>,
    /// The map of its own result, where another layer than the batch norm reads it.
    pub(crate) raw: Option<usize>,
    pub(crate) norm: Option<(usize, NormValues)>,
}

impl IncrementalConv {
    /// A convolution with `weights` in PyTorch's order, whose content is identified by `version`.
    pub(crate) fn new(geometry: ConvGeometry, weights: &[f32], version: u64, input: usize) -> Self {
        let kernel = ok(Conv2d::new(geometry, isa()));
        let weights = ok(packed(&kernel, weights, Direction::Forward, version));
        Self { kernel, weights, bias: None, input, add: None, raw: None, norm: None }
    }
}

/// The maps of one image, each `[H, W, C]`. They are stored apart from the maps of other images, so
/// that the part that a few pixels reach stays in a core's cache.
#[derive(Debug)]
pub(crate) struct ImageMaps {
    maps: Vec<Buffer>,
}

/// Size and number of channels of each map; `None` where no map has this number.
pub(crate) type Shapes = [Option<([usize; 2], usize)>];

impl ImageMaps {
    /// Maps filled with zeros.
    pub(crate) fn new(shapes: &Shapes) -> Self {
        let len = |&([height, width], channels): &([usize; 2], usize)| height * width * channels;
        Self {
            maps: shapes
                .iter()
                .map(|shape| Buffer::zeroed(shape.as_ref().map_or(0, len)))
                .collect(),
        }
    }
}

/// Values that replace a part of a map.
#[derive(Debug)]
struct MapOverlay {
    /// As long as the map, but read inside `covered` only.
    values: Buffer,
    size: [usize; 2],
    channels: usize,
    /// The pixels that have changed, which later layers must follow.
    changed: Area,
    /// The pixels that `values` holds: `changed`, and the rest of its tiles.
    covered: Area,
}

impl MapOverlay {
    /// The range of elements of the covered pixels in row `y`.
    fn line(&self, y: usize) -> std::ops::Range<usize> {
        let (width, Area { left, right, .. }) = (self.size[1], self.covered);
        (y * width + left) * self.channels..(y * width + right) * self.channels
    }

    fn overlay(&self) -> Overlay<'_> {
        let Area { top, left, bottom, right } = self.covered;
        Overlay { values: &self.values, rows: (top, bottom), columns: (left, right) }
    }
}

/// A move of an image: the changed parts of its maps. One value serves many images in turn and
/// stays in a core's cache, which the maps of all images do not.
#[derive(Debug)]
pub(crate) struct ImageMove {
    overlays: Vec<Option<MapOverlay>>,
}

impl ImageMove {
    pub(crate) fn new(shapes: &Shapes) -> Self {
        let overlay = |(size, channels): ([usize; 2], usize)| {
            let values = Buffer::zeroed(size[0] * size[1] * channels);
            MapOverlay {
                values,
                size,
                channels,
                changed: Area::default(),
                covered: Area::default(),
            }
        };
        Self { overlays: shapes.iter().map(|shape| shape.map(overlay)).collect() }
    }

    /// Begins a move: map `map` takes the values `pixel(y, x, channel)`, which are new inside `area`
    /// alone.
    pub(crate) fn begin(
        &mut self,
        map: usize,
        area: Area,
        pixel: impl Fn(usize, usize, usize) -> f32,
    ) {
        let Some(MapOverlay { values, size, channels, changed, covered }) =
            self.overlays[map].as_mut()
        else {
            return;
        };
        // Whole tiles, because a convolution may add this map.
        (*changed, *covered) = (area, area.cover(*size));
        let width = size[1];
        for y in covered.top..covered.bottom {
            for x in covered.left..covered.right {
                let at = (y * width + x) * *channels;
                values[at..at + *channels]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(c, value)| *value = pixel(y, x, c));
            }
        }
    }

    /// Computes how `conv` changes its outputs, for an image with these maps.
    pub(crate) fn apply(&mut self, conv: &IncrementalConv, ImageMaps { maps }: &ImageMaps) {
        let geometry = *conv.kernel.geometry();
        let size = geometry.output();
        let targets = [conv.raw, conv.norm.as_ref().map(|(map, _)| *map)];
        // The outputs are taken out, so that they can be written while the other maps are read.
        let mut outputs =
            targets.map(|target| target.and_then(|target| self.overlays[target].take()));
        if let Some(input) = &self.overlays[conv.input] {
            let add = conv.add.and_then(|add| Some((&maps[add], self.overlays[add].as_ref()?)));
            let area = input
                .changed
                .through(&geometry)
                .union(add.map_or(Area::default(), |(_, overlay)| overlay.changed));
            outputs
                .iter_mut()
                .flatten()
                .for_each(|map| (map.changed, map.covered) = (area, area.cover(size)));
            let tiles: Vec<TileIndex> =
                area.tiles(size).map(|tile| TileIndex { sample: 0, tile }).collect();
            let mut written = outputs.iter_mut().flatten().map(|map| &mut map.values[..]);
            let (first, second) = (written.next(), written.next());
            let epilogue = Epilogue {
                bias: conv.bias.as_deref(),
                add: add.map_or(Addend::None, |(map, _)| Addend::Tensor(map)),
                moments: None,
                norm: conv
                    .norm
                    .as_ref()
                    .map(|(_, values)| Normed { norm: values.kernel(), y: second }),
            };
            let partial = Partial {
                tiles: &tiles,
                input: Some(input.overlay()),
                add: add.map(|(_, overlay)| overlay.overlay()),
            };
            if let Some(y) = first {
                ok(profile::time(Stage::ConvForward, || {
                    conv.kernel.forward_partial(
                        1,
                        &maps[conv.input],
                        &conv.weights,
                        y,
                        epilogue,
                        partial,
                    )
                }));
            }
        }
        for (target, map) in targets.into_iter().zip(outputs) {
            if let Some(target) = target {
                self.overlays[target] = map;
            }
        }
    }

    /// Writes the changes to the image's maps.
    pub(crate) fn settle(&self, ImageMaps { maps }: &mut ImageMaps) {
        for (map, overlay) in maps.iter_mut().zip(&self.overlays) {
            let Some(overlay) = overlay else { continue };
            for y in overlay.covered.top..overlay.covered.bottom {
                let line = overlay.line(y);
                map[line.clone()].copy_from_slice(&overlay.values[line]);
            }
        }
    }

    /// Writes map `map` of the moved image to `out`, pixel by pixel, at a distance of `stride`
    /// elements.
    pub(crate) fn copy_to(
        &self,
        map: usize,
        ImageMaps { maps }: &ImageMaps,
        out: &mut [f32],
        stride: usize,
    ) {
        let Some(overlay) = &self.overlays[map] else { return };
        let (channels, [height, width]) = (overlay.channels, overlay.size);
        for (pixel, out) in out.chunks_mut(stride.max(1)).take(height * width).enumerate() {
            let values = if overlay.covered.holds(pixel / width, pixel % width) {
                &overlay.values
            } else {
                &maps[map]
            };
            out[..channels].copy_from_slice(&values[pixel * channels..(pixel + 1) * channels]);
        }
    }
}
