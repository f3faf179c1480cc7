//! Networks of two classes with one output.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    classifier::Classifier,
    error::{Error, Result},
    samples::Samples,
};

/// Number of images on which an output is looked at.
const LOOKED_AT: usize = 64;

/// What the one output of a network of two classes is. The network counts as one with the logits 0
/// and z, where z is the log-odds of class 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OneOutput {
    /// The log-odds of class 1: what goes into a sigmoid.
    Logit,
    /// The probability of class 1: what comes out of a sigmoid.
    Probability,
}

impl OneOutput {
    /// The nearest to 0 and 1 that a probability counts as, so that its log-odds are finite.
    const NEAREST: f32 = 1.0 / 16_777_216.0;

    /// The log-odds of class 1 where the output is `value`; NaN for what is no probability.
    ///
    /// ```
    /// use robustness::OneOutput;
    /// assert_eq!(OneOutput::Logit.log_odds(3.0), 3.0);
    /// assert_eq!(OneOutput::Probability.log_odds(0.5), 0.0);
    /// assert!((OneOutput::Probability.log_odds(0.9) - 9f32.ln()).abs() < 1e-5);
    /// assert!(OneOutput::Probability.log_odds(1.0).is_finite());
    /// assert!(OneOutput::Probability.log_odds(1.5).is_nan());
    /// ```
    pub fn log_odds(self, value: f32) -> f32 {
        match self {
            Self::Logit => value,
            Self::Probability if (0.0..=1.0).contains(&value) => {
                let p = Self::inside(value);
                p.ln() - (-p).ln_1p()
            }
            Self::Probability => f32::NAN,
        }
    }

    /// The derivative of [`log_odds`](Self::log_odds) at `value`.
    pub fn slope(self, value: f32) -> f32 {
        match self {
            Self::Logit => 1.0,
            Self::Probability => {
                let p = Self::inside(value);
                1.0 / (p * (1.0 - p))
            }
        }
    }

    fn inside(value: f32) -> f32 {
        value.clamp(Self::NEAREST, 1.0 - Self::NEAREST)
    }

    /// Looks at the one output of `classifier` on the first images of `samples`. `said` is what it
    /// is said to be, where it was said; without that it is taken as a logit. Returns a line for
    /// the reader of the results.
    ///
    /// # Errors
    /// [`Error::OneOutput`] for values that leave open what they are, or that are not what they are
    /// said to be; an image that cannot be read; a classifier that fails.
    pub fn check(
        said: Option<Self>,
        classifier: &dyn Classifier,
        samples: &dyn Samples,
    ) -> Result<String> {
        let positions: Vec<usize> = (0..samples.len().min(LOOKED_AT)).collect();
        let logits = classifier.logits(&samples.pixels(&positions)?)?;
        let z = || logits.chunks(2).filter_map(|row| row.get(1).copied());
        let problem = match said {
            None if z().all(|z| (0.0..=1.0).contains(&z)) => {
                "from 0 to 1 on all images that were looked at: is it the probability of class 1, or \
                 its log-odds? Say which with `one_output`"
            }
            Some(Self::Probability) if z().any(f32::is_nan) => {
                "not always from 0 to 1: it is no probability, as `one_output` says"
            }
            _ => {
                let what = match said {
                    Some(Self::Probability) => {
                        "the network's one output is the probability p of class 1: its logits are 0 \
                         and ln(p / (1 - p))"
                    }
                    _ => {
                        "the network's one output z is the log-odds of class 1: its logits are 0 and z"
                    }
                };
                return Ok(what.to_owned());
            }
        };
        Err(Error::OneOutput(problem))
    }
}

impl fmt::Display for OneOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logit => "logit",
            Self::Probability => "probability",
        })
    }
}

impl FromStr for OneOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "logit" => Ok(Self::Logit),
            "probability" => Ok(Self::Probability),
            _ => Err(format!("'{text}': expected logit or probability")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cotangent, InMemory, PullBack, Shape};

    const SHAPE: Shape = Shape { channels: 1, height: 1, width: 1, classes: 2 };

    /// The output is `scale` times the pixel, read as `said`.
    #[derive(Debug)]
    struct Pixel(f32, Option<OneOutput>);

    impl Classifier for Pixel {
        fn shape(&self) -> Shape {
            SHAPE
        }

        fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
            let said = self.1.unwrap_or(OneOutput::Logit);
            Ok(x.iter().flat_map(|x| [0.0, said.log_odds(self.0 * x)]).collect())
        }

        fn pull_back(&self, _: &[f32], _: &mut Cotangent<'_>) -> Result<PullBack> {
            Err(Error::NoImages)
        }
    }

    #[test]
    fn a_doubtful_output_is_asked_about_and_a_wrong_answer_refused() {
        let samples = InMemory::new(SHAPE, vec![0.0, 0.5, 1.0], vec![0, 1, 1]).unwrap();
        let check = |scale, said| {
            OneOutput::check(said, &Pixel(scale, said), &samples).map_err(|e| e.to_string())
        };
        let [logit, probability] = [OneOutput::Logit, OneOutput::Probability].map(Some);
        let text = check(1.0, None).unwrap_err();
        assert!(text.contains("from 0 to 1") && text.contains("`one_output`"), "{text}");
        assert!(check(1.0, logit).unwrap().contains("log-odds"));
        assert!(check(1.0, probability).unwrap().contains("ln(p / (1 - p))"));
        assert!(check(-3.0, None).unwrap().contains("0 and z"));
        assert!(check(1.1, probability).unwrap_err().contains("no probability"));
    }

    #[test]
    fn the_slope_is_the_derivative() {
        for p in [0.01f32, 0.3, 0.5, 0.97] {
            let log_odds = |p: f64| (p / (1.0 - p)).ln();
            let (p64, h) = (f64::from(p), 1e-6);
            let expected = (log_odds(p64 + h) - log_odds(p64 - h)) / (2.0 * h);
            let found = f64::from(OneOutput::Probability.slope(p));
            assert!((found / expected - 1.0).abs() < 1e-4, "{p}: {found} {expected}");
            let found = f64::from(OneOutput::Probability.log_odds(p));
            assert!((found - log_odds(p64)).abs() < 1e-5 * log_odds(p64).abs().max(1.0));
        }
        assert!(OneOutput::Probability.slope(0.0).is_finite());
    }
}
