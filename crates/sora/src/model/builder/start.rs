//! How weights start, and the windows that slide over maps.

use crate::nn::Init;

/// The initial values of convolutions and fully connected layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for weight and bias.
    Default,
    /// The default weight, and a bias of zero.
    ZeroBias,
    /// Weight N(0, 2 / (out k k)), bias 0: `kaiming_normal_(mode="fan_out")`.
    KaimingOut,
    /// Weight N(0, 2 / (in k k)), bias 0: `kaiming_normal_`.
    KaimingIn,
    /// Weight N(0, std^2), bias 0. PyTorch's `trunc_normal_` equals it in practice, because that
    /// cuts at 2, which is 100 standard deviations of 0.02.
    Normal(f32),
}

impl Start {
    pub(super) fn init(self, fan_in: usize, fan_out: usize) -> [Init; 2] {
        let default = Init::Uniform((fan_in as f32).sqrt().recip());
        let zero = Init::Constant(0.0);
        match self {
            Self::Default => [default, default],
            Self::ZeroBias => [default, zero],
            Self::KaimingOut => [Init::Normal((2.0 / fan_out as f32).sqrt()), zero],
            Self::KaimingIn => [Init::Normal((2.0 / fan_in as f32).sqrt()), zero],
            Self::Normal(std) => [Init::Normal(std), zero],
        }
    }
}

/// A window that slides over a map, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side in pixels.
    pub kernel: usize,
    /// Distance in pixels from one position to the next.
    pub stride: usize,
    /// Rows and columns of zeros on each side.
    pub padding: usize,
}

impl Window {
    /// A window of this side, stride and padding, all in pixels.
    pub const fn of(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel, stride, padding }
    }

    /// Number of positions in a map of `size` pixels a side; 0 where none fits.
    pub(super) fn output(self, size: usize) -> usize {
        let Self { kernel, stride, padding } = self;
        let room = size.saturating_add(padding.saturating_mul(2)).checked_sub(kernel);
        room.and_then(|room| room.checked_div(stride)).map_or(0, |places| places + 1)
    }
}
