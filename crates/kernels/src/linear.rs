//! Fully connected layer: a 1x1 convolution over one pixel.

use crate::conv::{Addend, Conv2d, ConvGeometry, Direction, Epilogue, PackedWeights};
use crate::error::ShapeError;
use crate::isa::Isa;

/// `y = x W^T + b` on matrices `[N][in]` and `[N][out]`, weights `[out][in]` as in PyTorch.
#[derive(Debug, Clone)]
pub struct Linear(Conv2d);

impl Linear {
    /// Prepares a layer of `inputs` to `outputs` features.
    ///
    /// # Errors
    /// [`ShapeError`] when the weights would exceed the address space or this machine lacks `isa`.
    pub fn new(inputs: usize, outputs: usize, isa: Isa) -> Result<Self, ShapeError> {
        Conv2d::new(ConvGeometry::square(inputs, outputs, [1, 1], 1, 1), isa).map(Self)
    }

    /// Packs `weights`, `[out][in]`, for `direction`.
    ///
    /// # Errors
    /// [`ShapeError`] when `weights` has another length.
    pub fn pack(&self, weights: &[f32], direction: Direction) -> Result<PackedWeights, ShapeError> {
        self.0.pack(weights, direction)
    }

    /// As [`Linear::pack`], reusing the memory of `packed`.
    ///
    /// # Errors
    /// [`ShapeError`] when `weights` has another length.
    pub fn pack_into(&self, weights: &[f32], direction: Direction, packed: &mut PackedWeights) -> Result<(), ShapeError> {
        self.0.pack_into(weights, direction, packed)
    }

    /// `y = x W^T + bias` for `n` rows.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit or `weights` was packed for something else.
    pub fn forward(&self, n: usize, x: &[f32], weights: &PackedWeights, bias: Option<&[f32]>, y: &mut [f32]) -> Result<(), ShapeError> {
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        self.0.forward(n, x, weights, y, epilogue)
    }

    /// `dx = dy W + add` for `n` rows.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit or `weights` was packed for something else.
    pub fn input_grad(&self, n: usize, dy: &[f32], weights: &PackedWeights, dx: &mut [f32], add: Addend<'_>) -> Result<(), ShapeError> {
        self.0.input_grad(n, dy, weights, dx, add)
    }

    /// `dw = dy^T x` for `n` rows. The bias gradient is [`crate::channels::channel_sums`] of `dy`.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit.
    pub fn weight_grad(&self, n: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<(), ShapeError> {
        self.0.weight_grad(n, x, dy, dw)
    }
}
