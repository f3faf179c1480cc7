//! Helpers that the tests share.

// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod classifiers;
pub mod golden;
