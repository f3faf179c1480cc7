//! The operations on a convolution's result before it is stored.

use std::marker::PhantomData;

use crate::addend::Addend;
use crate::batch_norm::BatchNorm;
use crate::element::Element;
use crate::error::{ShapeError, expect_len};
use crate::parallel::Shared;
use crate::tile::TileNorm;

/// Where the per-channel statistics of an output are written, for a batch normalisation that
/// follows.
#[derive(Debug)]
pub struct Moments<'a> {
    /// `[C]`, mean over height, width and batch.
    pub mean: &'a mut [f32],
    /// `[C]`, biased variance (divided by the count).
    pub variance: &'a mut [f32],
}

/// A batch norm with constant statistics behind a convolution. It gives the bits of
/// [`BatchNorm::forward`] of the stored result, without reading that result again.
#[derive(Debug)]
pub struct Normed<'a, E = f32> {
    /// Statistics and parameters, `[C]`.
    pub norm: BatchNorm<'a>,
    /// Where the batch norm's result is written, a tensor of the output's shape. `None` writes it
    /// in place of the convolution's own result, which is then not stored.
    pub y: Option<&'a mut [E]>,
}

/// The operations on a convolution's result before it is stored: `y = conv + bias + add`,
/// statistics of `y`, and a batch norm of `y`. C is the number of channels of the result.
#[derive(Debug)]
pub struct Epilogue<'a, E = f32> {
    /// Bias `[C]`, added to every pixel.
    pub bias: Option<&'a [f32]>,
    /// The tensor that is added elementwise.
    pub add: Addend<'a, E>,
    /// Where to write the statistics of the stored values; `None` computes none.
    pub moments: Option<Moments<'a>>,
    /// The batch norm of the stored values; `None` computes none.
    pub norm: Option<Normed<'a, E>>,
}

impl<E> Default for Epilogue<'_, E> {
    fn default() -> Self {
        Self { bias: None, add: Addend::None, moments: None, norm: None }
    }
}

impl<'a, E> From<Addend<'a, E>> for Epilogue<'a, E> {
    /// An epilogue that adds `add` and does nothing else.
    fn from(add: Addend<'a, E>) -> Self {
        Self { add, ..Self::default() }
    }
}

impl<E: Element> Epilogue<'_, E> {
    /// Checks every field against `channels` and a result of `len` elements. Returns the scale of
    /// the batch norm, if there is one.
    pub(super) fn check(
        &self,
        channels: usize,
        len: usize,
    ) -> Result<Option<Vec<f32>>, ShapeError> {
        if let Some(bias) = self.bias {
            expect_len("conv bias", bias.len(), channels)?;
        }
        if let Addend::Tensor(add) = self.add {
            expect_len("conv addend", add.len(), len)?;
        }
        if let Some(moments) = &self.moments {
            expect_len("mean", moments.mean.len(), channels)?;
            expect_len("variance", moments.variance.len(), channels)?;
        }
        let Some(Normed { norm, y }) = &self.norm else { return Ok(None) };
        if let Some(y) = y {
            expect_len("batch norm output", y.len(), len)?;
        }
        norm.scale(channels).map(Some)
    }
}

/// Destination of a convolution, as its tasks see it.
///
/// [`Output::new`] alone makes it, from slices that [`Epilogue::check`] has compared with the
/// geometry. Each pointer is therefore null or valid for as many elements as the result has; a
/// pointer to one value per channel is valid for the channels of the result.
#[derive(Clone, Copy)]
pub(super) struct Output<'a, E> {
    /// Null where only the batch norm's result is stored.
    pub(super) y: Shared<E>,
    /// Null or a tensor of the output's shape.
    pub(super) add: Shared<E>,
    /// Null or one value per channel.
    pub(super) bias: Shared,
    /// Null or `[tasks][3][C]`: shift, sum and sum of squares.
    pub(super) sums: Shared,
    /// A batch norm of the outputs.
    pub(super) norm: Option<NormOutput<E>>,
    borrowed: PhantomData<&'a mut E>,
}

/// Destination and parameters of a batch norm behind a convolution.
#[derive(Clone, Copy)]
pub(super) struct NormOutput<E> {
    /// A tensor with the layout of the convolution's output.
    y: Shared<E>,
    /// Mean, scale and beta of each channel.
    parameters: [Shared; 3],
    relu: bool,
}

impl<'a, E: Element> Output<'a, E> {
    /// The destination `y` with the operations of `epilogue`, which has been checked; `scale` is
    /// the scale of its batch norm. Returns the moments for the caller to compute, because they
    /// need sums over all tasks.
    pub(super) fn new(
        y: &'a mut [E],
        epilogue: Epilogue<'a, E>,
        scale: Option<&'a [f32]>,
    ) -> (Self, Option<Moments<'a>>) {
        let y = Shared::new(y);
        let mut output = Self {
            y,
            add: match epilogue.add {
                Addend::None => Shared::null(),
                Addend::Tensor(add) => Shared::read_only(add),
                Addend::Output => y,
            },
            bias: epilogue.bias.map_or(Shared::null(), Shared::read_only),
            sums: Shared::null(),
            norm: None,
            borrowed: PhantomData,
        };
        if let (Some(Normed { norm, y: own }), Some(scale)) = (epilogue.norm, scale) {
            let own = own.map(Shared::new);
            let parameters = [norm.mean, scale, norm.beta].map(Shared::read_only);
            output.norm = Some(NormOutput { y: own.unwrap_or(y), parameters, relu: norm.relu });
            if own.is_none() {
                output.y = Shared::null();
            }
        }
        (output, epilogue.moments)
    }

    /// The same destination with elements of type `F`, which is the same type as `E`.
    pub(super) fn retyped<F: Element>(self) -> Output<'a, F> {
        let Self { y, add, bias, sums, norm, .. } = self;
        let norm = norm.map(|NormOutput { y, parameters, relu }| NormOutput {
            y: y.cast(),
            parameters,
            relu,
        });
        Output { y: y.cast(), add: add.cast(), bias, sums, norm, borrowed: PhantomData }
    }
}

impl<E: Copy> NormOutput<E> {
    /// The batch norm of the tile whose first output is element `at`, of channel `channel`.
    #[inline(always)]
    pub(super) fn tile(&self, at: usize, channel: usize) -> TileNorm<E> {
        TileNorm {
            c: self.y.at(at),
            parameters: self.parameters.map(|values| values.at(channel).cast_const()),
            relu: self.relu,
        }
    }
}
