//! The integration tests that need no program, in one binary: linking Burn once is enough.

#![allow(clippy::unwrap_used, clippy::panic)]

mod attacks;
mod builder;
mod engine;
mod exchange;
mod golden;
mod gradients;
mod imported;
mod late;
mod methods;
mod models;
mod ranks;
mod support;
