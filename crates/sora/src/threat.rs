//! The threat model: norm, epsilon, and the sets that a perturbation must lie in. Everything is in
//! pixel space, x in [0, 1].

use std::{fmt, str::FromStr};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    nn,
    noise::{Draw, Noise},
};

/// Smallest denominator of a normalised gradient.
const TINY: f32 = 1e-12;

/// The norm that bounds a perturbation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Largest absolute change of any value.
    Linf,
    /// Euclidean length over all values of an image.
    L2,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
        })
    }
}

/// Epsilon as the user wrote it: `8/255` or `0.0314`, in pixel units on [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Epsilon {
    text: String,
    value: f32,
}

impl Epsilon {
    /// The number.
    pub fn value(&self) -> f32 {
        self.value
    }
}

impl FromStr for Epsilon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::input(format!(
                "epsilon '{text}': expected a fraction such as 8/255 or a number from 0 to 1000, such as 0.0314"
            ))
        };
        let number = |s: &str| s.trim().parse::<f64>().ok().filter(|v| v.is_finite());
        let value = match text.split_once('/') {
            Some((top, bottom)) => {
                number(top).zip(number(bottom)).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b)
            }
            None => number(text),
        };
        let value = value.filter(|v| (0.0..=1000.0).contains(v)).ok_or_else(wrong)?;
        Ok(Self { text: text.trim().to_owned(), value: value as f32 })
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Epsilon {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(f64),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Text(text) => text,
            Either::Number(number) => number.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Norm and radius of the set of allowed perturbations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threat {
    /// The norm.
    pub norm: Norm,
    /// The radius, in pixel units on [0, 1].
    pub epsilon: f32,
}

impl Threat {
    /// Projects `delta` `[N, C, H, W]` on the ball of radius epsilon.
    pub fn project(&self, delta: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => delta.clamp(-self.epsilon, self.epsilon),
            Norm::L2 => {
                let scale = l2_norm(delta.clone())
                    .clamp_min(TINY)
                    .recip()
                    .mul_scalar(self.epsilon)
                    .clamp_max(1.0);
                delta * scale
            }
        }
    }

    /// The direction of steepest ascent of a loss with gradient `grad`: its sign (l-inf) or the
    /// normalised gradient of each sample (l2).
    pub fn ascent(&self, grad: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => grad.sign(),
            Norm::L2 => {
                let norm = l2_norm(grad.clone()).clamp_min(TINY);
                grad / norm
            }
        }
    }

    /// A step of length `alpha` from `start` (absent: from 0) along the ascent of a loss with
    /// gradient `grad`, each element times `factor` where there is one: `box(start + alpha factor
    /// p)`, and with `project` inside the ball, too. Pixels `x` and the rest are `[N, C, H, W]`.
    pub fn step(
        &self,
        x: &Tensor<4>,
        start: Option<Tensor<4>>,
        grad: Tensor<4>,
        alpha: f32,
        factor: Option<Tensor<4>>,
        project: bool,
    ) -> Tensor<4> {
        let same = factor.as_ref().is_none_or(|factor| factor.dims() == grad.dims());
        if self.norm == Norm::Linf && same && nn::on_cpu(x.device()) {
            return nn::Step { alpha, radius: project.then_some(self.epsilon) }
                .take(x, start, grad, factor);
        }
        let mut delta = self.ascent(grad) * alpha;
        if let Some(factor) = factor {
            delta = delta * factor;
        }
        if let Some(start) = start {
            delta = start + delta;
        }
        if project {
            delta = self.project(delta);
        }
        clamp_to_box(x, delta)
    }

    /// A random start: uniform in (-epsilon, epsilon) per element (l-inf), or a uniform direction
    /// with a length uniform in (0, epsilon) per sample (l2).
    pub fn random_start(&self, noise: &mut Noise, shape: [usize; 4]) -> Tensor<4> {
        match self.norm {
            Norm::Linf => noise.uniform(Draw::Eta, shape, -self.epsilon, self.epsilon),
            Norm::L2 => {
                let direction = self.ascent(noise.normal(Draw::Dir, shape));
                direction * noise.uniform(Draw::Radius, [shape[0], 1, 1, 1], 0.0, self.epsilon)
            }
        }
    }
}

/// Clamps `delta` so that `x + delta` stays in [0, 1].
pub fn clamp_to_box(x: &Tensor<4>, delta: Tensor<4>) -> Tensor<4> {
    if nn::on_cpu(x.device()) && x.dims() == delta.dims() {
        return nn::clamp_to_box(x, delta);
    }
    let high = x.clone().neg().add_scalar(1.0);
    delta.min_pair(high).max_pair(x.clone().neg())
}

/// Sum over all values of each sample: `[N, C, H, W]` to `[N, 1, 1, 1]`.
pub fn sum_per_sample(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c * h * w]).sum_dim(1).reshape([n, 1, 1, 1])
}

/// Euclidean norm of each sample: `[N, C, H, W]` to `[N, 1, 1, 1]`.
pub fn l2_norm(x: Tensor<4>) -> Tensor<4> {
    // Scaled by the largest value, so that squares of tiny gradients do not underflow.
    let [n, c, h, w] = x.dims();
    let largest = x
        .clone()
        .abs()
        .reshape([n, c * h * w])
        .max_dim(1)
        .reshape([n, 1, 1, 1])
        .clamp_min(f32::MIN_POSITIVE);
    sum_per_sample((x / largest.clone()).square()).sqrt() * largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilon_reads_fractions_and_numbers() {
        assert_eq!("8/255".parse::<Epsilon>().unwrap().value(), (8.0f64 / 255.0) as f32);
        assert_eq!("0.5".parse::<Epsilon>().unwrap().value(), 0.5);
        for wrong in ["", "8/", "/255", "8/0", "-1", "nan", "inf", "8/-255", "eight", "1e9"] {
            assert!(wrong.parse::<Epsilon>().is_err(), "{wrong}");
        }
    }
}
