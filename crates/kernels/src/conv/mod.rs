//! Two-dimensional convolution: forward, input gradient and weight gradient.
//!
//! Two algorithms share one register tile (`tile.rs`). *Direct*: with the batch next to the
//! channels, an output pixel is a sum over kernel taps of plain products `[N x C_in] * [C_in x
//! C_out]`; a tap outside the image is skipped. *Winograd* F(4x4, 3x3) for 3x3 kernels of stride 1:
//! four times fewer multiplications. Both compute in `f32`, whatever the activations are stored in.
//! For bf16 activations the direct algorithm also exists on the processor's own products of bf16
//! pairs (`pairs.rs`), which sum in `f32`.

mod direct;
mod direct_weight;
mod grid;
mod job;
mod moments;
#[cfg(target_arch = "x86_64")]
mod pairs;
#[cfg(target_arch = "x86_64")]
mod pairs_weight;
mod partial;
mod reduce;
mod transform;
mod winograd;
mod winograd_weight;

use std::marker::PhantomData;

pub use partial::{Overlay, Partial, TileIndex};

use job::NormOutput;
pub(crate) use job::{
    Job, Output, WeightJob, convolve, convolve_bf16, weight_grad, weight_grad_bf16,
};

use crate::batch_norm::BatchNorm;
use crate::buffer::Buffer;
use crate::element::{Element, Precision};
use crate::error::{ShapeError, elements, expect_len, parameter};
use crate::isa::Isa;
use crate::parallel::Shared;

/// What a convolution is, apart from the batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the input, in pixels.
    pub input: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride, at least 1.
    pub stride: [usize; 2],
    /// Zero padding above and below, left and right.
    pub padding: [usize; 2],
    /// Number of channel groups; divides both channel counts.
    pub groups: usize,
}

impl ConvGeometry {
    /// A square kernel with stride `stride` and padding `kernel / 2` in one group.
    #[must_use]
    pub fn square(
        in_channels: usize,
        out_channels: usize,
        input: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Self {
        Self {
            in_channels,
            out_channels,
            input,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups: 1,
        }
    }

    /// Height and width of the output; zero where the kernel does not fit into the padded input or
    /// the stride is zero.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|d| {
            let padded = self.input[d].saturating_add(self.padding[d].saturating_mul(2));
            let room = padded.checked_sub(self.kernel[d]);
            room.and_then(|room| room.checked_div(self.stride[d])).map_or(0, |steps| steps + 1)
        })
    }

    fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Which algorithm computes one direction of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvAlgorithm {
    /// Sum over taps of matrix products. Any geometry.
    Direct,
    /// Winograd F(4x4, 3x3) (Lavin and Gray, 2016). Kernel 3x3, stride 1, padding 1, one group.
    Winograd,
    /// As [`ConvAlgorithm::Direct`], by products of pairs of bf16 summed in `f32`: AMX tiles or
    /// `vdpbf16ps`. Activations in bf16, weights rounded to bf16 when they are packed. Instruction
    /// sets `amx` and `avx512bf16`.
    DirectBf16,
}

impl ConvAlgorithm {
    /// Every algorithm.
    pub const ALL: [ConvAlgorithm; 3] =
        [ConvAlgorithm::Direct, ConvAlgorithm::Winograd, ConvAlgorithm::DirectBf16];

    /// Name in output and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConvAlgorithm::Direct => "direct",
            ConvAlgorithm::Winograd => "winograd",
            ConvAlgorithm::DirectBf16 => "direct-bf16",
        }
    }
}

impl std::str::FromStr for ConvAlgorithm {
    type Err = ShapeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = ConvAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| {
            parameter("algorithm", format!("{name:?} is none of direct, winograd and direct-bf16"))
        })
    }
}

/// The algorithm of each direction of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Algorithms {
    /// Of the forward pass.
    pub forward: ConvAlgorithm,
    /// Of the gradient of the input.
    pub input_grad: ConvAlgorithm,
    /// Of the gradient of the weights.
    pub weight_grad: ConvAlgorithm,
}

impl Algorithms {
    fn all(algorithm: ConvAlgorithm) -> Self {
        Self { forward: algorithm, input_grad: algorithm, weight_grad: algorithm }
    }
}

/// Direction that weights are packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `y = conv(x, w)`.
    Forward,
    /// `dx = conv^T(dy, w)`.
    InputGrad,
}

/// Tensor added to the result of a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub enum Addend<'a, E = f32> {
    /// Nothing; the output is overwritten.
    #[default]
    None,
    /// A tensor of the output's shape, such as a shortcut or its gradient.
    Tensor(&'a [E]),
    /// What the output slice holds: accumulate.
    Output,
}

