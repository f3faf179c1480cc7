//! What a source gives.

use crate::split::Split;

/// What a source reads.
pub(crate) struct Parts {
    pub train: Split,
    pub test: Split,
}
