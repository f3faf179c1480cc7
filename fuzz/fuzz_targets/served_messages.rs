//! See `crates/served/src/fuzzing.rs`.
#![no_main]

use sora_served::fuzzing::served_messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| served_messages(bytes));
