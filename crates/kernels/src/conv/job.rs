//! One convolution, checked: which code runs it.

use super::partial::Partial;
use super::{
    ConvAlgorithm, ConvGeometry, Direction, direct, direct_weight, winograd, winograd_weight,
};
use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::{pairs, pairs_weight};
use crate::element::Element;
use crate::isa::Isa;
use crate::parallel::Shared;
use crate::tile::TileNorm;

/// A forward pass or an input gradient.
pub struct Job<'a, E> {
    pub(super) g: &'a ConvGeometry,
    pub(super) direction: Direction,
    pub(super) algorithm: ConvAlgorithm,
    pub(super) isa: Isa,
    pub(super) n: usize,
    pub(super) x: &'a [E],
    pub(super) weights: &'a [f32],
    /// The output tiles that are wanted, where not all are.
    pub(super) partial: Option<&'a Partial<'a, E>>,
}

/// Destination of a convolution, as its tasks see it.
#[derive(Clone, Copy)]
pub struct Output<E> {
    /// Null where only the batch norm's result is wanted.
    pub(super) y: Shared<E>,
    /// Null or a tensor of the output's shape.
    pub(super) add: Shared<E>,
    /// Null or a value per channel.
    pub(super) bias: Shared,
    /// Null or `[tasks][3][C]`: shift, sum and sum of squares.
    pub(super) partials: Shared,
    /// A batch norm of the outputs.
    pub(super) norm: Option<NormOutput<E>>,
}

/// Destination and parameters of a batch norm behind a convolution.
#[derive(Clone, Copy)]
pub struct NormOutput<E> {
    /// Laid out as the convolution's output.
    pub(super) y: Shared<E>,
    /// Mean, scale and beta of each channel.
    pub(super) parameters: [Shared; 3],
    pub(super) relu: bool,
}

impl<E: Copy> NormOutput<E> {
    /// What a tile needs whose first output is element `at`, of `channel`.
    #[inline(always)]
    pub(super) fn tile(&self, at: usize, channel: usize) -> TileNorm<E> {
        TileNorm {
            c: self.y.at(at),
            parameters: self.parameters.map(|values| values.at(channel).cast_const()),
            relu: self.relu,
        }
    }
}

/// A weight gradient.
pub struct WeightJob<'a, E> {
    pub(super) g: &'a ConvGeometry,
    pub(super) algorithm: ConvAlgorithm,
    pub(super) isa: Isa,
    pub(super) n: usize,
    pub(super) x: &'a [E],
    pub(super) dy: &'a [E],
}

/// Runs `job`. Called through [`Element`], for its code to be compiled in this crate and not in
/// each that uses it.
pub(crate) fn convolve<E: Element>(job: &Job<'_, E>, out: Output<E>) {
    let Job { g, direction, algorithm, isa, n, x, weights, partial } = *job;
    match (algorithm, partial) {
        (ConvAlgorithm::Direct, None) => direct::run(g, direction, isa, n, x, weights, out),
        (ConvAlgorithm::Winograd, None) => winograd::run(g, direction, isa, n, x, weights, out),
        (ConvAlgorithm::Direct, Some(partial)) => direct::run_partial(job, partial, out),
        (ConvAlgorithm::Winograd, Some(partial)) => winograd::run_partial(job, partial, out),
        (ConvAlgorithm::DirectBf16, _) => debug_assert!(false, "convolve_bf16 runs it"),
    }
}

/// As [`convolve`], with the algorithm that bf16 alone has.
pub(crate) fn convolve_bf16(job: &Job<'_, bf16>, out: Output<bf16>) {
    match job.algorithm {
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::DirectBf16 => {
            pairs::run(job.g, job.direction, job.isa, job.n, job.x, job.weights, out)
        }
        _ => convolve(job, out),
    }
}

/// Runs `job`. See [`convolve`].
pub(crate) fn weight_grad<E: Element>(job: &WeightJob<'_, E>, dw: &mut [f32]) {
    let WeightJob { g, algorithm, isa, n, x, dy } = *job;
    match algorithm {
        ConvAlgorithm::Direct | ConvAlgorithm::DirectBf16 => {
            direct_weight::run(g, isa, n, x, dy, dw)
        }
        ConvAlgorithm::Winograd => winograd_weight::run(g, isa, n, x, dy, dw),
    }
}

/// As [`weight_grad`], with the algorithm that bf16 alone has.
pub(crate) fn weight_grad_bf16(job: &WeightJob<'_, bf16>, dw: &mut [f32]) {
    match job.algorithm {
        #[cfg(target_arch = "x86_64")]
        ConvAlgorithm::DirectBf16 if pairs_weight::pays(job.g) => {
            pairs_weight::run(job.g, job.isa, job.n, job.x, job.dy, dw)
        }
        _ => weight_grad(job, dw),
    }
}
