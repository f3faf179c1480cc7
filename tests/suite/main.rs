//! Every integration test in one binary: linking Burn once is enough.

mod cli;
mod exchange;
mod extras;
mod golden;
mod gradients;
mod methods;
mod models;
mod resume;
mod support;
