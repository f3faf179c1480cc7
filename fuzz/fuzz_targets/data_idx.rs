//! See `crates/data/src/fuzzing.rs`.
#![no_main]

use sora_data::fuzzing::data_idx;

libfuzzer_sys::fuzz_target!(init: sora_robust_fuzz::one_thread(), |bytes: &[u8]| { data_idx(bytes); });
