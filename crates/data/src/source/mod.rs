//! One file per kind of source. Each gives the two splits; limits are applied afterwards, but a source may stop early.

pub(crate) mod cache;
pub(crate) mod cifar;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod synthetic;

use crate::split::Split;

/// What a source reads.
pub(crate) struct Parts {
    pub train: Split,
    pub test: Split,
}
