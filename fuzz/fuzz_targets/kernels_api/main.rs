//! Calls the whole safe interface of the kernels with hostile sizes.
//!
//! A call may refuse, but not panic, and AddressSanitizer watches its memory: slices are heap
//! allocations of exactly the length that is passed. Outputs are filled with NaN before a call that
//! overwrites them, and all inputs are small numbers: an accepted call must leave numbers alone,
//! else it returned memory that it never wrote.
#![no_main]

mod branch;
mod conv;
mod input;
mod norm;
mod rest;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use sora_kernels::bf16;

use branch::branch;
use conv::{conv, linear};
use input::Input;
use norm::{batch_norm, layer_norm};
use rest::{attention, elementwise, layout, loss, pool};

fn run(u: &mut Input<'_>) -> Result<()> {
    let half: bool = u.arbitrary()?;
    match u.int_in_range(0..=16u8)? {
        0..=7 if half => conv::<bf16>(u),
        0..=7 => conv::<f32>(u),
        8 if half => batch_norm::<bf16>(u),
        8 => batch_norm::<f32>(u),
        9 if half => layer_norm::<bf16>(u),
        9 => layer_norm::<f32>(u),
        10 if half => pool::<bf16>(u),
        10 => pool::<f32>(u),
        11 => attention(u),
        12 if half => elementwise::<bf16>(u),
        12 => elementwise::<f32>(u),
        13 => loss(u),
        14 if half => layout::<f32, bf16>(u),
        14 => layout::<f32, f32>(u),
        15 if half => branch::<bf16>(u),
        15 => branch::<f32>(u),
        _ if half => linear::<bf16>(u),
        _ => linear::<f32>(u),
    }
}

fuzz_target!(init: sora_robust_fuzz::one_thread(), |data: &[u8]| {
    // An input that ends too early stops there.
    let _ = run(&mut Unstructured::new(data));
});
