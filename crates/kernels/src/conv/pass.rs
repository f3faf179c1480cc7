//! The arguments of the algorithms of a convolution.

use std::marker::PhantomData;

use super::algorithm::ConvAlgorithm;
use super::geometry::{ConvGeometry, Direction};
use super::partial::TileList;
use crate::element::Element;
use crate::isa::Isa;
use crate::parallel::Shared;

/// A forward pass or an input gradient for a batch of `n`.
///
/// [`Conv2d`](super::Conv2d) alone makes it and guarantees: the machine has the instruction set;
/// geometry and batch have passed their checks, so that no index overflows; `x` holds `n` images of
/// the side that is read; `weights` are packed for this algorithm, geometry, direction and
/// instruction set; the tiles of `partial` exist and differ, and each overlay is as large as the
/// map that it replaces.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a, E: Element> {
    pub(super) geometry: &'a ConvGeometry,
    pub(super) direction: Direction,
    pub(super) algorithm: ConvAlgorithm,
    pub(super) isa: Isa,
    pub(super) n: usize,
    pub(super) x: Shared<E>,
    pub(super) weights: Shared,
    /// The output tiles to compute; `None` computes all.
    pub(super) partial: Option<TileList<'a, E>>,
    pub(super) borrowed: PhantomData<&'a E>,
}

impl<'a, E: Element> Pass<'a, E> {
    /// The same pass with elements of type `F`, which is the same type as `E`.
    pub(super) fn retyped<F: Element>(self) -> Pass<'a, F> {
        let Self { geometry, direction, algorithm, isa, n, x, weights, partial, .. } = self;
        Pass {
            geometry,
            direction,
            algorithm,
            isa,
            n,
            x: x.cast(),
            weights,
            partial: partial.map(TileList::retyped),
            borrowed: PhantomData,
        }
    }
}

/// A weight gradient for a batch of `n`.
///
/// [`Conv2d`](super::Conv2d) alone makes it and guarantees: the machine has the instruction set;
/// geometry and batch have passed their checks; `x` and `dy` hold `n` inputs and outputs, and
/// neither is empty.
#[derive(Clone, Copy)]
pub(super) struct WeightPass<'a, E: Element> {
    pub(super) geometry: &'a ConvGeometry,
    pub(super) algorithm: ConvAlgorithm,
    pub(super) isa: Isa,
    pub(super) n: usize,
    pub(super) x: Shared<E>,
    pub(super) dy: Shared<E>,
    pub(super) borrowed: PhantomData<&'a E>,
}

impl<'a, E: Element> WeightPass<'a, E> {
    /// The same pass with elements of type `F`, which is the same type as `E`.
    pub(super) fn retyped<F: Element>(self) -> WeightPass<'a, F> {
        let Self { geometry, algorithm, isa, n, x, dy, .. } = self;
        WeightPass {
            geometry,
            algorithm,
            isa,
            n,
            x: x.cast(),
            dy: dy.cast(),
            borrowed: PhantomData,
        }
    }
}
