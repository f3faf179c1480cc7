//! One module for each kind of source. Each returns the two splits; the caller applies limits
//! afterwards, but a source may stop early.

mod cache;
pub(crate) mod cifar;
mod encoded;
mod files;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod imagenet;
pub(crate) mod imagenette;
mod kept;
mod left_out;
pub(crate) mod mat;
pub(crate) mod npz;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "parquet/missing.rs"]
mod parquet;
mod parts;
mod pickle;
pub(crate) mod synthetic;
pub(crate) mod tiny_imagenet;
mod tree;
mod web_dataset;

#[cfg(any(test, fuzzing))]
pub(crate) use cache::load as load_cache;
pub(crate) use parts::Parts;
#[cfg(any(test, fuzzing))]
pub(crate) use pickle::read_batch;
