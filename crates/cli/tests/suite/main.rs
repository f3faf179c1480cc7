//! Every integration test in one binary: linking Burn once is enough.

#![allow(clippy::unwrap_used, clippy::panic)]

mod black_box;
mod browser;
mod cli;
mod dashboard;
mod datasets;
mod devices;
mod engine;
mod evaluation;
mod exchange;
mod extras;
mod grid;
mod guard;
mod identity;
mod ingredients;
mod init;
mod onnx;
mod page;
mod privacy;
mod report;
mod resume;
mod shell;
mod signals;
#[allow(dead_code)]
#[path = "../../../sora/tests/suite/support.rs"]
mod support;
mod trust;
mod world;
