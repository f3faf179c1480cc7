//! Reads hostile ONNX files, and runs what is read.
//!
//! A file may be refused with one line, or computed; it must not panic, nor ask for memory or time
//! beyond measure. The seeds (fuzz/seeds/onnx.py) are the networks of `crates/onnx/tests/golden`, one an operator.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sora_onnx::{Network, Options};

/// Values of the largest images that are computed.
const MOST: usize = 1 << 14;

fuzz_target!(init: sora_robust_fuzz::one_thread(), |data: &[u8]| {
    match Network::from_bytes(data, "m.onnx", &Options::default()) {
        Err(e) => assert!(!e.to_string().contains('\n') && !e.to_string().is_empty()),
        Ok(network) => {
            let shape = network.shape();
            if shape.pixels() > MOST || shape.classes > MOST {
                return;
            }
            let x = vec![0.5; shape.pixels()];
            let _ = network.pull_back(&x, &mut |_, logits| vec![1.0; logits.len()]);
        }
    }
});
