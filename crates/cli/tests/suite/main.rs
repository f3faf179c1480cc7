//! Every integration test in one binary: linking Burn once is enough.

mod attacks;
mod cli;
mod dashboard;
mod datasets;
mod engine;
mod evaluation;
mod exchange;
mod extras;
mod golden;
mod gradients;
mod grid;
mod guard;
mod methods;
mod models;
mod report;
mod resume;
mod shell;
mod support;
mod trust;
