//! Images before they become tensors: sources, seeded batches, augmentation, download.
//!
//! The path of an image: [`open()`] reads a data set ([`Dataset`], [`Split`]). A small set is kept
//! in memory as bytes, a large one as a list of [`Pictures`] that are decoded when their batch is
//! made. [`Split::hold_out`] takes a validation split from the training images. A [`Loader`]
//! returns [`Batch`]es of `f32` in \[0, 1\], shuffled and [augmented](Augment) from counter-based
//! random streams ([`sora_rng`]), so that the same seed gives the same bits for every number of
//! threads and across a kill and resume. [`registry()`] lists the sets known by name; [`fetch()`]
//! downloads one.
//!
//! ```
//! use sora_data::{Augment, Loader, LoaderOptions, OpenOptions, open};
//! let few =
//!     OpenOptions { limit_train: Some(256), limit_test: Some(64), ..Default::default() };
//! let data = open("synthetic", &few)?;
//! let (train, val) = data.train.hold_out(56, 0)?;
//! assert_eq!((train.len(), val.len(), data.test.len()), (200, 56, 64));
//! let loader = Loader::new(train.into(), LoaderOptions::train(32, 0, Augment::NONE))?;
//! for batch in loader.epoch(0, 0) {
//!     assert_eq!(batch?.shape, [32, 3, 32, 32]);
//! }
//! # Ok::<(), sora_data::DataError>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod augment;
mod dataset;
mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod info;
mod loader;
mod memory;
mod open;
mod options;
mod paths;
mod picture;
mod registry;
mod source;
mod split;
mod text;
mod window;

pub use augment::{Augment, AugmentDraw, Crop};
pub use dataset::{Dataset, DatasetIdentity};
pub use error::{DataError, Fix, Remedy, Result};
pub use fetch::{FetchOptions, FetchProgress, fetch};
pub use info::{Checksum, Info, Reader, Source};
pub use loader::{Batch, Epoch, Extra, Loader, LoaderOptions, Share};
pub use open::{comes_in, open};
pub use options::{Channels, OpenOptions, Orientation};
pub use paths::{data_dir, expand_home, without_place};
pub use picture::{Fit, Picture, Pictures};
pub use registry::{find, registry};
pub use split::{Split, SplitIdentity};
pub use window::CropWindow;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
