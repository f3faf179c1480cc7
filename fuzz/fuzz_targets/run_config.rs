//! See `crates/sora/src/fuzzing.rs`.
#![no_main]

use sora::fuzzing::run_config;

libfuzzer_sys::fuzz_target!(init: sora_robust_fuzz::one_thread(), |bytes: &[u8]| run_config(bytes));
