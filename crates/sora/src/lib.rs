//! Fast adversarial training and honest robustness evaluation.
//!
//! Adversarial training solves `min over weights of E[max over |delta| <= eps of L(f(x + delta),
//! y)]`. Multi-step training (PGD) solves the inner problem well and slowly; single-step training
//! (FGSM and its successors) takes one gradient step and may suffer *catastrophic overfitting*:
//! single-step accuracy rises while multi-step accuracy collapses within a few batches. SORA (arXiv
//! 2606.00738) is a single-step method whose step size follows a second-order estimate that the
//! training pass yields for free.
//!
//! The pipeline, in order: [`data`] reads images and makes augmented batches; a [`method`] turns a
//! batch into a perturbation (under a [`threat`] model, with the [`noise`] of the step and the
//! [`gradient`] of the [`model`]) and a weight gradient; [`optim`] applies it; [`train`] is the
//! loop with its metrics and checkpoints; [`evaluate`] measures the result with [`attack`]s.
//!
//! Images are pixels in [0, 1], `[N, C, H, W]`, everywhere: normalisation is the first layer of a
//! model, so every epsilon is in pixel units.

pub use compute::gradient;
pub use error::{Error, ErrorKind, Result};
pub use robustness::{self, attack, stats};
pub use sora_data as data;
pub use sora_plot as plot;

pub mod average;
pub mod checkpoint;
pub mod compute;
pub mod config;
pub mod device;
pub mod diagnose;
pub mod error;
pub mod evaluate;
pub mod exchange;
pub mod files;
pub mod follow;
pub mod loss;
pub mod method;
pub mod metrics;
pub mod model;
mod names;
pub mod nn;
pub mod noise;
pub mod optim;
pub mod perturbation;
pub mod profile;
pub mod recipe;
pub mod report;
pub mod run;
pub mod tensorboard;
pub mod threat;
pub mod train;
pub mod ui;
