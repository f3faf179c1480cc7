//! A fully connected layer, computed as a 1x1 convolution over one pixel.

use crate::conv::{Conv2d, ConvGeometry, Direction, Epilogue, PackedWeights};
use crate::element::Element;
use crate::error::ShapeError;
use crate::isa::Isa;

/// `y = x W^T + b` on matrices `[N][in]` and `[N][out]`, with weights `[out][in]` as in PyTorch.
/// The elements of `x` and `y` have type `E`; weights and bias are `f32`.
#[derive(Debug, Clone)]
pub struct Linear<E = f32>(Conv2d<E>);

impl<E: Element> Linear<E> {
    /// Prepares a layer of `inputs` to `outputs` features.
    ///
    /// # Errors
    /// [`ShapeError`] when the weights would exceed the address space or this machine lacks `isa`.
    pub fn new(inputs: usize, outputs: usize, isa: Isa) -> Result<Self, ShapeError> {
        Conv2d::new(ConvGeometry::square(inputs, outputs, [1, 1], 1, 1), isa).map(Self)
    }

    /// The layer as a convolution of one pixel.
    #[must_use]
    pub fn as_conv(&self) -> &Conv2d<E> {
        &self.0
    }

    /// Packs `weights`, `[out][in]`, for `direction`.
    ///
    /// # Errors
    /// [`ShapeError`] when `weights` has another length.
    pub fn pack(&self, weights: &[f32], direction: Direction) -> Result<PackedWeights, ShapeError> {
        self.0.pack(weights, direction)
    }

    /// Packs `weights`, `[out][in]`, for `direction` into `packed`, whose memory is reused.
    ///
    /// # Errors
    /// [`ShapeError`] when `weights` has another length.
    pub fn pack_into(
        &self,
        weights: &[f32],
        direction: Direction,
        packed: &mut PackedWeights,
    ) -> Result<(), ShapeError> {
        self.0.pack_into(weights, direction, packed)
    }

    /// Computes `y = x W^T + bias` for `n` rows.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or `weights` was packed for another layer or
    /// direction.
    pub fn forward(
        &self,
        n: usize,
        x: &[E],
        weights: &PackedWeights,
        bias: Option<&[f32]>,
        y: &mut [E],
    ) -> Result<(), ShapeError> {
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        self.0.forward(n, x, weights, y, epilogue)
    }

    /// Computes `dx = dy W` for `n` rows, followed by the `epilogue` of a convolution.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or `weights` was packed for another layer or
    /// direction.
    pub fn input_grad(
        &self,
        n: usize,
        dy: &[E],
        weights: &PackedWeights,
        dx: &mut [E],
        epilogue: Epilogue<'_, E>,
    ) -> Result<(), ShapeError> {
        self.0.input_grad(n, dy, weights, dx, epilogue)
    }

    /// Computes `dw = dy^T x` for `n` rows. [`crate::channels::channel_sums`] of `dy` is the bias
    /// gradient.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit.
    pub fn weight_grad(
        &self,
        n: usize,
        x: &[E],
        dy: &[E],
        dw: &mut [f32],
    ) -> Result<(), ShapeError> {
        self.0.weight_grad(n, x, dy, dw)
    }
}
