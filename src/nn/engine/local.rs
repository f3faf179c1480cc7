//! Convolutions and batch norms of maps of which a few pixels have changed: only the output tiles that read a changed pixel are computed again.
//! In eval mode, in f32. A tile of Winograd's algorithm rounds its outputs a little differently after a change that only their neighbours read, so
//! the results are those of the whole up to rounding; which they are depends on the changes alone.

use std::sync::Arc;

use sora_kernels::{
    Buffer,
    batch_norm::BatchNorm,
    conv::{Addend, Conv2d, ConvGeometry, Direction, Epilogue, Normed, PackedWeights, SITE, Site},
};

use super::{
    flex::{BN_EPSILON, isa, ok},
    packed::packed,
};
use crate::profile::{self, Part};

/// Pixels of a map in rows `top..bottom` and columns `left..right`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) bottom: usize,
    pub(crate) right: usize,
}

impl Area {
    /// All of a map.
    pub(crate) fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, bottom: height, right: width }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.top >= self.bottom || self.left >= self.right
    }

    /// The smallest area that holds both.
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
    fn through(self, g: &ConvGeometry) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        let output = g.output();
        let reach = |d: usize, from: usize, to: usize| {
            let first = (from + g.padding[d]).saturating_sub(g.kernel[d] - 1).div_ceil(g.stride[d]);
            (first, ((to - 1 + g.padding[d]) / g.stride[d] + 1).min(output[d]))
        };
        let ((top, bottom), (left, right)) = (reach(0, self.top, self.bottom), reach(1, self.left, self.right));
        Self { top, left, bottom, right }
    }

    /// The tiles that it touches, of a map of `size`.
    fn tiles(self, [_, width]: [usize; 2]) -> impl Iterator<Item = usize> {
        let (rows, columns) = if self.is_empty() {
            (0..0, 0..0)
        } else {
            (self.top / SITE..(self.bottom - 1) / SITE + 1, self.left / SITE..(self.right - 1) / SITE + 1)
        };
        rows.flat_map(move |row| columns.clone().map(move |column| row * width.div_ceil(SITE) + column))
    }

    /// The pixels of those tiles.
    fn cover(self, [height, width]: [usize; 2]) -> Self {
        if self.is_empty() {
            return self;
        }
        Self {
            top: self.top / SITE * SITE,
            left: self.left / SITE * SITE,
            bottom: self.bottom.next_multiple_of(SITE).min(height),
            right: self.right.next_multiple_of(SITE).min(width),
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
        BatchNorm { mean, variance, gamma, beta, epsilon: BN_EPSILON, relu: *relu }
    }
}

/// A convolution with what follows it; maps are named by number.
#[derive(Debug)]
pub(crate) struct LocalConv {
    kernel: Conv2d<f32>,
    weights: Arc<PackedWeights>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) input: usize,
    pub(crate) add: Option<usize>,
    /// Its own result, where something else than the batch norm reads it.
    pub(crate) raw: Option<usize>,
    pub(crate) norm: Option<(usize, NormValues)>,
}

impl LocalConv {
    /// `weights`, known as `version`, in PyTorch's order.
    pub(crate) fn new(geometry: ConvGeometry, weights: &[f32], version: u64, input: usize) -> Self {
        let kernel = ok(Conv2d::new(geometry, isa()));
        let weights = ok(packed(&kernel, weights, Direction::Forward, version));
        Self { kernel, weights, bias: None, input, add: None, raw: None, norm: None }
    }
}

/// A feature map of one image, `[H, W, C]`.
#[derive(Debug)]
struct Map {
    values: Buffer,
    size: [usize; 2],
    channels: usize,
}

impl Map {
    /// The lines of `area`.
    fn lines(&self, area: Area) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (width, channels) = (self.size[1], self.channels);
        (area.top..area.bottom).map(move |y| (y * width + area.left) * channels..(y * width + area.right) * channels)
    }
}

/// The maps of one image. They lie by themselves, and not beside those of other images: what a few pixels reach stays in a core's cache.
#[derive(Debug)]
pub(crate) struct LocalMaps {
    maps: Vec<Option<Map>>,
    /// Where a map has changed.
    changed: Vec<Area>,
    /// Whether changes can be taken back: from the first [`settle`](Self::settle) on.
    recording: bool,
    /// Map and area that were written, in order, and what was there before.
    saved: Vec<(usize, Area)>,
    before: Vec<f32>,
}

