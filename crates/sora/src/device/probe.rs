//! Checks that a device exists and computes, before anything relies on it.
//!
//! Burn initialises a device at its first use, and panics there if a driver, an adapter or a
//! compiler's library is missing. The first use is therefore made here, with a small computation,
//! and its panic becomes a line.

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor};

use crate::error::{Error, Result};

/// Devices that have answered in this process.
static ANSWERED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The device that `bring_up` makes, after it has computed something; `name` is the user's name of
/// it.
///
/// # Errors
/// A device that does not exist or computes wrongly, in one line that says what to do.
pub(super) fn probed(name: &str, bring_up: impl Fn() -> Device) -> Result<Device> {
    // The lock is held to the end, because the panic hook belongs to the whole process.
    let mut answered = ANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    if answered.contains(name) {
        return Ok(bring_up());
    }
    let device = first_use(&bring_up)
        .map_err(|panic| Error::setting("device", name, cause(name, &panic)))?;
    answered.insert(name.to_owned());
    Ok(device)
}

/// Runs a kernel with a function of the device's mathematical library.
fn first_use(bring_up: &impl Fn() -> Device) -> Result<Device, String> {
    quietly(|| {
        let device = bring_up();
        let x = Tensor::<1>::from_data([0.0, 1.0], &device);
        let y =
            (x.exp() + 1.0).log().into_data().try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
        let right = y.len() == 2
            && (y[0] - std::f32::consts::LN_2).abs() < 1e-4
            && (y[1] - 1.313_262).abs() < 1e-4;
        if right { Ok(device) } else { Err(format!("log(1 + exp x) at 0 and 1 gave {y:?}")) }
    })
}

/// Runs `f`; a panic in it, or in a thread that it waits for, becomes an error with the first
/// message.
fn quietly<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let first = Arc::new(Mutex::new(None));
    let hook = panic::take_hook();
    let seen = first.clone();
    panic::set_hook(Box::new(move |info| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get_or_insert_with(|| info.payload_as_str().unwrap_or("it panicked").to_owned());
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    panic::set_hook(hook);
    let message = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match result {
        Ok(Err(error)) => Err(message.unwrap_or(error)),
        Ok(value) => value,
        Err(_) => Err(message.unwrap_or_else(|| "it panicked".to_owned())),
    }
}

/// Texts of panics, each with the user's remedy.
const CAUSES: [(&str, &str); 8] = [
    ("libdevice", "libdevice.10.bc is missing; install the CUDA toolkit, or set CUDA_PATH to one"),
    (
        "dynamically load",
        "its driver is missing (no shared library of it can be loaded); install the driver, or use cpu",
    ),
    ("NO_DEVICE", "the driver knows no such card; `nvidia-smi` lists them"),
    ("INVALID_DEVICE", "the driver knows no card of this number; `nvidia-smi` lists them"),
    ("CUDA_ERROR", "the NVIDIA driver does not start; see `nvidia-smi`"),
    ("HIP_ERROR", "the AMD driver does not start; see `rocminfo`"),
    (
        "dapter",
        "no graphics adapter of this kind answers; `vulkaninfo --summary` lists those of Vulkan",
    ),
    ("No Discrete GPU", "there is no discrete card of this number; leave the number out"),
];

/// The fault of the device called `name`, in one line.
fn cause(name: &str, panic: &str) -> String {
    let known = CAUSES.iter().find(|(word, _)| panic.contains(word)).map(|(_, cause)| *cause);
    let mut line: String = panic.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(160) {
        line.truncate(end);
        line.push_str("...");
    }
    match known {
        Some(cause) => format!("{cause} ({line})"),
        None => format!("{name} does not answer: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_computes_is_taken() {
        assert!(probed("flex", Device::flex).is_ok());
        assert!(ANSWERED.lock().unwrap().contains("flex"));
    }

    #[test]
    fn a_panic_at_the_first_use_is_one_line() {
        let broken = || -> Device { panic!("Unable to dynamically load the \"cuda\"\nlibrary") };
        let line = probed("broken:1", broken).unwrap_err().to_string();
        assert!(line.contains("broken:1") && line.contains("driver is missing"), "{line}");
        assert!(!line.contains('\n'), "{line}");
        // The device is probed again, because a driver may have been installed meanwhile.
        assert!(probed("broken:1", broken).is_err());
    }

    #[test]
    fn a_panic_in_a_thread_of_the_device_gives_the_reason() {
        let broken = || -> Device {
            let device = std::thread::spawn(|| panic!("CUDA_ERROR_NO_DEVICE"));
            device.join().map_err(|_| "the thread is gone").unwrap();
            Device::flex()
        };
        let line = probed("thread", broken).unwrap_err().to_string();
        assert!(line.contains("knows no such card"), "{line}");
    }
}
