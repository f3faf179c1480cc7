//! The commands: one file per command, with its arguments.

pub mod attacks;
pub mod bench;
pub mod completions;
pub mod data;
pub mod diagnose;
pub mod eval;
pub mod export;
pub mod grid;
pub mod help;
pub mod import;
pub mod landscape;
pub mod man;
pub mod methods;
pub mod models;
pub mod plot;
pub mod reference;
pub mod report;
pub mod reproduce;
pub mod resume;
pub mod schema;
mod shared;
pub mod sweep;
pub mod train;
pub mod watch;