impl LocalMaps {
    /// Maps of the given sizes and channels; all zeros. `None`: no map of this number.
    pub(crate) fn new(shapes: &[Option<([usize; 2], usize)>]) -> Self {
        let map = |([height, width], channels): ([usize; 2], usize)| Map {
            values: Buffer::zeroed(height * width * channels),
            size: [height, width],
            channels,
        };
        let maps = shapes.iter().map(|shape| shape.map(map)).collect();
        Self { maps, changed: vec![Area::default(); shapes.len()], recording: false, saved: Vec::new(), before: Vec::new() }
    }

    /// Forgets what was before: changes from now on can be taken back together.
    pub(crate) fn settle(&mut self) {
        self.recording = true;
        self.changed.fill(Area::default());
        self.saved.clear();
        self.before.clear();
    }

    fn save(&mut self, map: usize, area: Area) {
        let Some(values) = self.maps[map].as_ref().filter(|_| self.recording) else { return };
        self.saved.push((map, area));
        values.lines(area).for_each(|line| self.before.extend_from_slice(&values.values[line]));
    }

    /// Sets map `map` in `area` to what `pixel(y, x, channel)` says.
    pub(crate) fn set(&mut self, map: usize, area: Area, pixel: impl Fn(usize, usize, usize) -> f32) {
        self.save(map, area);
        self.changed[map] = area;
        let Some(Map { values, size: [_, width], channels }) = self.maps[map].as_mut() else { return };
        for y in area.top..area.bottom {
            for x in area.left..area.right {
                let at = (y * *width + x) * *channels;
                values[at..at + *channels].iter_mut().enumerate().for_each(|(c, value)| *value = pixel(y, x, c));
            }
        }
    }

    /// Computes what `conv` makes of the changes.
    pub(crate) fn apply(&mut self, conv: &LocalConv) {
        let g = *conv.kernel.geometry();
        let size = g.output();
        let added = conv.add.map_or(Area::default(), |add| self.changed[add]);
        let area = self.changed[conv.input].through(&g).union(added);
        let targets = [conv.raw, conv.norm.as_ref().map(|(map, _)| *map)];
        for target in targets.into_iter().flatten() {
            self.save(target, area.cover(size));
            self.changed[target] = area;
        }
        let sites: Vec<Site> = area.tiles(size).map(|tile| Site { sample: 0, tile }).collect();
        // Taken out, so that they can be written while the others are read.
        let mut outputs = targets.map(|target| target.and_then(|target| self.maps[target].take()));
        let mut written = outputs.iter_mut().flatten().map(|map| &mut map.values[..]);
        let (first, second) = (written.next(), written.next());
        let read = |map: usize| self.maps[map].as_ref().map_or(&[][..], |map| &map.values[..]);
        let epilogue = Epilogue {
            bias: conv.bias.as_deref(),
            add: conv.add.map_or(Addend::None, |add| Addend::Tensor(read(add))),
            moments: None,
            norm: conv.norm.as_ref().map(|(_, values)| Normed { norm: values.kernel(), y: second }),
        };
        if let Some(y) = first {
            ok(profile::time(Part::ConvForward, || conv.kernel.forward_at(1, read(conv.input), &conv.weights, y, epilogue, &sites)));
        }
        for (target, map) in targets.into_iter().zip(outputs) {
            if let Some(target) = target {
                self.maps[target] = map;
            }
        }
    }

    /// Takes the changes since [`settle`](Self::settle) back.
    pub(crate) fn take_back(&mut self) {
        let mut at = 0;
        for &(map, area) in &self.saved {
            let Some(map) = self.maps[map].as_mut() else { continue };
            for line in map.lines(area) {
                let end = at + line.len();
                map.values[line].copy_from_slice(&self.before[at..end]);
                at = end;
            }
        }
    }

    /// Map `map`, `[H, W, C]`.
    pub(crate) fn map(&self, map: usize) -> &[f32] {
        self.maps[map].as_ref().map_or(&[], |map| &map.values)
    }
}
