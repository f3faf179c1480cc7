//! The guard against catastrophic overfitting, and what a user sees of a run: rollback, its
//! records, the terminal view, event files.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{self, Command, Stdio},
    sync::Arc,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sora::{
    Trainer,
    config::TrainConfig,
    error::Result,
    method::{self, Method, MethodInfo, Options, Passes, StepContext, StepOutput, TrainBatch},
    nn::{BnMode, HostTensor},
    run,
    threat::Norm,
    train::Threads,
};

use crate::{
    cli::{SHORT, refused, sora, stderr, train_short},
    resume::same,
};

/// FGSM that claims a PertAlign which falls at a given step: what the guard does must not hang on
/// what a tiny network happens to do.
#[derive(Debug)]
struct Falling {
    fall: u64,
    step: u64,
}

impl Method for Falling {
    fn step(&mut self, cx: &mut StepContext<'_>, batch: &TrainBatch) -> Result<StepOutput> {
        let grad = cx.input_gradient(batch.x.clone(), &batch.labels).grad;
        let delta = batch.clamp_to_box(grad.clone().sign() * cx.threat.epsilon);
        let mut out = cx.train(batch, delta, Some(grad))?;
        let metrics = out.metrics.get()?;
        metrics.pert_align = if self.step < self.fall { 0.9 } else { 0.05 };
        metrics.linearity = metrics.pert_align;
        self.step += 1;
        Ok(out)
    }

    fn state(&self) -> Result<Vec<HostTensor>> {
        Ok(vec![HostTensor { name: "step".into(), shape: vec![1], data: vec![self.step as f32] }])
    }

