//! ONNX networks on the CPU, with gradients.
//!
//! [`Network::open`] reads a file and returns an image classifier: [`Network::logits`] of rows of
//! pixels and, for attacks, [`Network::pull_back`]. A file may keep its tensors beside it, may have
//! any batch axis, and may ask for opsets 7 to 23; an error names in one line what is not
//! supported.
//!
//! ```no_run
//! use sora_onnx::{Network, Options};
//!
//! let network = Network::open("resnet18.onnx".as_ref(), &Options::default())?;
//! let shape = network.shape();
//! let image = vec![0.5; shape.channels * shape.height * shape.width];
//! let logits = network.logits(&image)?;
//! assert_eq!(logits.len(), shape.classes);
//! # Ok::<(), sora_onnx::Error>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod attributes;
mod buffers;
mod cache;
mod classifier;
mod elementwise;
mod error;
mod file;
mod functions;
mod graph;
mod network;
mod ops;
pub mod proto;
mod value;

pub use error::{Error, Result};
pub use network::{
    Gradients, Network, Normalisation, Options, Role, Tape, Trainable, Values, Wanted, Weight,
};
pub use robustness::Shape;

/// Names of the supported operators, in alphabetical order.
pub fn operators() -> &'static [&'static str] {
    ops::NAMES
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
