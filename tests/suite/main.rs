//! Every integration test in one binary: linking Burn once is enough.

mod cli;
mod extras;
mod golden;
mod gradients;
mod methods;
mod report;
mod resume;
mod support;