    fn load_state(&mut self, state: &BTreeMap<String, HostTensor>) -> Result<()> {
        self.step = state["step"].data[0] as u64;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct FallingOptions {
    fall: u64,
}

static FALLING: MethodInfo = MethodInfo {
    name: "falling",
    summary: "-",
    source: "-",
    norms: &[Norm::Linf],
    attack_bn: BnMode::Train,
    stored_images: 0,
    passes: Passes { forward: 2, backward_input: 1, backward_full: 1 },
    bound: 1.0,
    options: || Options::of(&FallingOptions { fall: 0 }),
    build: |options, _| {
        Ok(Box::new(Falling { fall: options.parse::<FallingOptions>("falling")?.fall, step: 0 }))
    },
};

/// The process that the rollback test kills: this binary again, with the run folder in the
/// environment.
#[test]
#[ignore = "only as a child of the rollback test"]
fn child() {
    let (Ok(out), Ok(more)) = (env::var("SORA_TEST_OUT"), env::var("SORA_TEST_CONFIG")) else {
        return;
    };
    method::register(&FALLING).unwrap();
    let out = Path::new(&out);
    let trainer = if out.join("config.toml").exists() {
        Trainer::resume(out, None).unwrap()
    } else {
        fs::remove_dir_all(out).ok();
        Trainer::from_config(TrainConfig::from_toml(&more).unwrap()).in_dir(out)
    };
    let dataset = run::open_dataset(&trainer.config().unwrap()).unwrap();
    if let Err(e) = trainer.fit(&dataset) {
        let failure = sora_cli::error::Failure::from(e);
        eprintln!("{}", sora_cli::render::line(&failure));
        process::exit(failure.exit_code().into());
    }
}

/// Starts (or goes on with) a run of the method above in `out`.
fn falling(out: &Path, more: &str) -> Command {
    let config = format!(
        "dataset = 'synthetic'\nimage_size = 8\nwidth = 4\nlimit_train = 260\nlimit_test = 50\nval \
         = 20\nseed = 7\nmethod = 'falling'\n{more}"
    );
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "guard::child", "--nocapture"])
        .env("SORA_TEST_OUT", out)
        .env("SORA_TEST_CONFIG", config);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Two threads as the ranks of a training.
#[test]
fn a_rollback_goes_back_on_every_rank() {
    method::register(&FALLING).unwrap();
    let root = tempfile::tempdir().unwrap();
    let text = "dataset = 'synthetic'\nimage_size = 8\nwidth = 4\nlimit_train = 260\nlimit_test = 50\n\
                val = 20\nseed = 7\nmethod = 'falling'\nbatch = 40\nepochs = 9\n\
                options = { fall = 40 }\ncheckpoint_steps = 4\non_co = 'rollback'\n";
    let config = TrainConfig::from_toml(text).unwrap();
    let data = run::open_dataset(&config).unwrap();
    let train = |out: &Path, link: Threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let trained = pool.install(|| {
            let trainer = Trainer::from_config(config.clone()).in_dir(out);
            trainer.communicator(Arc::new(link)).fit(&data)
        });
        let trained = trained.unwrap();
        let rollback = trained.summary.rollback.expect("it went back");
        (rollback.to_step, trained.model.to_host().unwrap())
    };
    let run = |name: &str| {
        let out = root.path().join(name);
        let both: Vec<_> = thread::scope(|scope| {
            let start = |link| scope.spawn(|| train(&out, link));
            let ranks: Vec<_> = Threads::of(2).into_iter().map(start).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(both[0].0 > 0 && both[0] == both[1], "both to the same step and weights");
        both
    };
    assert_eq!(run("once"), run("again"));
}

#[test]
fn a_rollback_is_recorded_and_survives_kills_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    // 6 steps an epoch, 72 in all.
    let settings =
        "batch = 40\nepochs = 12\noptions = { fall = 40 }\ncheckpoint_steps = 4\nkeep = 1\n";
    let guarded = format!("on_co = 'rollback'\n{settings}");
    let started = Instant::now();
    let output = falling(&whole, &guarded).output().unwrap();
    let length = started.elapsed();
    assert!(output.status.success(), "{}", stderr(&output));

    // The records: the step it went back to, the steps thrown away, the methods.
    let lines = json_lines(&whole.join("metrics.jsonl"));
    assert!(
        lines.len() == 72 && lines.iter().enumerate().all(|(i, line)| line["step"] == i),
        "each step once, in order"
    );
    let first = lines.iter().position(|line| line["rollback"].is_object()).expect("a line says so");
    let rollback = &lines[first]["rollback"];
    let step = |value: &Value| value.as_u64().unwrap();
    let (to, onset, noticed) =
        (step(&rollback["to_step"]), step(&rollback["co"]["onset"]), step(&rollback["co"]["step"]));
    assert_eq!(
        (first as u64, &rollback["from_method"], &rollback["method"]),
        (to, &"falling".into(), &"sora".into())
    );
    assert!((30..=40).contains(&onset) && (40..46).contains(&noticed), "{rollback}");
    assert!(to <= onset && to + 4 > onset, "to the last checkpoint before the onset: {rollback}");
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["method"].as_str(), (i >= first).then_some("sora"), "step {i}");
    }
    let abandoned = json_lines(&whole.join("abandoned.jsonl"));
    let steps: Vec<_> = abandoned.iter().map(|line| step(&line["step"])).collect();
    assert_eq!(steps, (to..=noticed).collect::<Vec<_>>());
    assert_eq!(abandoned.last().unwrap()["co"], rollback["co"]);
    let summary: Value =
        serde_json::from_slice(&fs::read(whole.join("summary.json")).unwrap()).unwrap();
    assert_eq!(&summary["rollback"], rollback);
    assert_eq!(&json_lines(&whole.join("epochs.jsonl")).pop().unwrap()["rollback"], rollback);
    assert_eq!(json_lines(&whole.join("epochs.jsonl")).len(), 12, "each epoch once");
    // The abandoned steps have cost their passes: two forward passes each, like those of SORA.
    assert_eq!(summary["passes"]["forward"], 2 * (lines.len() + abandoned.len()));
    let config = fs::read_to_string(whole.join("config.toml")).unwrap();
    assert!(
        config.contains("on_co = \"rollback\"") && config.contains("on_co_method = \"sora\""),
        "{config}"
    );
    let weights =
        String::from_utf8_lossy(&fs::read(whole.join("model.safetensors")).unwrap()[..2000])
            .into_owned();
    assert!(
        weights.contains(&format!("falling, from step {to} sora")),
        "the weights name both methods"
    );

    // Kills at moments spread over the run, and as soon as a rollback shows.
    let mut kills = 0;
    for attempt in 0..6u32 {
        let mut child = falling(&broken, &guarded).stderr(Stdio::null()).spawn().unwrap();
        if attempt % 2 == 0 {
            sleep(length.mul_f64(f64::from(attempt + 1) * 0.618_034 % 1.0 * 0.5 + 0.05));
        } else {
            let deadline = Instant::now() + 4 * length;
            while !broken.join("abandoned.jsonl").exists()
                && child.try_wait().unwrap().is_none()
                && Instant::now() < deadline
            {
                sleep(Duration::from_micros(200));
            }
            sleep(Duration::from_millis(3) * attempt);
        }
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0, "no kill met a running process");
    let output = falling(&broken, &guarded).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    same(&whole, &broken);
    assert_eq!(json_lines(&broken.join("abandoned.jsonl")).len(), abandoned.len());

    // With --on-co stop the run ends there, with a checkpoint.
    let stopped = dir.path().join("stopped");
    let output = falling(&stopped, &format!("on_co = 'stop'\n{settings}")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("at step {noticed}"))
            && stderr(&output).contains("--on-co asks"),
        "{}",
        stderr(&output)
    );
    assert_eq!(json_lines(&stopped.join("metrics.jsonl")).len() as u64, noticed + 1);

    // `sora diagnose` reads the same from the logs.
    let output = sora(&["diagnose", "--json", stopped.to_str().unwrap(), whole.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["runs"][0]["co"], rollback["co"]);
    // The rules beside it are asked, too, and judged by the runs that can be.
    let alarms = report["runs"][0]["alarms"].as_object().unwrap();
    assert_eq!(alarms["detector"], rollback["co"]["step"]);
    assert!(
        alarms.contains_key("reference rule") && alarms.contains_key("detector, no validation")
    );
    let rules = report["rules"].as_array().unwrap();
    assert!(
        rules.iter().all(|rule| rule["hits"].as_u64() <= rule["collapsed"].as_u64()),
        "{rules:?}"
    );
    assert_eq!(&report["runs"][1]["rollback"], rollback);
    // After the rollback another method trains, which is judged by its own steps, as in the run.
    assert_eq!(report["runs"][1]["co"], summary["co"]);
}

