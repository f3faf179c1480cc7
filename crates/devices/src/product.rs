//! Matrix products on tensor cores, by one algorithm, without autotune.

use burn_cubecl::{
    kernel::matmul::{MatmulStrategy as BurnMatmul, matmul as burn_matmul},
    tensor::CubeTensor,
};
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::launch_ref,
        multi_level::{
            Strategy,
            components::tile::TileMatmulKind,
            routines::batch::{double_buffering::DoubleBufferingArgs, simple::SimpleArgs},
        },
        routine::BlueprintStrategy,
    },
    std::InputBinding,
};

use crate::{contiguous, elem, taken};

/// The matrix product of `a` `[.., m, k]` and `b` `[.., k, n]`, of one type, whose other dimensions
/// agree, to `[.., m, n]` of that type.
///
/// # Panics
/// If the shapes do not fit; they are the network's own, checked when it is built.
pub fn matmul(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let rank = a.meta.num_dims();
    let mut shape = a.meta.shape().clone();
    shape[rank - 1] = b.meta.shape()[rank - 1];
    let out = contiguous(&a, shape, a.dtype);
    if has_tensor_cores(&a)
        && product(a.clone(), b.clone(), out.clone(), &on_tensor_cores()).is_some()
    {
        return out;
    }
    let dtype = a.dtype;
    burn_matmul(a, b, None, BurnMatmul::default(), dtype).expect("a matrix product")
}

/// `left` `[parts, m, k]` times `right` `[parts, k, n]`, into `out`, by the first of `strategies` that
/// the device has; `None` if it has none of them.
pub(crate) fn product(
    left: CubeTensor,
    right: CubeTensor,
    out: CubeTensor,
    strategies: &[Strategy],
) -> Option<()> {
    let client = out.client.clone();
    let mut strategies = strategies.iter().enumerate();
    let is_taken = |(index, strategy): (usize, &Strategy)| {
        let mut types = types(&left, &right, &out);
        let (left, right, out) = (input(&left), input(&right), out.clone().binding());
        let strategy = strategy.clone().into();
        let launched = launch_ref(&strategy, &client, left, right, out, &mut types);
        taken(|| format!("strategy {index} of a product"), launched)
    };
    strategies.any(is_taken).then_some(())
}

pub(crate) fn on_tensor_cores() -> [Strategy; 2] {
    let double = BlueprintStrategy::Inferred(DoubleBufferingArgs {
        specialized: false,
        tile_matmul: TileMatmulKind::Mma,
    });
    let simple = BlueprintStrategy::Inferred(SimpleArgs {
        multi_rows: true,
        tile_matmul: TileMatmulKind::Cmma,
    });
    [Strategy::DoubleCyclicMma(double), Strategy::SimpleCyclicCmma(simple)]
}

/// Whether the device of `t` multiplies matrices in hardware. Which types and sizes it takes, a launch
/// says.
pub(crate) fn has_tensor_cores(t: &CubeTensor) -> bool {
    let matmul = &t.client.properties().features.matmul;
    !matmul.mma.is_empty() || !matmul.cmma.is_empty()
}

pub(crate) fn types(left: &CubeTensor, right: &CubeTensor, out: &CubeTensor) -> MatmulElems {
    MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: elem(left),
        rhs: elem(right),
        out: elem(out),
    })
}

pub(crate) fn input(t: &CubeTensor) -> InputBinding {
    InputBinding::new(t.clone().binding(), elem(t))
}
