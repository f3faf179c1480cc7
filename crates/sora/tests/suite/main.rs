//! The integration tests that need no program, in one binary: linking Burn once is enough.

mod attacks;
mod builder;
mod engine;
mod exchange;
mod golden;
mod gradients;
mod methods;
mod models;
mod support;
