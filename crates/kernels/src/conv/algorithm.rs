//! Which algorithms can compute a convolution, and which is the fastest.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::geometry::ConvGeometry;
#[cfg(target_arch = "x86_64")]
use super::geometry::Direction;
use crate::element::ElementType;
use crate::isa::Isa;

/// Largest number of channels for which gathering pairs for `vdpbf16ps` costs more than the
/// instruction saves.
const FEW_CHANNELS: usize = 8;
/// Least number of input and output channels for which products of bf16 pay for the transforms of
/// Winograd's smaller tile.
const MANY_CHANNELS: usize = 32;

/// Which algorithm computes one direction of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvAlgorithm {
    /// A sum of matrix products over kernel taps. It computes any geometry.
    Direct,
    /// Winograd F(4x4, 3x3) (Lavin and Gray, 2016). It computes 3x3 kernels of stride 1 and padding
    /// 1 in one group.
    Winograd,
    /// The sum of [`ConvAlgorithm::Direct`], computed with products of bf16 pairs that are summed
    /// in `f32`: AMX tiles or `vdpbf16ps`. Activations are bf16, and weights are rounded to bf16
    /// when they are packed. It needs the instruction set `amx` or `avx512bf16`.
    DirectBf16,
    /// Winograd F(2x2, 3x3) in the cases of [`ConvAlgorithm::Winograd`] and
    /// [`ConvAlgorithm::DirectBf16`]: the transformed activations and weights are rounded to bf16,
    /// and products of pairs are summed in `f32`. Its error is at most twice that of rounded
    /// weights. The weight gradient is that of [`ConvAlgorithm::Winograd`].
    WinogradBf16,
}

/// The error for a name that no algorithm has; it holds the name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown algorithm {0:?}: expected direct, winograd, direct-bf16 or winograd-bf16")]
pub struct UnknownAlgorithm(String);

impl ConvAlgorithm {
    /// Every algorithm.
    pub const ALL: [ConvAlgorithm; 4] = [
        ConvAlgorithm::Direct,
        ConvAlgorithm::Winograd,
        ConvAlgorithm::DirectBf16,
        ConvAlgorithm::WinogradBf16,
    ];

    /// The algorithm's name in output and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConvAlgorithm::Direct => "direct",
            ConvAlgorithm::Winograd => "winograd",
            ConvAlgorithm::DirectBf16 => "direct-bf16",
            ConvAlgorithm::WinogradBf16 => "winograd-bf16",
        }
    }

    /// Whether this algorithm can compute `geometry` on activations of `precision`.
    pub(super) fn supports(
        self,
        geometry: &ConvGeometry,
        isa: Isa,
        precision: ElementType,
    ) -> bool {
        match self {
            ConvAlgorithm::Direct => true,
            // Without input channels the matrix products would have no terms and would never be
            // written.
            ConvAlgorithm::Winograd => {
                geometry.kernel == [3; 2]
                    && geometry.stride == [1; 2]
                    && geometry.padding == [1; 2]
                    && geometry.groups == 1
                    && geometry.in_channels > 0
                    && geometry.out_channels > 0
            }
            ConvAlgorithm::DirectBf16 => {
                precision == ElementType::Bf16
                    && matches!(isa, Isa::Amx | Isa::Avx512Bf16)
                    && cfg!(target_arch = "x86_64")
            }
            ConvAlgorithm::WinogradBf16 => {
                let needed = [ConvAlgorithm::Winograd, ConvAlgorithm::DirectBf16];
                needed.into_iter().all(|algorithm| algorithm.supports(geometry, isa, precision))
            }
        }
    }

    /// Describes what [`ConvAlgorithm::supports`] asks for, for error messages.
    pub(super) fn needs(self) -> &'static str {
        match self {
            ConvAlgorithm::Direct => "the direct algorithm computes any convolution",
            ConvAlgorithm::Winograd => {
                "Winograd needs a 3x3 kernel with stride 1, padding 1, one group and at least one \
                 channel"
            }
            ConvAlgorithm::DirectBf16 => {
                "products of bf16 need bf16 activations and the instruction set amx or avx512bf16"
            }
            ConvAlgorithm::WinogradBf16 => {
                "Winograd with products of bf16 needs what winograd and direct-bf16 need"
            }
        }
    }
}

impl fmt::Display for ConvAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ConvAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = ConvAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

/// The algorithm of each direction of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Algorithms {
    /// Algorithm of the forward pass.
    pub forward: ConvAlgorithm,
    /// Algorithm of the gradient of the input.
    pub input_grad: ConvAlgorithm,
    /// Algorithm of the gradient of the weights.
    pub weight_grad: ConvAlgorithm,
}

impl Algorithms {
    /// `algorithm` in every direction.
    pub(super) fn all(algorithm: ConvAlgorithm) -> Self {
        Self { forward: algorithm, input_grad: algorithm, weight_grad: algorithm }
    }

    /// The fastest algorithm of each direction.
    pub(super) fn fastest(geometry: &ConvGeometry, isa: Isa, precision: ElementType) -> Self {
        let pairs = ConvAlgorithm::DirectBf16.supports(geometry, isa, precision);
        // AMX tiles multiply more than four times faster than vectors of `f32`, and Winograd saves
        // a factor of four at most.
        if pairs && isa == Isa::Amx {
            return Self::all(ConvAlgorithm::DirectBf16);
        }
        // Few channels do not pay for Winograd's transforms, and an image of one or two pixels a
        // side uses too little of its tile.
        let is_large = geometry.input[0] > 2 && geometry.input[1] > 2;
        let winograd = is_large && ConvAlgorithm::Winograd.supports(geometry, isa, precision);
        let fastest = |from: usize| {
            if winograd && from >= 8 {
                ConvAlgorithm::Winograd
            } else if pairs && (from > FEW_CHANNELS || strips_apply(geometry, isa)) {
                ConvAlgorithm::DirectBf16
            } else {
                ConvAlgorithm::Direct
            }
        };
        // The products have to weigh more than the transforms, of which a smaller tile has more.
        let channels = geometry.in_channels.min(geometry.out_channels);
        let points = is_large && channels >= MANY_CHANNELS;
        let winograd_bf16 =
            points && ConvAlgorithm::WinogradBf16.supports(geometry, isa, precision);
        let fastest_pass = |from: usize| {
            if winograd_bf16 { ConvAlgorithm::WinogradBf16 } else { fastest(from) }
        };
        Self {
            forward: fastest_pass(geometry.in_channels),
            input_grad: if pairs && blocks_apply(geometry, isa) {
                ConvAlgorithm::DirectBf16
            } else {
                fastest_pass(geometry.out_channels)
            },
            // The weight gradient sums over rows, so both channel counts have to pay for a
            // transform.
            weight_grad: fastest(geometry.in_channels.min(geometry.out_channels)),
        }
    }
}

/// Whether outputs and weight gradients are computed from strips of few channels.
fn strips_apply(geometry: &ConvGeometry, isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::direct_bf16::strips_apply(geometry, isa);
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether the input gradient goes by blocks of pixels, which is the fastest way to few channels.
fn blocks_apply(geometry: &ConvGeometry, isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::direct_bf16::blocks_apply(geometry, Direction::InputGrad, isa);
    #[cfg(not(target_arch = "x86_64"))]
    false
}
