//! Fast adversarial training and honest robustness evaluation.
//!
//! Adversarial training solves `min over weights of E[max over |delta| <= eps of L(f(x + delta),
//! y)]`. Multi-step training (PGD) solves the inner problem well and slowly; single-step training
//! (FGSM and its successors) takes one gradient step and may suffer *catastrophic overfitting*:
//! single-step accuracy rises while multi-step accuracy collapses within a few batches. SORA (arXiv
//! 2606.00738) is a single-step method whose step size follows a second-order estimate that the
//! training pass yields for free.
//!
//! # From images to a measured network
//!
//! ```
//! use sora::{data::OpenOptions, prelude::*};
//!
//! // 1. Images and labels. `synthetic` draws them from a seed; "cifar10" or "folder:photos" read them.
//! let options = OpenOptions { limit_train: Some(64), limit_test: Some(8), ..Default::default() };
//! let data = sora::data::open("synthetic", &options)?;
//!
//! // 2. Training: a method, a network, and the settings that are not the defaults.
//! let run = Trainer::new("sora").model("mnist-cnn", 2).epochs(1).batch(16).fit(&data)?;
//! assert_eq!(run.summary.epochs, 1);
//!
//! // 3. The network is measured: clean, and under attacks of growing strength.
//! let found = Evaluation::of(&run.model).on(&data.test).attacks(["clean", "pgd-10"]).run()?;
//! assert_eq!(found.results.0.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//!
//! The order follows an image. [`data`] reads images and makes augmented batches. A [`method`]
//! turns a batch into a perturbation (under a [`threat`] model, with the [`noise`] of the step and
//! the [`gradient`] of the [`model`]) and a weight gradient; [`optim`] applies the gradient.
//! [`train`] is the loop: [`Trainer`] starts it and [`Observer`](train::Observer)s follow it.
//! [`run`] is the folder that it may write. [`diagnose`] detects catastrophic overfitting.
//! [`evaluate`] measures the result with [`attack`]s. [`exchange`] imports and exports weights and
//! networks. [`report`] draws what runs left behind.
//!
//! Images are pixels in [0, 1], `[N, C, H, W]`, everywhere: normalisation is the first layer of a
//! model, so every epsilon is in pixel units.

pub use compute::gradient;
pub use error::{Error, ErrorKind, Result};
pub use robustness::{self, attack, stats};
pub use sora_data as data;
pub use sora_plot as plot;
pub use train::Trainer;

pub mod compute;
pub mod config;
pub mod device;
pub mod diagnose;
pub mod error;
pub mod evaluate;
pub mod exchange;
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod loss;
pub mod method;
pub mod model;
mod names;
pub mod nn;
pub mod noise;
pub mod optim;
pub mod perturbation;
pub mod prelude;
pub mod profile;
pub mod ranks;
pub mod report;
pub mod run;
pub mod sealed;
pub mod threat;
pub mod train;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