#[test]
fn a_fall_before_the_first_checkpoint_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // 30 steps an epoch, no checkpoint within it.
    let output = falling(
        &run,
        "batch = 8\nepochs = 1\noptions = { fall = 22 }\ncheckpoint_steps = 1000\non_co = \
         'rollback'\non_co_method = 'n-fgsm'",
    )
    .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = json_lines(&run.join("metrics.jsonl"));
    assert_eq!((lines.len(), &lines[0]["rollback"]["to_step"]), (30, &0.into()));
    assert!(lines.iter().all(|line| line["method"] == "n-fgsm"));
    // From the same weights as a run that trains with it from the start.
    let plain = dir.path().join("plain");
    let output = train_short(&plain, &["--batch", "8", "--epochs", "1", "--method", "n-fgsm"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for (a, b) in lines.iter().zip(json_lines(&plain.join("metrics.jsonl"))) {
        assert_eq!(
            (&a["loss"], &a["pert_align"]),
            (&b["loss"], &b["pert_align"]),
            "step {}",
            a["step"]
        );
    }
}

#[test]
fn wrong_guards_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out_text = out.to_str().unwrap();
    for (more, parts) in [
        (&["--on-co", "rollback", "--on-co-method", "magic"][..], &["--on-co-method", "magic"][..]),
        (&["--on-co", "rollback", "--on-co-method", "atas"], &["--on-co-method atas"]),
        (&["--on-co", "rollback", "--on-co-method", "none"], &["--on-co-method none"]),
        (&["--on-co", "pray"], &["pray", "rollback"]),
        (&["--val-steps", "0"], &["--val-steps 0"]),
        (&["--val-steps", "5", "--val", "0"], &["--val-steps", "--val 0"]),
    ] {
        refused(&[&["train", "--out", out_text], SHORT, more].concat(), parts);
        assert!(!out.exists(), "{more:?}");
    }
    refused(&["watch", "/no/such/run"], &["/no/such/run"]);
    refused(&["watch", "--once", "/no/such/run"], &["/no/such/run"]);
    refused(&["diagnose", "/no/such/run"], &["/no/such/run"]);
    refused(&["reproduce", "no-such"], &["no-such", "curves"]);
    refused(&["reproduce", "/no/such.toml"], &["/no/such.toml"]);
}