/// Where the per-channel statistics of an output go, for a batch normalisation that follows.
#[derive(Debug)]
pub struct Moments<'a> {
    /// `[C]`, mean over height, width and batch.
    pub mean: &'a mut [f32],
    /// `[C]`, biased variance (divided by the count).
    pub variance: &'a mut [f32],
}

/// A batch norm with constant statistics behind a convolution: the bits of [`BatchNorm::forward`]
/// of the stored result, without reading it again.
#[derive(Debug)]
pub struct Normed<'a, E = f32> {
    /// Statistics and parameters, `[C_out]`.
    pub norm: BatchNorm<'a>,
    /// Where its result goes, of the output's shape. `None`: it takes the place of the
    /// convolution's own, which nobody wants.
    pub y: Option<&'a mut [E]>,
}

/// What happens to the result of a convolution before it is stored: `y = conv + bias + add`,
/// statistics of `y`, and a batch norm of `y`.
#[derive(Debug)]
pub struct Epilogue<'a, E = f32> {
    /// `[C_out]`, added to every pixel.
    pub bias: Option<&'a [f32]>,
    /// Tensor added elementwise.
    pub add: Addend<'a, E>,
    /// Statistics of the stored values.
    pub moments: Option<Moments<'a>>,
    /// Batch norm of the stored values.
    pub norm: Option<Normed<'a, E>>,
}

impl<'a, E> From<Addend<'a, E>> for Epilogue<'a, E> {
    /// Nothing but `add`.
    fn from(add: Addend<'a, E>) -> Self {
        Self { add, ..Self::default() }
    }
}

impl<E> Default for Epilogue<'_, E> {
    fn default() -> Self {
        Self { bias: None, add: Addend::None, moments: None, norm: None }
    }
}

/// Weights rearranged for one direction, algorithm and instruction set. Reused until the weights
/// change.
///
/// One value can also serve many convolutions in turn, each packing its weights when it needs them
/// ([`Conv2d::pack_into`]): its memory grows to the largest and stays.
#[derive(Debug, Clone)]
pub struct PackedWeights {
    /// `f32`, or pairs of bf16 in as much space.
    data: Buffer,
    len: usize,
    geometry: ConvGeometry,
    direction: Direction,
    algorithm: ConvAlgorithm,
    isa: Isa,
}

impl Default for PackedWeights {
    /// Weights of no convolution, without memory: a start for [`Conv2d::pack_into`].
    fn default() -> Self {
        Self {
            data: Buffer::default(),
            len: 0,
            geometry: ConvGeometry::square(0, 0, [0; 2], 0, 0),
            direction: Direction::Forward,
            algorithm: ConvAlgorithm::Direct,
            isa: Isa::Portable,
        }
    }
}

impl PackedWeights {
    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }
}

/// Side of the tiles of output pixels that a [`TileIndex`] names.
pub const TILE_SIDE: usize = transform::OUT;

/// Channels up to which gathering pairs for `vdpbf16ps` costs more than it saves.
const FEW_CHANNELS: usize = 8;

