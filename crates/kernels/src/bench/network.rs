//! The convolutions of the networks that the measurement knows.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::conv::ConvGeometry;

/// A network whose convolutions and batch norms are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchNetwork {
    /// PreActResNet-18 with its 3x3 stem at full resolution.
    PreactResnet18,
    /// ResNet-18 with the stem for ImageNet: a 7x7 convolution of stride 2 and a max pool.
    Resnet18,
    /// ResNet-50 with the stem for ImageNet; the stride of a block is in its 3x3 convolution.
    Resnet50,
}

/// The error for a name that no network has; it holds the name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown network {0:?}: expected preact-resnet18, resnet18 or resnet50")]
pub struct UnknownNetwork(String);

/// Convolutions, and how often each occurs.
type Shapes = Vec<(usize, ConvGeometry)>;

fn conv(from: usize, to: usize, size: usize, kernel: usize, stride: usize) -> ConvGeometry {
    ConvGeometry {
        padding: [kernel / 2; 2],
        ..ConvGeometry::square(from, to, [size; 2], kernel, stride)
    }
}

impl BenchNetwork {
    /// Every network.
    pub const ALL: [Self; 3] = [Self::PreactResnet18, Self::Resnet18, Self::Resnet50];

    /// The network's name in output and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreactResnet18 => "preact-resnet18",
            Self::Resnet18 => "resnet18",
            Self::Resnet50 => "resnet50",
        }
    }

    /// The convolutions on images of `image` pixels a side with `width` channels in the first
    /// stage, and how often each occurs.
    #[must_use]
    pub fn convolutions(self, width: usize, image: usize) -> Vec<(usize, ConvGeometry)> {
        match self {
            Self::PreactResnet18 => {
                let stem = (1, conv(3, width, image, 3, 1));
                basic(vec![stem], width, image, [2; 4])
            }
            Self::Resnet18 => {
                let stem = (1, conv(3, width, image, 7, 2));
                basic(vec![stem], width, image.div_ceil(4), [2; 4])
            }
            Self::Resnet50 => {
                let stem = (1, conv(3, width, image, 7, 2));
                bottlenecks(vec![stem], width, image.div_ceil(4), [3, 4, 6, 3])
            }
        }
    }

    /// The sizes of the maps, pixels and channels, that convolutions write: those of the batch
    /// norms.
    #[must_use]
    pub fn norms(self, width: usize, image: usize) -> Vec<(usize, usize)> {
        let mut sizes = Vec::new();
        for (_, geometry) in self.convolutions(width, image) {
            let [h, w] = geometry.output();
            let size = (h * w, geometry.out_channels);
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        sizes
    }
}

/// Adds stages of blocks of two 3x3 convolutions.
fn basic(mut shapes: Shapes, width: usize, mut size: usize, blocks: [usize; 4]) -> Shapes {
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let c = width << stage;
        if stage > 0 {
            shapes.push((1, conv(c / 2, c, size, 3, 2)));
            shapes.push((1, conv(c / 2, c, size, 1, 2)));
            size = size.div_ceil(2);
        }
        shapes.push((2 * blocks - usize::from(stage > 0), conv(c, c, size, 3, 1)));
    }
    shapes
}

/// Adds stages of blocks of 1x1, 3x3 and 1x1 convolutions.
fn bottlenecks(mut shapes: Shapes, width: usize, mut size: usize, blocks: [usize; 4]) -> Shapes {
    let mut from = width;
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let (c, stride) = (width << stage, if stage > 0 { 2 } else { 1 });
        shapes.push((1, conv(from, c, size, 1, 1)));
        shapes.push((1, conv(from, 4 * c, size, 1, stride)));
        if stride == 2 {
            shapes.push((1, conv(c, c, size, 3, 2)));
            size = size.div_ceil(2);
        }
        from = 4 * c;
        shapes.push((blocks - usize::from(stride == 2), conv(c, c, size, 3, 1)));
        shapes.push((blocks, conv(c, from, size, 1, 1)));
        shapes.push((blocks - 1, conv(from, c, size, 1, 1)));
    }
    shapes
}

impl fmt::Display for BenchNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BenchNetwork {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = BenchNetwork::ALL.into_iter().find(|network| network.name() == name);
        found.ok_or_else(|| UnknownNetwork(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of weights of the convolutions are those of torchvision's networks.
    #[test]
    fn convolutions_have_the_weights_of_the_networks() {
        let weights = |network: BenchNetwork, image| -> usize {
            let all = network.convolutions(64, image);
            let of = |g: &ConvGeometry| g.in_channels * g.out_channels * g.kernel[0] * g.kernel[1];
            all.iter().map(|(count, geometry)| count * of(geometry)).sum()
        };
        // 11,689,512 and 25,557,032 parameters, less the fully connected layer's 513,000 and
        // 2,049,000 and two for each of the 4,800 and 26,560 channels of batch norm.
        assert_eq!(weights(BenchNetwork::Resnet18, 224), 11_166_912);
        assert_eq!(weights(BenchNetwork::Resnet50, 224), 23_454_912);
        assert_eq!(weights(BenchNetwork::PreactResnet18, 32), 11_166_912 - 64 * 3 * (49 - 9));
        assert_eq!(BenchNetwork::PreactResnet18.norms(64, 32).len(), 4);
    }
}
