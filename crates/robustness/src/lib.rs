//! Honest adversarial robustness of any image classifier.
//!
//! A network is a [`Classifier`]: logits of rows of pixels, and products of cotangents with their
//! Jacobian. Labelled images are [`Samples`]. Under a [`Threat`] (a [`Norm`] and an epsilon) an
//! [`Evaluator`] runs [`attack`]s on what still stands, projects, clips and scores what they return
//! by a forward pass of its own, and gives accuracies with intervals and warnings where a figure
//! should not be trusted ([`sanity`]). What it finds goes to a [`Ledger`], so that an evaluation
//! that was killed goes on where it was.
//!
//! Pixels lie in [0, 1] everywhere: a normalisation belongs to the classifier, and every epsilon is
//! in pixel units.

pub mod attack;
mod classifier;
mod error;
pub mod evaluate;
mod files;
mod identity;
mod observer;
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
pub use error::{Error, Result};
pub use evaluate::{EvalConfig, Evaluator, Ledger, Outcome, Report, Results};
pub use identity::{DataIdentity, Identity, WeightsIdentity};
pub use observer::{EvalEvent, EvalObserver, Standing};
pub use rows::Rows;
pub use samples::{InMemory, Samples};
pub use stats::Accuracy;
pub use threat::{Epsilon, Norm, Threat};
pub use toward::{NotOf, Toward};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
