//! Several processes where one is meant.

use std::{fs, process::Output};

use assert_cmd::Command;

use crate::cli::stderr;

/// The variables of every launcher; a test may itself run under one.
const LAUNCHERS: [&str; 6] = [
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE",
    "PMI_RANK",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
];

/// What `call` says as the process that `environment` describes.
fn output_of(environment: &[(&str, &str)], call: &[&str]) -> Output {
    let mut command = Command::cargo_bin("sora").unwrap();
    for name in LAUNCHERS.iter().chain(&["RUST_LOG"]) {
        command.env_remove(name);
    }
    command.args(call).envs(environment.iter().copied()).output().unwrap()
}

/// The exit status and standard error of `call` as the process that `environment` describes.
fn started_by(environment: &[(&str, &str)], call: &[&str]) -> (i32, String) {
    let output = output_of(environment, call);
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
    let second = [("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "1")];
    assert_eq!(started_by(&second, &wrong), (2, String::new()));
    assert_eq!(started_by(&second, &train), (2, String::new()), "so is a refusal");
    // What each task of srun does by itself, each tells by itself.
    assert!(started_by(&second, &["grid", "--shard", "9/8"]).1.contains("I/N"));
    assert!(!output_of(&second, &["methods"]).stdout.is_empty());
}

/// `srun` starts the parts of a grid; the runs of a part are one process each.
#[test]
fn what_this_program_starts_is_not_one_of_several() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grid.toml");
    fs::write(
        &file,
        "[train]\ndataset = 'synthetic'\nimage_size = 8\nwidth = 4\nbatch = 40\n\
         limit_train = 120\nlimit_test = 20\nval = 0\nepochs = 1\n[[runs]]\nmethod = 'fgsm'\n\
         seed = [0, 1]\n",
    )
    .unwrap();
    let (file, out) = (file.to_str().unwrap(), dir.path().join("out"));
    let call = ["grid", file, "--shard", "2/2", "--out", out.to_str().unwrap()];
    let told = ["--on-finish", "echo as ${SLURM_STEP_NUM_TASKS:-one}"];
    let second = [("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")];
    let output = output_of(&second, &[&call[..], &told].concat());
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("as one"), "{text}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("1 of 2 runs are not done"), "{table}");
    // Slurm's pmi2 sets MPICH's variables in the tasks of `srun`, too.
    let pmi2 = [("PMI_SIZE", "2"), ("PMI_RANK", "1")];
    let output = output_of(&[&second[..], &pmi2].concat(), &[&call[..], &["--status"]].concat());
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", stderr(&output));
    let output = output_of(&pmi2, &[&call[..], &["--status"]].concat());
    assert_eq!(output.status.code(), Some(2));
}
