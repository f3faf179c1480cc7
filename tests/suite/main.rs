//! Every integration test in one binary: linking Burn once is enough.

mod cli;
mod dashboard;
mod extras;
mod golden;
mod gradients;
mod guard;
mod methods;
mod resume;
mod support;
