//! See `crates/robustness/src/fuzzing.rs`.
#![no_main]

use robustness::fuzzing::evaluation_state;

libfuzzer_sys::fuzz_target!(init: sora_robust_fuzz::one_thread(), |bytes: &[u8]| evaluation_state(bytes));
