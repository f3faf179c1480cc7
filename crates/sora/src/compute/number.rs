//! Numbers that a method computes from the figures of its steps.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "gpu")]
use crate::nn::{Backend, updates};
use crate::{error::Result, nn::to_vec};

/// A number that the host knows, or that a device keeps, so that the host need not wait for it.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a method keeps one or two")]
pub enum Number {
    /// On the host.
    Known(f32),
    /// On a device, `[1]`, without autodiff.
    OnDevice(Tensor<1>),
}

impl From<f32> for Number {
    fn from(number: f32) -> Self {
        Self::Known(number)
    }
}

impl Number {
    /// The number, for which the host waits where a device keeps it.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device fails.
    pub fn wait(&self) -> Result<f32> {
        match self {
            Self::Known(number) => Ok(*number),
            Self::OnDevice(tensor) => Ok(to_vec(tensor)?.first().copied().unwrap_or(f32::NAN)),
        }
    }

    /// The number as a tensor on `device`, `[1]`.
    pub fn tensor(&self, device: &Device) -> Tensor<1> {
        match self {
            Self::Known(number) => Tensor::from_data([*number], device),
            Self::OnDevice(tensor) => tensor.clone(),
        }
    }

    /// `x` times the number.
    pub fn times<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Known(number) => x * *number,
            Self::OnDevice(tensor) => x * tensor.clone().reshape([1; D]),
        }
    }

    /// `self (1 - share) + new share`.
    pub(crate) fn blend(&self, new: &Self, share: f32) -> Self {
        let device = match (self, new) {
            (Self::Known(old), Self::Known(new)) => {
                return Self::Known((1.0 - share) * old + share * new);
            }
            (Self::OnDevice(there), _) | (_, Self::OnDevice(there)) => there.device(),
        };
        let [old, new] = [self, new].map(|number| number.tensor(&device));
        #[cfg(feature = "gpu")]
        if Backend::of(&device) == Backend::Burn {
            return Self::OnDevice(updates::blend(old, new, share));
        }
        Self::OnDevice(old * (1.0 - share) + new * share)
    }

    /// The Newton step to where a slope vanishes that is 1 at first and `self` after a step of length
    /// `first`: `first / (1 - self)`, at most `longest`, and `longest` where the slope does not fall.
    pub(crate) fn newton_step(&self, first: f32, longest: f32) -> Self {
        match self {
            Self::Known(slope) if *slope < 1.0 => Self::Known(longest.min(first / (1.0 - slope))),
            Self::Known(_) => Self::Known(longest),
            #[cfg(feature = "gpu")]
            Self::OnDevice(slope) if Backend::of(&slope.device()) == Backend::Burn => {
                Self::OnDevice(updates::newton_step(slope.clone(), first, longest))
            }
            Self::OnDevice(slope) => {
                let falls = slope.clone().lower_elem(1.0);
                let step = ((slope.clone().neg() + 1.0).recip() * first).clamp_max(longest);
                Self::OnDevice((slope.zeros_like() + longest).mask_where(falls, step))
            }
        }
    }
}
