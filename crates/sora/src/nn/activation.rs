//! Activation functions, with their derivatives in a form that a backward pass can differentiate.

use std::f64::consts;

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use super::{Pass, layers::gelu};
use crate::names::named;

/// A parameter-free activation function, as PyTorch defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x Phi(x)` with the exact distribution function of the normal distribution (erf), not the
    /// tanh approximation.
    Gelu,
    /// `x sigmoid(x)`, also called swish.
    Silu,
    /// `log(1 + exp x)`.
    Softplus,
}

named!(Activation, "activation": Relu = "relu", Gelu = "gelu", Silu = "silu", Softplus = "softplus");

/// The distribution function of the standard normal.
fn phi<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    ((x * consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}

impl Activation {
    /// Applies the function to each element, in f32.
    pub fn apply<const D: usize>(self, x: Tensor<D>, pass: &Pass) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Gelu => gelu(x, pass),
            Self::Silu => x.clone() * activation::sigmoid(x),
            // This form overflows on neither side.
            Self::Softplus => activation::relu(x.clone()) + x.abs().neg().exp().log1p(),
        }
    }

    /// The derivative at `x`; ReLU's derivative is a constant on either side of 0.
    pub(super) fn slope<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => x.inner().sign().clamp_min(0.0),
            Self::Gelu => {
                let density = (x.clone().square() * -0.5).exp() * (2.0 * consts::PI).sqrt().recip();
                phi(x.clone()) + x * density
            }
            Self::Silu => {
                let s = activation::sigmoid(x.clone());
                s.clone() * (x * (s.neg() + 1.0) + 1.0)
            }
            Self::Softplus => activation::sigmoid(x),
        }
    }
}
