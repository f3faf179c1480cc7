//! Honest adversarial robustness of any image classifier.
//!
//! A network is a [`Classifier`]: it computes logits of rows of pixels, and products of cotangents
//! with their Jacobian. Labelled images are [`Samples`]. Under a [`Threat`] (a [`Norm`] and an
//! epsilon) an [`Evaluator`] runs [`attack`]s on the images that are still classified correctly. It
//! projects, clips and scores the attacks' candidates by a forward pass of its own, and reports
//! accuracies with intervals, and warnings where a figure should not be trusted ([`sanity`]). It
//! writes its findings to a [`Ledger`], so that an evaluation that was killed continues where it
//! stopped.
//!
//! Pixels lie in [0, 1] everywhere: a normalisation belongs to the classifier, and every epsilon is
//! in pixel units.

pub mod attack;
mod classifier;
pub mod corruption;
mod error;
pub mod evaluate;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod observer;
mod one_output;
pub mod rows;
mod samples;
pub mod sanity;
pub mod stats;
mod threat;
mod toward;

pub use attack::{Attack, AttackContext, Entry, entry};
pub use classifier::{
    Access, Classifier, Cotangent, Incremental, PullBack, Shape, predicted, stands,
};
pub use corruption::Corruption;
pub use error::{Error, Result};
pub use evaluate::{EvalConfig, Evaluator, Ledger, Outcome, Report, Results};
pub use identity::{DataIdentity, Identity, WeightsIdentity};
pub use observer::{EvalEvent, EvalObserver, Standing};
pub use one_output::OneOutput;
pub use rows::Rows;
pub use samples::{InMemory, Samples};
pub use stats::Accuracy;
pub use threat::{Epsilon, Norm, Threat};
pub use toward::{NotOf, Toward};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
