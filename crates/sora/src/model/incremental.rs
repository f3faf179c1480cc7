//! Logits of points that differ from known ones in few pixels, for a random search. The first
//! layers are computed again only where they see a changed pixel, the other layers as a whole. The
//! logits equal those of a whole pass up to rounding.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use sora_kernels::conv::ConvGeometry;

use super::{
    Model,
    graph::{Graph, Layer, Norm, Op},
};
use crate::{
    error::Result,
    nn::{
        Activation, Area, Backend, BnMode, ImageMaps, ImageMove, IncrementalConv, Keep, NormValues,
        Precision, Weights, to_vec,
    },
};

/// Layers that are computed only where a pixel has changed (convolutions with their batch norms),
/// and the layer at which they end.
#[derive(Debug)]
pub(crate) struct IncrementalLayers {
    convs: Vec<IncrementalConv>,
    /// Size and number of channels of each map that is kept.
    shapes: Vec<Option<([usize; 2], usize)>>,
    /// The last of these layers; the layers behind it read its result and no other result of these
    /// layers.
    cut: usize,
}

impl Graph {
    /// The last layer with three properties: only convolutions and their batch norms stand before
    /// it, all maps up to it are at least half as high as the image, and later layers read no other
    /// result. `None` where it saves nothing, because there are fewer than two convolutions.
    fn incremental_cut(&self) -> Option<usize> {
        let height = |index: usize| self.layers[index].shape.get(1).copied().unwrap_or(0);
        let supported = |index: usize| match &self.layers[index].op {
            Op::Conv { .. } | Op::Normed => true,
            Op::ConvNorm { norm, .. } => {
                norm.activation.is_none_or(|activation| activation == Activation::Relu)
            }
            _ => false,
        };
        let is_conv = |op: &Op| matches!(op, Op::Conv { .. } | Op::ConvNorm { .. });
        let end = (1..self.layers.len())
            .find(|&index| !supported(index) || 2 * height(index) < height(0))
            .unwrap_or(self.layers.len());
        let is_cut = |cut: &usize| {
            self.last[..*cut].iter().all(|last| last <= cut)
                && !matches!(self.layers[*cut].op, Op::ConvNorm { .. })
        };
        let cut = (1..end).rev().find(is_cut)?;
        let convs = self.layers[..=cut].iter().filter(|layer| is_conv(&layer.op)).count();
        (convs >= 2).then_some(cut)
    }

    /// The layers up to [`incremental_cut`](Self::incremental_cut), with their weights and running
    /// statistics.
    fn incremental_layers(
        &self,
        weights: &Weights,
        buffers: &Weights,
    ) -> Result<Option<IncrementalLayers>> {
        let Some(cut) = self.incremental_cut() else { return Ok(None) };
        let size = |index: usize| match self.layers[index].shape[..] {
            [channels, height, width] => ([height, width], channels),
            _ => ([0; 2], 0),
        };
        let mut shapes = vec![None; cut + 1];
        shapes[0] = Some(size(0));
        let mut convs = Vec::new();
        for (index, Layer { op, inputs, .. }) in self.layers.iter().enumerate().take(cut + 1) {
            let (conv, kernel, behind) = match op {
                Op::Conv { conv, kernel } => (conv, kernel, None),
                Op::ConvNorm { conv, kernel, norm, keep } => (conv, kernel, Some((norm, *keep))),
                _ => continue,
            };
            let (input, in_channels) = size(inputs[0]);
            let geometry = ConvGeometry {
                in_channels,
                out_channels: size(index).1,
                input,
                kernel: [*kernel; 2],
                stride: [conv.stride; 2],
                padding: [conv.padding; 2],
                groups: conv.groups,
            };
            let values = to_vec(&weights.get::<4>(conv.weight))?;
            let mut incremental =
                IncrementalConv::new(geometry, &values, weights.version(conv.weight), inputs[0]);
            incremental.bias = conv.bias.map(|bias| to_vec(&weights.get::<1>(bias))).transpose()?;
            incremental.add = inputs.get(1).copied();
            if behind.is_none_or(|(_, keep)| keep == Keep::Both) {
                incremental.raw = Some(index);
                shapes[index] = Some(size(index));
            }
            if let Some((Norm { norm, activation, .. }, _)) = behind {
                let [gamma, beta] =
                    [norm.weight, norm.bias].map(|id| to_vec(&weights.get::<1>(id)));
                let [mean, variance] = [norm.running_mean, norm.running_var]
                    .map(|id| to_vec(&buffers.buffer::<1>(id)));
                let values = NormValues {
                    gamma: gamma?,
                    beta: beta?,
                    mean: mean?,
                    variance: variance?,
                    relu: activation.is_some(),
                };
                incremental.norm = Some((index + 1, values));
                shapes[index + 1] = Some(size(index + 1));
            }
            convs.push(incremental);
        }
        Ok(Some(IncrementalLayers { convs, shapes, cut }))
    }
}

