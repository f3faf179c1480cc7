//! Devices that are not there, and precisions that a device does not have: one line, exit status 2,
//! and nothing written. With a device's feature on (`--features vulkan`, ...) the program looks for
//! a driver, which is hidden from it here; without, it says how to build it in.

use assert_cmd::Command;

use crate::cli::{SHORT, refused, stderr};

/// Whether this program was built with `device`.
fn built_with(device: &str) -> bool {
    match device {
        "cuda" => cfg!(feature = "cuda"),
        "rocm" => cfg!(feature = "rocm"),
        "wgpu" => cfg!(feature = "wgpu"),
        "vulkan" => cfg!(feature = "vulkan"),
        _ => cfg!(feature = "metal"),
    }
}

#[test]
fn a_device_that_is_not_there_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // Where the system's own interface is built in there is nothing to hide.
    let devices = ["cuda", "rocm", "vulkan", "wgpu", "metal"];
    for device in devices.into_iter().filter(|_| cfg!(target_os = "linux")) {
        let output = Command::cargo_bin("sora")
            .unwrap()
            .args([&["train", "--out", out.to_str().unwrap(), "--device", device], SHORT].concat())
            .env_remove("RUST_LOG")
            .envs([("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere")])
            .envs([("CUDA_VISIBLE_DEVICES", "-1"), ("HIP_VISIBLE_DEVICES", "-1")])
            .envs([("ROCR_VISIBLE_DEVICES", "-1"), ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere")])
            .output()
            .unwrap();
        let text = stderr(&output);
        if device == "wgpu" && built_with(device) && output.status.success() {
            // It found OpenGL.
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{device}: {text}");
        assert_eq!(text.lines().count(), 1, "{device}: {text}");
        assert!(text.starts_with("error: ") && text.contains(device), "{device}: {text}");
        let built =
            format!("built without it; rebuild with `cargo build --release --features {device}`");
        assert_eq!(text.contains(&built), !built_with(device), "{device}: {text}");
        assert!(!out.exists(), "{device}: no run begins");
    }
}

#[test]
fn a_precision_that_the_cpu_does_not_have_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let call = [&["train", "--out", out.to_str().unwrap(), "--precision", "tf32"], SHORT].concat();
    refused(&call, &["--precision tf32", "f32 or bf16"]);
    assert!(!out.exists());
    refused(&["bench", "step", "--precision", "tf32", "--width", "4"], &["tf32", "f32 or bf16"]);
    refused(&["bench", "conv", "--precision", "tf32"], &["--precision tf32", "f32 or bf16"]);
}

#[test]
fn comparing_the_cpu_with_itself_agrees_in_every_case_asked_for() {
    let call = ["bench", "agree", "--device", "cpu", "--batch", "4", "--image-size", "8"];
    for only in ["method sora", "network mnist-cnn", "resume", "bf16 fgsm"] {
        let output = crate::cli::sora(&[&call[..], &["--only", only]].concat());
        assert!(output.status.success(), "{only}: {}", stderr(&output));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(case["result"], "agrees", "{case}");
            assert_eq!(case["off"], 0.0, "{case}");
        }
    }
    let output = crate::cli::sora(&[&call[..], &["--only", "tf32 sora"]].concat());
    let case: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(case["result"], "refused", "{case}");
    refused(&[&call[..], &["--only", "nothing like it"]].concat(), &["no case"]);
}
