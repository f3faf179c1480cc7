//! Tensors that carry their derivative along the pass's tangent.
//!
//! The operations of the layers that the CPU engine does not have: Burn's own, each with the rule
//! by which a derivative goes through it. The rules are made of Burn's operations too, so that a
//! backward pass differentiates them once more (as in `tangent.rs`).

use burn::tensor::{Tensor, activation};

use super::{Activation, Flat, Pass};

/// A value and, where the pass has a tangent, its derivative along it. `None` stands for a
/// derivative of zero.
#[derive(Clone, Debug)]
pub struct Dual<const D: usize> {
    /// The value.
    pub value: Tensor<D>,
    /// Its derivative.
    pub tangent: Option<Tensor<D>>,
}

impl From<Flat> for Dual<2> {
    fn from(flat: Flat) -> Self {
        Self { value: flat.values, tangent: flat.tangent }
    }
}

impl From<Dual<2>> for Flat {
    fn from(dual: Dual<2>) -> Self {
        Self { values: dual.value, tangent: dual.tangent }
    }
}

impl<const D: usize> Dual<D> {
    /// A linear function of the value.
    pub fn linear<const E: usize>(self, f: impl Fn(Tensor<D>) -> Tensor<E>) -> Dual<E> {
        Dual { tangent: self.tangent.map(&f), value: f(self.value) }
    }

    /// The sum of two values of the same shape.
    pub fn plus(self, other: Self) -> Self {
        let tangent = match (self.tangent, other.tangent) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { value: self.value + other.value, tangent }
    }

    /// The value plus a weight, which may be broadcast.
    pub fn shift(self, weight: Tensor<D>) -> Self {
        Self { value: self.value + weight, tangent: self.tangent }
    }

    /// The value times a weight, which may be broadcast.
    pub fn scale(self, weight: Tensor<D>) -> Self {
        self.linear(|t| t * weight.clone())
    }

    /// The product, element by element; `other` may be broadcast.
    pub fn times(self, other: Self) -> Self {
        self.product(other, |a, b| a * b)
    }

    /// The matrix product over the last two dimensions.
    pub fn matmul(self, other: Self) -> Self {
        self.product(other, Tensor::matmul)
    }

    fn product(self, other: Self, f: impl Fn(Tensor<D>, Tensor<D>) -> Tensor<D>) -> Self {
        let left = self.tangent.map(|t| f(t, other.value.clone()));
        let right = other.tangent.map(|t| f(self.value.clone(), t));
        let tangent = match (left, right) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { value: f(self.value, other.value), tangent }
    }

    /// An activation function.
    pub fn activate(self, activation: Activation, pass: &Pass) -> Self {
        let tangent = self.tangent.map(|t| t * activation.slope(self.value.clone()));
        Self { value: activation.apply(self.value, pass), tangent }
    }

    /// The logistic function.
    pub fn sigmoid(self) -> Self {
        let value = activation::sigmoid(self.value);
        let tangent = self.tangent.map(|t| t * value.clone() * (value.clone().neg() + 1.0));
        Self { value, tangent }
    }

    /// Softmax over dimension `dim`.
    pub fn softmax(self, dim: usize) -> Self {
        let value = activation::softmax(self.value, dim);
        let tangent = self.tangent.map(|t| {
            let mean = (value.clone() * t.clone()).sum_dim(dim);
            value.clone() * (t - mean)
        });
        Self { value, tangent }
    }

    /// Mean 0 and variance 1 (biased, plus `epsilon`) over the last dimension: layer norm before
    /// its scale and shift.
    pub fn standardise(self, epsilon: f64) -> Self {
        let last = D - 1;
        let centred = self.value.clone() - self.value.mean_dim(last);
        let scale = (centred.clone().square().mean_dim(last) + epsilon).sqrt().recip();
        let value = centred * scale.clone();
        let tangent = self.tangent.map(|t| {
            let common = (value.clone() * t.clone()).mean_dim(last);
            (t.clone() - t.mean_dim(last) - value.clone() * common) * scale
        });
        Self { value, tangent }
    }
}