#[test]
fn validation_within_an_epoch_is_in_the_log_and_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, often) = (dir.path().join("plain"), dir.path().join("often"));
    assert!(train_short(&plain, &[]).status.success());
    let output = train_short(&often, &["--val-steps", "4", "--tensorboard"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        fs::read(plain.join("model.safetensors")).unwrap()
            == fs::read(often.join("model.safetensors")).unwrap()
    );
    let with: Vec<_> = json_lines(&often.join("metrics.jsonl"))
        .into_iter()
        .filter(|line| line["val"]["pgd"]["accuracy"].is_number())
        .collect();
    let steps: Vec<_> = with.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [3, 5, 7, 11], "every fourth step and the end of each epoch of 6");
    for (a, b) in
        json_lines(&plain.join("epochs.jsonl")).iter().zip(json_lines(&often.join("epochs.jsonl")))
    {
        assert_eq!(a["val"], b["val"]);
    }
    assert_eq!(with[1]["val"], json_lines(&often.join("epochs.jsonl"))[0]["val"]);

    let files: Vec<_> =
        fs::read_dir(often.join("tensorboard")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 1);
    assert!(
        files[0].file_name().to_string_lossy().contains("tfevents")
            && files[0].metadata().unwrap().len() > 12 * 100
    );
    assert!(!plain.join("tensorboard").exists());

    // The view of a finished run, as text: also with a last line that is half written.
    let mut metrics = fs::read(often.join("metrics.jsonl")).unwrap();
    metrics.extend(b"{\"step\": 12, \"epo");
    fs::write(often.join("metrics.jsonl"), metrics).unwrap();
    let output = sora(&["watch", "--once", often.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.lines().count() == 24, "{text}{}", stderr(&output));
    assert!(
        text.contains("epoch 2/2 step 12/12 done")
            && text.contains("pgd-10")
            && text.contains("PertAlign"),
        "{text}"
    );
    let output = sora(&["watch", often.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "no terminal here");
    assert!(stderr(&output).contains("--once"), "{}", stderr(&output));
}

#[test]
fn a_recipe_runs_what_is_missing_resumes_what_was_cut_off_and_writes_its_table() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("tiny.toml");
    fs::write(
        &recipe,
        r#"
        title = "Tiny"
        table = true
        [train]
        dataset = "synthetic"
        image_size = 8
        width = 4
        limit_train = 260
        limit_test = 50
        val = 20
        batch = 40
        [[runs]]
        method = ["fgsm", "sora"]
        seed = [0]
        [scale.smoke]
        train = { epochs = 2 }
        attacks = ["clean", "pgd-2"]
        limit = 50
        "#,
    )
    .unwrap();
    let out = dir.path().join("out");
    let call =
        ["reproduce", recipe.to_str().unwrap(), "--scale", "smoke", "--out", out.to_str().unwrap()];
    let output = sora(&[&call[..], &["--dry-run"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.matches("missing").count() == 2 && !out.exists(),
        "{text}{}",
        stderr(&output)
    );
    let output = sora(&call);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = fs::read_to_string(out.join("tiny-smoke.md")).unwrap();
    assert!(
        table.contains("| fgsm, seed 0 |")
            && table.contains("| sora, seed 0 |")
            && table.contains("pgd-2 %"),
        "{table}"
    );

    // Cut one run back to its first epoch, as a kill would have left it; the other must not be
    // touched.
    let mut runs: Vec<_> =
        fs::read_dir(out.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    assert_eq!(runs.len(), 2, "{runs:?}");
    let weights =
        runs.iter().map(|run| fs::read(run.join("model.safetensors")).unwrap()).collect::<Vec<_>>();
    let untouched = fs::metadata(runs[1].join("model.safetensors")).unwrap().modified().unwrap();
    for file in ["model.safetensors", "summary.json"] {
        fs::remove_file(runs[0].join(file)).unwrap();
    }
    fs::remove_dir_all(runs[0].join("checkpoints/epoch-002")).unwrap();
    fs::remove_dir_all(runs[0].join("eval")).unwrap();
    let output = sora(&call);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(runs[0].join("model.safetensors")).unwrap() == weights[0]);
    assert_eq!(
        fs::metadata(runs[1].join("model.safetensors")).unwrap().modified().unwrap(),
        untouched
    );
    let strip = |table: &str| {
        table
            .lines()
            .map(|line| line.rsplitn(5, '|').last().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(strip(&fs::read_to_string(out.join("tiny-smoke.md")).unwrap()), strip(&table));
}
