//! A convolution prepared for one geometry: it checks its arguments and runs its algorithms.

use std::marker::PhantomData;

use half::bf16;

use super::algorithm::{Algorithms, ConvAlgorithm};
#[cfg(target_arch = "x86_64")]
use super::direct_bf16;
use super::epilogue::{Epilogue, Moments, Output};
use super::geometry::{ConvGeometry, Direction};
use super::moments;
use super::packed::{Layout, PackedWeights, Panels};
use super::partial::{Partial, TileList};
use super::pass::{Pass, WeightPass};
use super::{direct, winograd};
use crate::element::{Element, ElementType};
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::parallel::Shared;
use crate::simd::tile_columns;

/// A convolution prepared for one geometry, instruction set and storage type `E` of the
/// activations.
///
/// Input `[H][W][N][C_in]`, output `[OH][OW][N][C_out]` and their gradients are `E`; weights are
/// `f32` in PyTorch's order `[C_out][C_in / groups][KH][KW]`, and so are their gradient, the bias
/// and the statistics. Slices aligned to 64 bytes ([`Buffer`](crate::Buffer)) are fastest.
#[derive(Debug, Clone)]
pub struct Conv2d<E = f32> {
    geometry: ConvGeometry,
    isa: Isa,
    algorithms: Algorithms,
    element: PhantomData<E>,
}

impl<E: Element> Conv2d<E> {
    /// Prepares `geometry` for `isa`, choosing the fastest algorithm of each direction.
    ///
    /// # Errors
    /// [`ShapeError::Parameter`] when the stride, the kernel or the number of groups is zero, the
    /// groups do not divide the channels, the padding is not smaller than the kernel, or this
    /// machine lacks `isa`; [`ShapeError::Overflow`] when the sizes multiply to more than memory
    /// can hold.
    pub fn new(geometry: ConvGeometry, isa: Isa) -> Result<Self, ShapeError> {
        isa.checked().map_err(|error| parameter("isa", error.to_string()))?;
        geometry.check()?;
        let algorithms = Algorithms::fastest(&geometry, isa, E::PRECISION);
        Ok(Self { geometry, isa, algorithms, element: PhantomData })
    }

    /// Whether `algorithm` can compute this convolution.
    #[must_use]
    pub fn supports(&self, algorithm: ConvAlgorithm) -> bool {
        algorithm.supports(&self.geometry, self.isa, E::PRECISION)
    }

    /// The same convolution with one algorithm in every direction, for tests and comparisons.
    ///
    /// # Errors
    /// [`ShapeError::Parameter`] when `algorithm` cannot compute it.
    pub fn with_algorithm(mut self, algorithm: ConvAlgorithm) -> Result<Self, ShapeError> {
        if !self.supports(algorithm) {
            return Err(parameter("algorithm", algorithm.needs()));
        }
        self.algorithms = Algorithms::all(algorithm);
        Ok(self)
    }

    /// The geometry this convolution was prepared for.
    #[must_use]
    pub fn geometry(&self) -> &ConvGeometry {
        &self.geometry
    }

    /// The algorithm of each direction.
    #[must_use]
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Number of weights, `C_out * C_in / groups * KH * KW`.
    #[must_use]
    pub fn weight_len(&self) -> usize {
        let geometry = &self.geometry;
        geometry.out_channels * geometry.group_in() * geometry.taps()
    }

    /// Number of input elements, `H * W * n * C_in`, for a batch of `n`.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] when that number exceeds what memory can hold.
    pub fn input_len(&self, n: usize) -> Result<usize, ShapeError> {
        let ConvGeometry { input, in_channels, .. } = self.geometry;
        elements("conv input", &[input[0], input[1], n, in_channels])
    }

    /// Number of output elements, `OH * OW * n * C_out`, for a batch of `n`.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] when that number exceeds what memory can hold.
    pub fn output_len(&self, n: usize) -> Result<usize, ShapeError> {
        let [h, w] = self.geometry.output();
        elements("conv output", &[h, w, n, self.geometry.out_channels])
    }

    /// The order in which weights are packed for `direction`.
    fn layout(&self, direction: Direction) -> Layout {
        let algorithm = match direction {
            Direction::Forward => self.algorithms.forward,
            Direction::InputGrad => self.algorithms.input_grad,
        };
        Layout { geometry: self.geometry, direction, algorithm, isa: self.isa }
    }

    /// Number of `f32` that the weights take when they are packed for `direction`.
    #[must_use]
    pub fn packed_len(&self, direction: Direction) -> usize {
        self.layout(direction).len()
    }

