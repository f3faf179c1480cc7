//! A data set opened for use.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::info::Info;
use crate::split::{Split, SplitIdentity};

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

/// The content of both splits of a [`Dataset`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetIdentity {
    /// Content of the training split.
    pub train: SplitIdentity,
    /// Content of the test split.
    pub test: SplitIdentity,
}

impl Dataset {
    /// The content identity of both splits; see [`Split::identity`].
    ///
    /// # Errors
    /// Those of [`Split::image`].
    pub fn identity(&self) -> Result<DatasetIdentity> {
        Ok(DatasetIdentity { train: self.train.identity()?, test: self.test.identity()? })
    }
}

impl DatasetIdentity {
    /// Says how this data set differs from `before`, in words for one line; `None` when both are
    /// the same.
    pub fn difference(&self, before: &Self) -> Option<String> {
        let split = |name, now: &SplitIdentity, then| {
            now.difference(then).map(|difference| format!("{name} set: {difference}"))
        };
        split("training", &self.train, &before.train)
            .or_else(|| split("test", &self.test, &before.test))
    }
}
