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
    /// Sum of the absolute changes over all values of an image. For evaluation: no training method
    /// is defined in it.
    L1,
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linf" => Ok(Self::Linf),
            "l2" => Ok(Self::L2),
            "l1" => Ok(Self::L1),
            other => Err(Error::Norm(other.to_owned())),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
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
    /// The epsilon `top / bottom`, displayed in this form; a `bottom` of 0 counts as 1.
    pub fn ratio(top: u32, bottom: u32) -> Self {
        let value = f64::from(top) / f64::from(bottom.max(1));
        Self { text: format!("{top}/{bottom}"), value: value as f32 }
    }

    /// The epsilon as a number.
    pub fn value(&self) -> f32 {
        self.value
    }

    /// Returns this epsilon if it is valid in `norm`. In l-inf an epsilon of 1 or more is not,
    /// because it reaches every image.
    ///
    /// # Errors
    /// [`Error`] for 1 or more in l-inf; it names the value that was probably meant, such as 8/255
    /// for 8.
    pub fn within(self, norm: Norm) -> Result<Self> {
        if norm == Norm::Linf && self.value >= 1.0 {
            let meant = if self.text.contains('/') || self.value > 255.0 {
                "8/255".to_owned()
            } else {
                format!("{}/255", self.text)
            };
            return Err(Error::EpsilonUnits { text: self.text, meant });
        }
        Ok(self)
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

impl Threat {
    /// The threat of `epsilon` in `norm`.
    ///
    /// # Errors
    /// [`Error`] when the epsilon is not valid in the norm, see [`Epsilon::within`].
    pub fn new(norm: Norm, epsilon: &Epsilon) -> Result<Self> {
        Ok(Self { norm, epsilon: epsilon.clone().within(norm)?.value() })
    }
}

impl FromStr for Threat {
    type Err = Error;

    /// Reads `linf 8/255` or `l2 0.5`.
    fn from_str(text: &str) -> Result<Self> {
        let (norm, epsilon) = text.trim().split_once(' ').unwrap_or((text, ""));
        Self::new(norm.parse()?, &epsilon.trim().parse()?)
    }
}

impl fmt::Display for Threat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.norm, self.epsilon)
    }
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

    #[test]
    fn an_epsilon_that_covers_every_image_is_asked_about() {
        for (text, meant) in [
            ("8", "8/255"),
            ("1", "1/255"),
            ("4.5", "4.5/255"),
            ("16/8", "8/255"),
            ("999", "8/255"),
        ] {
            let error = text.parse::<Epsilon>().unwrap().within(Norm::Linf).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&format!("did you mean {meant}?")), "{said}");
            assert!(error.is_input() && text.parse::<Epsilon>().unwrap().within(Norm::L2).is_ok());
        }
        for text in ["0", "8/255", "0.999", "254/255"] {
            assert!(text.parse::<Epsilon>().unwrap().within(Norm::Linf).is_ok(), "{text}");
        }
        let threat: Threat = "linf 8/255".parse().unwrap();
        assert_eq!(threat.to_string().parse::<Threat>().unwrap(), threat);
        assert!("linf 8".parse::<Threat>().is_err() && "l2".parse::<Threat>().is_err());
    }
}