/// Largest number of bytes of the maps of all images; with larger maps, whole passes are computed.
const MOST_BYTES: usize = 256 << 20;

/// An image that moves, and its maps.
#[derive(Debug)]
pub(crate) struct IncrementalImage {
    pixels: Vec<f32>,
    maps: ImageMaps,
    /// The area that the last move changed, with its pixels. The move becomes final when the next
    /// one comes.
    moved: Area,
    there: Vec<f32>,
}

/// The first layers of a network at points that move a few pixels at a time.
#[derive(Debug)]
pub(crate) struct IncrementalPass<'a> {
    model: &'a Model,
    graph: &'a Graph,
    weights: Weights,
    layers: IncrementalLayers,
    /// Moves for reuse, as many as threads have used at once.
    moves: Mutex<Vec<ImageMove>>,
}

impl<'a> IncrementalPass<'a> {
    /// A pass for `n` images; `None` where the network's first layers are of other kinds, another
    /// backend or precision computes them, or their maps would take too much memory.
    pub(crate) fn new(model: &'a Model, n: usize) -> Result<Option<Self>> {
        let pass = model.pass(BnMode::Eval);
        if pass.backend != Backend::Engine || pass.precision != Precision::F32 {
            return Ok(None);
        }
        let Some(graph) = model.network.graph() else { return Ok(None) };
        let weights = model.params.frozen();
        let Some(layers) = graph.incremental_layers(&weights, &pass.buffers)? else {
            return Ok(None);
        };
        let floats: usize = layers
            .shapes
            .iter()
            .flatten()
            .map(|([height, width], channels)| height * width * channels)
            .sum();
        let fits = floats.saturating_mul(n * size_of::<f32>()) <= MOST_BYTES;
        Ok(fits.then_some(Self { model, graph, weights, layers, moves: Mutex::default() }))
    }

    /// Begins the image `pixels` and its maps.
    pub(crate) fn image(&self, pixels: &[f32]) -> IncrementalImage {
        let mut maps = ImageMaps::new(&self.layers.shapes);
        self.moving(|moving| {
            self.enter(moving, &maps, pixels, Area::whole(self.size()));
            moving.settle(&mut maps);
        });
        IncrementalImage {
            pixels: pixels.to_vec(),
            maps,
            moved: Area::default(),
            there: Vec::new(),
        }
    }

    /// Runs `work` with one of the reusable moves.
    fn moving<R>(&self, work: impl FnOnce(&mut ImageMove) -> R) -> R {
        let pool = || self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = pool().pop();
        let mut moving = kept.unwrap_or_else(|| ImageMove::new(&self.layers.shapes));
        let result = work(&mut moving);
        pool().push(moving);
        result
    }

    /// The network.
    pub(crate) fn model(&self) -> &Model {
        self.model
    }

    fn size(&self) -> [usize; 2] {
        [self.model.config.shape.height, self.model.config.shape.width]
    }

