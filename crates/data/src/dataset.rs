//! A data set opened for use.

use std::sync::Arc;

use crate::info::Info;
use crate::split::Split;

/// A data set opened for use.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Description, with `mean` and `std` filled in.
    pub info: Info,
    /// Training split.
    pub train: Arc<Split>,
    /// Test split.
    pub test: Arc<Split>,
}
