//! Several processes where one is meant.

use assert_cmd::Command;

use crate::cli::stderr;

/// The variables of every launcher; a test may itself run under one.
const LAUNCHERS: [&str; 5] = [
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE",
    "PMI_RANK",
    "SLURM_STEP_NUM_TASKS",
];

/// The exit status and standard error of `call` as the process that `environment` describes.
fn started_by(environment: &[(&str, &str)], call: &[&str]) -> (i32, String) {
    let mut command = Command::cargo_bin("sora").unwrap();
    for name in LAUNCHERS.iter().chain(&["RUST_LOG"]) {
        command.env_remove(name);
    }
    let output = command.args(call).envs(environment.iter().copied()).output().unwrap();
    (output.status.code().unwrap(), stderr(&output))
}

#[test]
fn a_program_for_one_process_refuses_to_be_one_of_several() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("run");
    let train = ["train", "--dataset", "synthetic", "--out", out.to_str().unwrap()];
    let launchers = [
        [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "0")],
        [("PMI_SIZE", "4"), ("PMI_RANK", "0")],
        [("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "0")],
    ];
    for launcher in launchers {
        let (status, text) = started_by(&launcher, &train);
        assert_eq!(status, 2, "{text}");
        let size = format!("has {} processes", launcher[0].1);
        assert!(text.starts_with("error: ") && text.contains(&size), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    assert!(!out.exists());
    // A command that cannot be shared out, and one in the script of a job.
    let (status, text) = started_by(&launchers[0], &["methods"]);
    assert!(status == 2 && text.contains("works in one process"), "{text}");
    assert_eq!(started_by(&launchers[2], &["methods"]).0, 0);
    assert_eq!(started_by(&[("OMPI_COMM_WORLD_SIZE", "1")], &["methods"]).0, 0);
    // A wrong call is told once: by the first.
    let wrong = ["train", "--no-such-flag"];
    assert!(started_by(&launchers[0], &wrong).1.contains("--no-such-flag"));
    let second = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")];
    assert_eq!(started_by(&second, &wrong), (2, String::new()));
}