    /// Number of values of an image, over all channels.
    pub(crate) fn row(&self) -> usize {
        let [height, width] = self.size();
        (self.model.config.shape.channels * height * width).max(1)
    }

    /// Begins the move that takes the pixels in `area` from `pixels`, for an image with the maps
    /// `maps`.
    fn enter(&self, moving: &mut ImageMove, maps: &ImageMaps, pixels: &[f32], area: Area) {
        let [height, width] = self.size();
        let (mean, std) = (&self.model.config.mean, &self.model.config.std);
        moving.begin(0, area, |y, x, c| {
            (pixels[(c * height + y) * width + x] - mean[c]) * std[c].recip()
        });
        self.layers.convs.iter().for_each(|conv| moving.apply(conv, maps));
    }

    /// Makes the last move of `image` final, unless it was taken back. The search keeps few of its
    /// moves, so the changes are computed again here instead of being stored.
    fn settle(&self, moving: &mut ImageMove, image: &mut IncrementalImage) {
        let area = std::mem::take(&mut image.moved);
        if area.is_empty() {
            return;
        }
        let mut there = &image.there[..];
        for line in lines(area, self.size(), image.pixels.len()) {
            let (values, rest) = there.split_at(line.len());
            image.pixels[line].copy_from_slice(values);
            there = rest;
        }
        self.enter(moving, &image.maps, &image.pixels, area);
        moving.settle(&mut image.maps);
    }

    /// Moves each image to its point; returns the logits there, one row for each image.
    pub(crate) fn step(&self, mut moves: Vec<(&mut IncrementalImage, &[f32])>) -> Result<Vec<f32>> {
        let Some(([height, width], channels)) = self.layers.shapes[self.layers.cut] else {
            return Ok(Vec::new());
        };
        let stride = moves.len() * channels;
        let mut map = vec![0.0; height * width * stride];
        self.moving(|moving| {
            for (index, (image, point)) in moves.iter_mut().enumerate() {
                self.settle(moving, image);
                image.moved = difference(&image.pixels, point, self.size());
                image.there.clear();
                lines(image.moved, self.size(), image.pixels.len())
                    .for_each(|line| image.there.extend_from_slice(&point[line]));
                self.enter(moving, &image.maps, point, image.moved);
                moving.copy_to(self.layers.cut, &image.maps, &mut map[index * channels..], stride);
            }
        });
        let map = Tensor::<4>::from_data(
            TensorData::new(map, [height, width, moves.len(), channels]),
            self.model.device(),
        );
        let logits = self.graph.forward_from(
            &self.weights,
            self.layers.cut,
            map.into(),
            &mut self.model.pass(BnMode::Eval),
        );
        to_vec(&logits.values)
    }
}

impl IncrementalImage {
    /// Takes the last move back.
    pub(crate) fn back(&mut self) {
        self.moved = Area::default();
    }
}

/// Elements of the rows of `area` in an image of `len` pixels over all channels.
fn lines(
    area: Area,
    [height, width]: [usize; 2],
    len: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let Area { top, left, bottom, right } = area;
    let planes = len / (height * width).max(1);
    (0..planes)
        .flat_map(move |plane| (top..bottom).map(move |y| plane * height + y))
        .map(move |line| line * width + left..line * width + right)
}

/// The smallest area that holds every pixel in which two images differ.
fn difference(a: &[f32], b: &[f32], [height, width]: [usize; 2]) -> Area {
    let mut area = Area::default();
    for (line, (a, b)) in a.chunks(width.max(1)).zip(b.chunks(width.max(1))).enumerate() {
        if a == b {
            continue;
        }
        let differs = |(a, b): (&f32, &f32)| a != b;
        if let (Some(left), Some(last)) =
            (a.iter().zip(b).position(differs), a.iter().zip(b).rposition(differs))
        {
            let y = line % height.max(1);
            area = area.union(Area { top: y, left, bottom: y + 1, right: last + 1 });
        }
    }
    area
}
