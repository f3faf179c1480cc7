#![doc = include_str!("../README.md")]

mod description;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod inference;
mod npy;
pub mod process;
mod served;

use std::time::Duration;

use robustness::OneOutput;

pub use description::{Answers, Description};
pub use error::{Error, Result};
pub use served::{Cost, Served};

/// What a model does not say of itself, and how it is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an answer may take, and the start of a program.
    pub timeout: Duration,
    /// How often an answer that did not come is asked for again.
    pub retries: u32,
    /// Images at a time, at most; a model may ask for fewer.
    pub batch: Option<usize>,
    /// Mean and standard deviation of each channel, for models that expect normalised images.
    pub normalisation: Option<Normalisation>,
    /// Height and width of the images, where a server leaves them open.
    pub image_size: Option<[usize; 2]>,
    /// The output with the answers, where a server has several.
    pub output: Option<String>,
    /// What the answer of a model of two classes with one output is; `None` takes it as a logit.
    pub one_output: Option<OneOutput>,
    /// Headers of every request to a URL, such as `("Authorization", "Bearer ...")`.
    pub headers: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            retries: 2,
            batch: None,
            normalisation: None,
            image_size: None,
            output: None,
            one_output: None,
            headers: Vec::new(),
        }
    }
}

/// What is done with pixels in [0, 1] before they are sent: `(x - mean) / std`, by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
}

/// A way to a model.
trait Transport: std::fmt::Debug + Send {
    /// What it takes and gives; starts it where it does not run yet.
    fn describe(&mut self) -> Result<Description>;

    /// Answers to `n` images `x`, values of the model's shape: `n` rows of logits, or `n` classes.
    fn ask(&mut self, x: &[f32], n: usize, description: &Description) -> Result<Vec<f32>>;
}