/// A convolution prepared for one geometry, instruction set and storage type `E` of the
/// activations.
///
/// Input `[H][W][N][C_in]`, output `[OH][OW][N][C_out]` and their gradients are `E`; weights are
/// `f32` in PyTorch's order `[C_out][C_in / groups][KH][KW]`, and so are their gradient, the bias
/// and the statistics. Slices aligned to 64 bytes ([`Buffer`]) are fastest.
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
    /// groups do not divide the channels, or this machine lacks `isa`.
    pub fn new(geometry: ConvGeometry, isa: Isa) -> Result<Self, ShapeError> {
        let g = &geometry;
        isa.checked().map_err(|error| parameter("isa", error.to_string()))?;
        if g.stride.contains(&0) {
            return Err(parameter("stride", "must be at least 1"));
        }
        if g.kernel.contains(&0) {
            return Err(parameter("kernel", "must be at least 1"));
        }
        if g.groups == 0
            || !g.in_channels.is_multiple_of(g.groups)
            || !g.out_channels.is_multiple_of(g.groups)
        {
            return Err(parameter(
                "groups",
                format!(
                    "{} groups must divide {} input and {} output channels",
                    g.groups, g.in_channels, g.out_channels
                ),
            ));
        }
        if g.padding[0] >= g.kernel[0] || g.padding[1] >= g.kernel[1] {
            return Err(parameter("padding", "must be smaller than the kernel"));
        }
        elements("weights", &[g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]])?;
        let mut conv = Self {
            geometry,
            isa,
            algorithms: Algorithms::all(ConvAlgorithm::Direct),
            element: PhantomData,
        };
        conv.choose();
        Ok(conv)
    }

    /// Sets the fastest algorithm of each direction.
    fn choose(&mut self) {
        let g = self.geometry;
        let pairs = self.supports(ConvAlgorithm::DirectBf16);
        let choose = |from: usize| {
            if winograd::supports(&g) && winograd::is_faster(g.input, from) {
                ConvAlgorithm::Winograd
            } else if pairs && from > FEW_CHANNELS {
                ConvAlgorithm::DirectBf16
            } else {
                ConvAlgorithm::Direct
            }
        };
        // Tiles multiply more than four times faster than vectors of `f32`, which is all that
        // Winograd could save.
        self.algorithms = if pairs && self.isa == Isa::Amx {
            Algorithms::all(ConvAlgorithm::DirectBf16)
        } else {
            Algorithms {
                forward: choose(g.in_channels),
                input_grad: choose(g.out_channels),
                // It reduces over rows, so both channel counts have to pay for a transform.
                weight_grad: choose(g.in_channels.min(g.out_channels)),
            }
        };
    }

    /// Whether `algorithm` can compute this convolution.
    #[must_use]
    pub fn supports(&self, algorithm: ConvAlgorithm) -> bool {
        match algorithm {
            ConvAlgorithm::Direct => true,
            ConvAlgorithm::Winograd => winograd::supports(&self.geometry),
            ConvAlgorithm::DirectBf16 => {
                E::PRECISION == Precision::Bf16 && matches!(self.isa, Isa::Amx | Isa::Avx512Bf16)
            }
        }
    }

    /// The same convolution with one algorithm in every direction, for tests and comparisons.
    ///
    /// # Errors
    /// [`ShapeError::Parameter`] when `algorithm` cannot compute it.
    pub fn with_algorithm(mut self, algorithm: ConvAlgorithm) -> Result<Self, ShapeError> {
        if !self.supports(algorithm) {
            return Err(parameter(
                "algorithm",
                match algorithm {
                    ConvAlgorithm::DirectBf16 => {
                        "products of bf16 need bf16 activations and the instruction set amx or avx512bf16"
                    }
                    _ => "Winograd needs a 3x3 kernel with stride 1, padding 1 and one group",
                },
            ));
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
        let g = &self.geometry;
        g.out_channels * g.group_in() * g.taps()
    }

    /// Number of input elements for a batch of `n`.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`].
    pub fn input_len(&self, n: usize) -> Result<usize, ShapeError> {
        let g = &self.geometry;
        elements("conv input", &[g.input[0], g.input[1], n, g.in_channels])
    }

    /// Number of output elements for a batch of `n`.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`].
    pub fn output_len(&self, n: usize) -> Result<usize, ShapeError> {
        let [h, w] = self.geometry.output();
        elements("conv output", &[h, w, n, self.geometry.out_channels])
    }

    fn algorithm(&self, direction: Direction) -> ConvAlgorithm {
        match direction {
            Direction::Forward => self.algorithms.forward,
            Direction::InputGrad => self.algorithms.input_grad,
        }
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

    /// Length of the weights packed for `direction`, in `f32`.
    #[must_use]
    pub fn packed_len(&self, direction: Direction) -> usize {
        match self.algorithm(direction) {
            ConvAlgorithm::Direct => direct::packed_len(&self.geometry, direction, self.isa),
            ConvAlgorithm::Winograd => winograd::packed_len(&self.geometry, direction, self.isa),
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::DirectBf16 => pairs::packed_len(&self.geometry, direction, self.isa),
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 => 0,
        }
    }

    /// Packs `weights` for `direction` into `packed`, reusing its memory, whatever it was packed
    /// for.
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
        let algorithm = self.algorithm(direction);
        let len = self.packed_len(direction);
        if packed.data.len() < len {
            packed.data = Buffer::zeroed(len);
        }
        packed.len = len;
        packed.geometry = self.geometry;
        packed.direction = direction;
        packed.algorithm = algorithm;
        packed.isa = self.isa;
        let data = &mut packed.data[..len];
        match algorithm {
            ConvAlgorithm::Direct => {
                direct::pack(&self.geometry, direction, self.isa, weights, data)
            }
            ConvAlgorithm::Winograd => {
                winograd::pack(&self.geometry, direction, self.isa, weights, data)
            }
            #[cfg(target_arch = "x86_64")]
            ConvAlgorithm::DirectBf16 => {
                pairs::pack(&self.geometry, direction, self.isa, weights, data)
            }
            #[cfg(not(target_arch = "x86_64"))]
            ConvAlgorithm::DirectBf16 => {}
        }
        Ok(())
    }

    /// `y = conv(x, w) + bias + add` for a batch of `n`, with optional statistics and batch norm of
    /// `y`.
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
        self.convolve(n, x, weights, Direction::Forward, y, epilogue, None)
    }

    /// As [`Conv2d::forward`], for the output tiles of `partial` alone; what `y` and the batch norm
    /// hold elsewhere stays. The bits are those of [`Conv2d::forward`] of the maps with their
    /// overlays, for weights that are finite. `f32` only.
    ///
    /// # Errors
    /// [`ShapeError`] as there, for statistics (which need every tile), for tiles that do not exist
    /// or are not in ascending order, each once, and for a overlay that does not fit.
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
        partial.check(&self.geometry, n, x.len(), y.len())?;
        if epilogue.moments.is_some() {
            return Err(parameter("moments", "need every output"));
        }
        if E::PRECISION != Precision::F32 {
            return Err(parameter("tiles", "are for f32"));
        }
        self.convolve(n, x, weights, Direction::Forward, y, epilogue, Some(&partial))
    }

    /// `dx = conv^T(dy, w)` for a batch of `n`, with the `epilogue` that [`Conv2d::forward`] has; its
    /// channels are those of the input.
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
        self.convolve(n, dy, weights, Direction::InputGrad, dx, epilogue, None)
    }

    #[allow(clippy::too_many_arguments)]
    fn convolve(
        &self,
        n: usize,
        x: &[E],
        weights: &PackedWeights,
        direction: Direction,
        y: &mut [E],
        epilogue: Epilogue<'_, E>,
        partial: Option<&Partial<'_, E>>,
    ) -> Result<(), ShapeError> {
        let g = &self.geometry;
        let algorithm = self.algorithm(direction);
        if weights.geometry != *g
            || weights.direction != direction
            || weights.algorithm != algorithm
            || weights.isa != self.isa
        {
            return Err(parameter(
                "packed weights",
                "were packed for another convolution or direction; pack them with this one",
            ));
        }
        let channels = match direction {
            Direction::Forward => g.out_channels,
            Direction::InputGrad => g.in_channels,
        };
        if let Some(bias) = epilogue.bias {
            expect_len("conv bias", bias.len(), channels)?;
        }
        if let Addend::Tensor(add) = epilogue.add {
            expect_len("conv addend", add.len(), y.len())?;
        }
        let mut moments = epilogue.moments;
        if let Some(m) = &moments {
            expect_len("mean", m.mean.len(), channels)?;
            expect_len("variance", m.variance.len(), channels)?;
        }
        let scale = epilogue.norm.as_ref().map(|normed| normed.norm.scale(channels)).transpose()?;
        if let Some(Normed { y: Some(normed), .. }) = &epilogue.norm {
            expect_len("batch norm output", normed.len(), y.len())?;
        }
        if y.is_empty() {
            if let Some(m) = &mut moments {
                m.mean.fill(0.0);
                m.variance.fill(0.0);
            }
            return Ok(());
        }
        let shared = Shared::new(y);
        let mut out = Output {
            y: shared,
            add: match epilogue.add {
                Addend::None => Shared::null(),
                Addend::Tensor(add) => Shared::read_only(add),
                Addend::Output => shared,
            },
            bias: epilogue.bias.map_or(Shared::null(), Shared::read_only),
            partials: Shared::null(),
            norm: None,
        };
        if let (Some(Normed { norm, y }), Some(scale)) = (epilogue.norm, &scale) {
            let own = y.map(Shared::new);
            let parameters = [norm.mean, scale, norm.beta].map(Shared::read_only);
            out.norm = Some(NormOutput { y: own.unwrap_or(shared), parameters, relu: norm.relu });
            if own.is_none() {
                out.y = Shared::null();
            }
        }
        let job = Job {
            g,
            direction,
            algorithm,
            isa: self.isa,
            n,
            x,
            weights: &weights.data[..weights.len],
            partial,
        };
        match moments {
            None => E::convolve(&job, out),
            Some(moments) => {
                let counts = match algorithm {
                    ConvAlgorithm::Direct => direct::task_counts(g, direction, n),
                    ConvAlgorithm::Winograd => winograd::task_counts(g, n),
                    #[cfg(target_arch = "x86_64")]
                    ConvAlgorithm::DirectBf16 => pairs::task_counts(g, direction, self.isa, n),
                    #[cfg(not(target_arch = "x86_64"))]
                    ConvAlgorithm::DirectBf16 => Vec::new(),
                };
                moments::collect(&counts, channels, moments, |partials| {
                    out.partials = partials;
                    E::convolve(&job, out);
                });
            }
        }
        Ok(())
    }

    /// `dw = dL/dw` for a batch of `n`, overwriting `dw` (PyTorch order).
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
        if x.is_empty() || dy.is_empty() {
            dw.fill(0.0);
            return Ok(());
        }
        E::weight_grad(
            &WeightJob {
                g: &self.geometry,
                algorithm: self.algorithms.weight_grad,
                isa: self.isa,
                n,
                x,
                dy,
            },
            dw,
        );
        Ok(())
    }
}
