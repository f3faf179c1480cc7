//! The threat model: norm, epsilon, and the sets that a perturbation must lie in. Everything is in
//! pixel space, x in [0, 1].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The norm that bounds a perturbation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Largest absolute change of any value.
    Linf,
    /// Euclidean length over all values of an image.
    L2,
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linf" => Ok(Self::Linf),
            "l2" => Ok(Self::L2),
            other => Err(Error::Norm(other.to_owned())),
        }
    }
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
    /// `top / bottom`, written so; `bottom` is taken as 1 where it is 0.
    pub fn ratio(top: u32, bottom: u32) -> Self {
        let value = f64::from(top) / f64::from(bottom.max(1));
        Self { text: format!("{top}/{bottom}"), value: value as f32 }
    }

    /// The number.
    pub fn value(&self) -> f32 {
        self.value
    }
}

impl FromStr for Epsilon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Epsilon(text.to_owned());
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
