//! See `crates/robustness/src/fuzzing.rs`.
#![no_main]

use robustness::fuzzing::evaluation_words;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evaluation_words(bytes));
