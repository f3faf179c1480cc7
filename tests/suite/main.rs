//! Every integration test in one binary: linking Burn once is enough.

mod cli;
mod engine;
mod extras;
mod golden;
mod gradients;
mod methods;
mod resume;
mod support;
