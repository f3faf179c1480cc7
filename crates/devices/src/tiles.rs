//! How the matrix product of a convolution is cut into tiles on tensor cores.
//!
//! What CubeK infers leaves a part of each tile empty where a convolution has few channels, and makes
//! fewer tiles than a large card has processors where maps are small. For bf16 the tiles here were the
//! fastest of nine cuts, or close to it, for preact-resnet18 of width 64 on an H100, at each of its four
//! sizes (docs/devices.md). f32 stays with what is inferred: CubeK takes no given tiles for tf32.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    ir::{AddressType, ElemType},
    zspace::shape,
};
use cubek::{
    convolution::{
        ConvAlgorithm, Strategy,
        components::Dimensionality,
        definition::{BackwardDataBlueprint, ConvBlueprint, ForwardBlueprint},
    },
    matmul::{
        definition::{MatmulGlobalElems, MatmulProblem},
        multi_level::{
            components::{stage::PartitionBuffering, tile::TileMatmulKind},
            definition::{BatchMatmulBlueprint, TilingScheme},
            routines::select_swizzle,
            stage::SwizzleModes,
        },
    },
    std::MatrixLayout,
};

use crate::elem;

/// Threads that multiply one tile together: a warp.
const PLANE: u32 = 32;
/// The size of one instruction's product in bf16: rows, columns, terms.
const INSTRUCTION: (u32, u32, u32) = (16, 8, 16);

/// The direction of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Forward,
    Backward,
}

/// The matrix product of a convolution: a row for each pixel of the result, a column for each of its
/// channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    direction: Direction,
    rows: usize,
    columns: usize,
    /// Products in each sum, over the channels and the taps.
    terms: usize,
    /// Of bf16; of another type there is no cut.
    elem: Option<ElemType>,
}

/// Warps of a tile by rows and columns; instructions of a warp by rows, columns and terms.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    warps: [u32; 2],
    each: [u32; 3],
    buffering: PartitionBuffering,
}

impl Sums {
    /// Of a convolution with `weight` `[out, k, k, in]` to `y` `[N, H, W, out]`.
    pub fn forward(y: &CubeTensor, weight: &CubeTensor) -> Self {
        let [_, kernel, _, channels] = weight.meta.shape().dims();
        Self::of(Direction::Forward, y, channels, kernel)
    }

    /// Of the gradient by the input `dx` `[N, H, W, in]` of a convolution with `weight`
    /// `[out, k, k, in]`.
    pub fn backward(dx: &CubeTensor, weight: &CubeTensor) -> Self {
        let [out, kernel, _, _] = weight.meta.shape().dims();
        Self::of(Direction::Backward, dx, out, kernel)
    }

    fn of(direction: Direction, result: &CubeTensor, channels: usize, kernel: usize) -> Self {
        let [n, height, width, columns] = result.meta.shape().dims();
        Self {
            direction,
            rows: n * height * width,
            columns,
            terms: channels * kernel * kernel,
            elem: (result.dtype == DType::BF16).then(|| elem(result)),
        }
    }

    fn cut(&self) -> Cut {
        let (warps, each, buffering) = match (self.direction, self.columns) {
            (Direction::Forward, ..=64) => ([4, 1], [2, 8, 2], PartitionBuffering::Single),
            (Direction::Forward, 65..=128) => ([4, 1], [2, 16, 2], PartitionBuffering::Single),
            (Direction::Forward, _) => ([4, 2], [2, 8, 4], PartitionBuffering::Single),
            (Direction::Backward, ..=128) => ([4, 1], [4, 8, 2], PartitionBuffering::Double),
            (Direction::Backward, _) => ([4, 1], [2, 8, 2], PartitionBuffering::Double),
        };
        Cut { warps, each, buffering }
    }

    /// The product of operands of the type `elem`, as CubeK describes it.
    fn problem(&self, elem: ElemType) -> MatmulProblem {
        let weights = match self.direction {
            Direction::Forward => MatrixLayout::ColMajor,
            Direction::Backward => MatrixLayout::RowMajor,
        };
        MatmulProblem::from_parameters(
            self.rows,
            self.columns,
            self.terms,
            shape![],
            shape![],
            MatrixLayout::RowMajor,
            weights,
            MatrixLayout::RowMajor,
            None,
            None,
            MatmulGlobalElems { lhs: elem, rhs: elem, out: elem },
            AddressType::U32,
        )
    }

    /// The product cut so, if there is a cut for its type and it fills its tiles. A device without such
    /// instructions refuses it.
    pub fn tiled(&self) -> Option<Strategy> {
        let elem = self.elem?;
        let Cut { warps, each, buffering } = self.cut();
        let scheme = TilingScheme::builder()
            .with_tile_size(INSTRUCTION.into())
            .with_partition_size((each[0], each[1], each[2]).into())
            .with_stage_size((warps[0], warps[1], 1).into())
            .build()
            .ok()?;
        let (terms, columns) =
            (scheme.elements_per_stage_along_k(), scheme.elements_per_stage_along_n());
        let fits = |size: usize, tile: u32| size.is_multiple_of(tile as usize);
        let rows = scheme.elements_per_stage_along_m();
        if !fits(self.rows, rows) || !fits(self.columns, columns) || !fits(self.terms, terms) {
            return None;
        }
        // Eight numbers, of 16 bytes, are read at once.
        let swizzle = |len: u32| select_swizzle(len as usize, elem, 16 / elem.size());
        let along = match self.direction {
            Direction::Forward => terms,
            Direction::Backward => columns,
        };
        let modes =
            SwizzleModes { lhs: swizzle(terms), rhs: swizzle(along), ..SwizzleModes::default() };
        let problem = self.problem(elem);
        let matmul = BatchMatmulBlueprint::builder(TileMatmulKind::Mma, scheme, PLANE, &problem)
            .partition_buffering(buffering)
            .shared_swizzle(modes)
            .build();
        let dimensionality = Dimensionality::Dim2;
        let blueprint = match self.direction {
            Direction::Forward => {
                ConvBlueprint::Forward(ForwardBlueprint { matmul, dimensionality, has_bias: false })
            }
            Direction::Backward => {
                ConvBlueprint::BackwardData(BackwardDataBlueprint { matmul, dimensionality })
            }
        };
        Some(Strategy::Forced { algorithm: ConvAlgorithm::SimpleSyncStrided, blueprint })
    }
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;

    #[test]
    fn only_products_that_fill_their_tiles_are_cut() {
        let elem = burn::backend::cubecl::dtype_to_storage_type(DType::BF16);
        for direction in [Direction::Forward, Direction::Backward] {
            let sums = |columns, channels: usize, kernel: usize| Sums {
                direction,
                rows: 2048,
                columns,
                terms: channels * kernel * kernel,
                elem: Some(elem),
            };
            for width in [64, 128, 256, 512] {
                assert!(sums(width, width, 3).tiled().is_some(), "{direction:?} {width}");
                assert!(sums(width, width, 1).tiled().is_some(), "{direction:?} {width}");
                assert!(Sums { elem: None, ..sums(width, width, 3) }.tiled().is_none());
                assert!(Sums { rows: 2000, ..sums(width, width, 3) }.tiled().is_none());
            }
            for (columns, channels) in [(64, 3), (3, 64), (16, 16), (96, 96)] {
                assert!(sums(columns, channels, 3).tiled().is_none(), "{columns} by {channels}");
            }
        }
    }
}