    /// The panels of `weights`, which were packed for `direction` of a fully connected layer.
    ///
    /// # Errors
    /// [`ShapeError::Parameter`] when `weights` was packed for another convolution or direction.
    pub(crate) fn panels(
        &self,
        direction: Direction,
        weights: &PackedWeights,
    ) -> Result<Panels, ShapeError> {
        let layout = self.layout(direction);
        let data = weights.of(&layout).ok_or_else(|| {
            parameter(
                "packed weights",
                "were packed for another layer or direction; pack them with this one",
            )
        })?;
        let (from, to) = match direction {
            Direction::Forward => (self.geometry.in_channels, self.geometry.out_channels),
            Direction::InputGrad => (self.geometry.out_channels, self.geometry.in_channels),
        };
        let pairs = layout.algorithm == ConvAlgorithm::DirectBf16;
        let panel = layout.len() / to.div_ceil(tile_columns(self.isa)).max(1);
        let depth = if pairs { from.div_ceil(2) } else { from };
        Ok(Panels { data, panel, depth, columns: to, pairs })
    }

    /// Packs `weights` for `direction`.
    ///
    /// # Errors
    /// [`ShapeError::Length`] when `weights` does not hold [`Conv2d::weight_len`] elements.
    pub fn pack(&self, weights: &[f32], direction: Direction) -> Result<PackedWeights, ShapeError> {
        let mut packed = PackedWeights::default();
        self.pack_into(weights, direction, &mut packed)?;
        Ok(packed)
    }

    /// Packs `weights` for `direction` into `packed`, whose memory is reused, whatever it held
    /// before.
    ///
    /// # Errors
    /// [`ShapeError::Length`] when `weights` does not hold [`Conv2d::weight_len`] elements.
    pub fn pack_into(
        &self,
        weights: &[f32],
        direction: Direction,
        packed: &mut PackedWeights,
    ) -> Result<(), ShapeError> {
        expect_len("conv weights", weights.len(), self.weight_len())?;
        packed.fill(self.layout(direction), weights);
        Ok(())
    }

    /// Computes `y = conv(x, w)` for a batch of `n`, followed by `epilogue`.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or `weights` was packed for another convolution or
    /// direction.
    pub fn forward(
        &self,
        n: usize,
        x: &[E],
        weights: &PackedWeights,
        y: &mut [E],
        epilogue: Epilogue<'_, E>,
    ) -> Result<(), ShapeError> {
        expect_len("conv input", x.len(), self.input_len(n)?)?;
        expect_len("conv output", y.len(), self.output_len(n)?)?;
        let pass = self.pass(Direction::Forward, n, x, weights)?;
        self.convolve(pass, y, epilogue)
    }

    /// Does what [`Conv2d::forward`] does, for the output tiles of `partial` alone; all other
    /// values of `y` and of the batch norm's result stay as they are. Where the weights are finite,
    /// the computed values have the bits of [`Conv2d::forward`] on the maps with their overlays.
    /// Activations must be `f32`.
    ///
    /// # Errors
    /// [`ShapeError`] in the cases of [`Conv2d::forward`], for statistics (which need every tile),
    /// for tiles that do not exist or are not in ascending order without repetition, and for an
    /// overlay that does not fit.
    pub fn forward_partial(
        &self,
        n: usize,
        x: &[E],
        weights: &PackedWeights,
        y: &mut [E],
        epilogue: Epilogue<'_, E>,
        partial: Partial<'_, E>,
    ) -> Result<(), ShapeError> {
        expect_len("conv input", x.len(), self.input_len(n)?)?;
        expect_len("conv output", y.len(), self.output_len(n)?)?;
        if epilogue.moments.is_some() {
            return Err(parameter("moments", "need every output"));
        }
        if E::PRECISION != ElementType::F32 {
            return Err(parameter("tiles", "are for f32"));
        }
        let pass = self.pass(Direction::Forward, n, x, weights)?;
        partial.check(&self.geometry, n, x.len(), y.len())?;
        self.convolve(Pass { partial: Some(TileList::new(&partial)), ..pass }, y, epilogue)
    }

    /// Computes `dx = conv^T(dy, w)` for a batch of `n`, followed by `epilogue`, whose channels are
    /// those of the input.
    ///
    /// # Errors
    /// [`ShapeError`] when a slice does not fit, or `weights` was packed for another convolution or
    /// direction.
    pub fn input_grad(
        &self,
        n: usize,
        dy: &[E],
        weights: &PackedWeights,
        dx: &mut [E],
        epilogue: Epilogue<'_, E>,
    ) -> Result<(), ShapeError> {
        expect_len("conv output gradient", dy.len(), self.output_len(n)?)?;
        expect_len("conv input gradient", dx.len(), self.input_len(n)?)?;
        let pass = self.pass(Direction::InputGrad, n, dy, weights)?;
        self.convolve(pass, dx, epilogue)
    }

