//! The result of reading a source.

use crate::split::Split;

/// The splits and facts that a source returns.
pub(crate) struct Parts {
    pub train: Split,
    pub test: Split,
}
