//! The output tiles of a batch, cut into blocks.

use super::transform::Tiling;
use crate::conv::geometry::ConvGeometry;
use crate::conv::partial::Rows;

/// The output tiles of a batch of images, cut into blocks of rows (a row is one tile of one
/// sample).
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub height: usize,
    pub width: usize,
    pub n: usize,
    /// Side of an output tile.
    side: usize,
    tiles_x: usize,
    tiles: usize,
    /// Most samples of a block.
    samples: usize,
    /// Number of tiles of a block; 1 unless the whole batch fits into a block.
    group: usize,
}

/// A rectangle of tiles and samples; its rows are ordered by tile, then by sample.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub tiles: (usize, usize),
    pub samples: (usize, usize),
}

impl Block {
    pub(super) fn rows(&self) -> usize {
        (self.tiles.1 - self.tiles.0) * (self.samples.1 - self.samples.0)
    }

    /// Yields the row, tile and sample of each row.
    #[inline(always)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let Block { tiles, samples } = *self;
        let count = samples.1 - samples.0;
        (tiles.0..tiles.1).flat_map(move |tile| {
            (0..count).map(move |s| ((tile - tiles.0) * count + s, tile, samples.0 + s))
        })
    }
}

impl<E> Rows<E> for Block {
    #[inline(always)]
    fn count(&self) -> usize {
        self.rows()
    }

    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let Block { tiles, samples } = *self;
        (tiles.0..tiles.1).map(move |tile| (tile, samples.0, samples.1))
    }
}

impl Grid {
    /// Cuts a batch of `n` images into blocks of at most `rows` rows of output tiles of `T`. Both
    /// are at least 1.
    pub(super) fn new<T: Tiling>(geometry: &ConvGeometry, n: usize, rows: usize) -> Self {
        let [height, width] = geometry.input;
        let (tiles_y, tiles_x) = (height.div_ceil(T::OUT), width.div_ceil(T::OUT));
        let tiles = tiles_y * tiles_x;
        Self {
            height,
            width,
            n,
            side: T::OUT,
            tiles_x,
            tiles,
            samples: n.div_ceil(n.div_ceil(rows)),
            group: (rows / n).clamp(1, tiles.max(1)),
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.n.div_ceil(self.samples) * self.tiles.div_ceil(self.group)
    }

    /// Most rows that a block has.
    pub(super) fn block_rows(&self) -> usize {
        self.samples * self.group
    }

    /// Returns block `index`. Neighbours in the image follow each other, so that the pixels they
    /// share are still in the cache.
    pub(super) fn block(&self, index: usize) -> Block {
        let groups = self.tiles.div_ceil(self.group);
        let (sample, tile) = (index / groups * self.samples, index % groups * self.group);
        Block {
            tiles: (tile, (tile + self.group).min(self.tiles)),
            samples: (sample, (sample + self.samples).min(self.n)),
        }
    }

    /// The top left output pixel (row, column) of `tile`.
    #[inline(always)]
    pub(super) fn origin(&self, tile: usize) -> (usize, usize) {
        (tile / self.tiles_x * self.side, tile % self.tiles_x * self.side)
    }

    /// Height and width of the part of `tile` that lies in the image.
    #[inline(always)]
    pub(super) fn extent(&self, tile: usize) -> (usize, usize) {
        let (y, x) = self.origin(tile);
        ((self.height - y).min(self.side), (self.width - x).min(self.side))
    }

    /// Number of output pixels of `block`, over all its samples.
    pub(super) fn pixels(&self, block: &Block) -> usize {
        let pixels = |tile| {
            let (tall, wide) = self.extent(tile);
            tall * wide
        };
        (block.tiles.0..block.tiles.1).map(pixels).sum::<usize>()
            * (block.samples.1 - block.samples.0)
    }
}