    /// Returns the pass that reads `x`, whose length has been checked against the geometry.
    fn pass<'a>(
        &'a self,
        direction: Direction,
        n: usize,
        x: &'a [E],
        weights: &'a PackedWeights,
    ) -> Result<Pass<'a, E>, ShapeError> {
        self.geometry.check_batch(n)?;
        let layout = self.layout(direction);
        let weights = weights.of(&layout).ok_or_else(|| {
            parameter(
                "packed weights",
                "were packed for another convolution or direction; pack them with this one",
            )
        })?;
        Ok(Pass {
            geometry: &self.geometry,
            direction,
            algorithm: layout.algorithm,
            isa: self.isa,
            n,
            x: Shared::read_only(x),
            weights,
            partial: None,
            borrowed: PhantomData,
        })
    }

    /// Runs `pass` and writes to `y`, whose length has been checked against the geometry.
    fn convolve(
        &self,
        pass: Pass<'_, E>,
        y: &mut [E],
        epilogue: Epilogue<'_, E>,
    ) -> Result<(), ShapeError> {
        let channels = match pass.direction {
            Direction::Forward => self.geometry.out_channels,
            Direction::InputGrad => self.geometry.in_channels,
        };
        let scale = epilogue.check(channels, y.len())?;
        if y.is_empty() {
            if let Some(Moments { mean, variance }) = epilogue.moments {
                mean.fill(0.0);
                variance.fill(0.0);
            }
            return Ok(());
        }
        let (mut output, moments) = Output::new(y, epilogue, scale.as_deref());
        match moments {
            None => run(&pass, output),
            Some(moments) => moments::collect(&task_counts(&pass), channels, moments, |sums| {
                output.sums = sums;
                run(&pass, output);
            }),
        }
        Ok(())
    }

    /// Computes the loss's gradient by the weights, `dw`, for a batch of `n`. `dw` has PyTorch's
    /// order and is overwritten.
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
        expect_len("conv input", x.len(), self.input_len(n)?)?;
        expect_len("conv output gradient", dy.len(), self.output_len(n)?)?;
        expect_len("conv weight gradient", dw.len(), self.weight_len())?;
        self.geometry.check_batch(n)?;
        if x.is_empty() || dy.is_empty() {
            dw.fill(0.0);
            return Ok(());
        }
        let pass = WeightPass {
            geometry: &self.geometry,
            algorithm: self.algorithms.weight_grad,
            isa: self.isa,
            n,
            x: Shared::read_only(x),
            dy: Shared::read_only(dy),
            borrowed: PhantomData,
        };
        match E::PRECISION {
            ElementType::F32 => weight_grad_f32(&pass.retyped(), dw),
            ElementType::Bf16 => weight_grad_bf16(&pass.retyped(), dw),
        }
        Ok(())
    }
}

/// Number of outputs per channel of each task of `pass`.
fn task_counts<E: Element>(pass: &Pass<'_, E>) -> Vec<usize> {
    match pass.algorithm {
        ConvAlgorithm::Direct => direct::task_counts(pass),
        ConvAlgorithm::Winograd => winograd::task_counts(pass),
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::DirectBf16 => direct_bf16::task_counts(pass),
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::WinogradBf16 => winograd::pairs::task_counts(pass),
        #[cfg(not(target_arch = "x86_64"))]
        ConvAlgorithm::DirectBf16 | ConvAlgorithm::WinogradBf16 => Vec::new(),
    }
}

/// Runs `pass` in a function that is compiled in this crate, because a generic function would be
/// compiled again in each crate that uses it.
fn run<E: Element>(pass: &Pass<'_, E>, output: Output<'_, E>) {
    match E::PRECISION {
        ElementType::F32 => run_f32(&pass.retyped(), output.retyped()),
        ElementType::Bf16 => run_bf16(&pass.retyped(), output.retyped()),
    }
}

fn run_f32(pass: &Pass<'_, f32>, output: Output<'_, f32>) {
    match pass.algorithm {
        ConvAlgorithm::Direct => direct::run(pass, output),
        ConvAlgorithm::Winograd => winograd::run(pass, output),
        _ => debug_assert!(false, "is for bf16"),
    }
}

fn run_bf16(pass: &Pass<'_, bf16>, output: Output<'_, bf16>) {
    match pass.algorithm {
        ConvAlgorithm::Direct => direct::run(pass, output),
        ConvAlgorithm::Winograd => winograd::run(pass, output),
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::DirectBf16 => direct_bf16::run(pass, output),
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::WinogradBf16 => winograd::pairs::run(pass, output),
        #[cfg(not(target_arch = "x86_64"))]
        _ => debug_assert!(false, "needs x86-64"),
    }
}

fn weight_grad_f32(pass: &WeightPass<'_, f32>, dw: &mut [f32]) {
    match pass.algorithm {
        ConvAlgorithm::Winograd | ConvAlgorithm::WinogradBf16 => winograd::weight_grad(pass, dw),
        ConvAlgorithm::Direct | ConvAlgorithm::DirectBf16 => direct::weight_grad(pass, dw),
    }
}

fn weight_grad_bf16(pass: &WeightPass<'_, bf16>, dw: &mut [f32]) {
    match pass.algorithm {
        ConvAlgorithm::Winograd | ConvAlgorithm::WinogradBf16 => winograd::weight_grad(pass, dw),
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::DirectBf16 if direct_bf16::pays_for_weights(pass.geometry, pass.isa) => {
            direct_bf16::weight_grad(pass, dw)
        }
        ConvAlgorithm::Direct | ConvAlgorithm::DirectBf16 => direct::weight_grad(pass, dw),
    }
}
