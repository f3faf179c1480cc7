//! The CPU engine as the program shows it: bf16 runs, benchmarks, the profile.

use serde_json::Value;

use crate::{
    cli::{SHORT, sora, stderr},
    resume::same,
};

#[test]
fn a_bf16_run_resumes_to_the_same_bits_and_is_evaluated_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    for run in [&whole, &broken] {
        let call = [
            &[
                "train",
                "--out",
                run.to_str().unwrap(),
                "--precision",
                "bf16",
                "--checkpoint-steps",
                "1",
            ],
            SHORT,
        ]
        .concat();
        let output = sora(&call);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let config = std::fs::read_to_string(whole.join("config.toml")).unwrap();
    assert!(config.contains("precision = \"bf16\""), "{config}");
    // Back to the checkpoint before the last: what a kill would have left.
    let mut checkpoints: Vec<_> = std::fs::read_dir(broken.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    std::fs::remove_dir_all(checkpoints.pop().unwrap()).unwrap();
    std::fs::remove_file(broken.join("model.safetensors")).unwrap();
    let output = sora(&["resume", broken.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
}

fn bench(call: &[&str]) -> Value {
    let output = sora(call);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nothing_large_is_allocated_after_the_first_step() {
    for precision in ["f32", "bf16"] {
        let call = [
            "bench",
            "step",
            "--width",
            "16",
            "--batch",
            "16",
            "--image-size",
            "32",
            "--steps",
            "3",
            "--precision",
            precision,
        ];
        let value = bench(&call);
        assert_eq!(value["pool_misses_after_first_step"], 0, "{value}");
        assert!(
            value["pool_mib"].as_u64().unwrap() > 0,
            "the buffers of this size come from the pool: {value}"
        );
    }
}

#[test]
fn convolutions_are_timed_next_to_the_peak() {
    let output = sora(&[
        "bench",
        "conv",
        "--width",
        "4",
        "--batch",
        "2",
        "--image-size",
        "8",
        "--seconds",
        "0",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |precision: &str| lines.iter().filter(|line| line["precision"] == precision).count();
    assert!(of("f32") > 10 && of("f32") == of("bf16"), "{} and {}", of("f32"), of("bf16"));
    assert_eq!(sora(&["bench", "conv", "--width", "0"]).status.code(), Some(2));
}

#[test]
fn an_attack_computes_nothing_for_weight_gradients() {
    let call = [
        "bench",
        "attack",
        "--attack",
        "pgd-2",
        "--width",
        "8",
        "--batch",
        "8",
        "--image-size",
        "16",
        "--steps",
        "1",
        "--profile",
    ];
    let value = bench(&call);
    let seconds = |part: &str| value["profile"][part].as_f64().unwrap();
    assert!(seconds("conv_forward") > 0.0 && seconds("conv_input_grad") > 0.0, "{value}");
    assert_eq!((seconds("conv_weight_grad"), seconds("norm_again")), (0.0, 0.0), "{value}");
    for key in [
        "median_s",
        "min_s",
        "images_per_s",
        "peak_rss_mib",
        "threads",
        "isa",
        "attack",
        "width",
        "batch",
        "precision",
    ] {
        assert!(!value[key].is_null(), "{key} in {value}");
    }
    assert_eq!(sora(&["bench", "attack", "--attack", "clean"]).status.code(), Some(2));
    assert_eq!(sora(&["bench", "attack", "--attack", "no-such"]).status.code(), Some(2));
}
