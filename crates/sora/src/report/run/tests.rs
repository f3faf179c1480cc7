use super::*;

/// Makes a folder with these files.
pub(in crate::report) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn damaged_and_missing_records_are_warnings() {
    let dir = folder(&[
        (
            "config.toml",
            "method = \"fgsm\"\nepsilon = \"16/255\"\nnorm = \"linf\"\n[options]\nbeta = 0.5\n",
        ),
        (
            "metrics.jsonl",
            "{\"step\":0,\"loss\":null,\"new\":1}\nnonsense\n\
             {\"step\":1,\"loss\":2.5,\"co\":{\"step\":1,\"from\":0.5,\"to\":0.1}}\n\
             {\"step\":2,\"lo",
        ),
        (
            "eval/a.json",
            "{\"results\":{\"clean\":{\"accuracy\":0.5}},\"epsilon\":0.0627451,\"norm\":\"linf\"}",
        ),
        ("eval/b.json", "{"),
        ("eval/sweep.json", "[1, 2]"),
    ]);
    let run = Run::load(dir.path()).unwrap();
    assert_eq!((run.steps.len(), run.steps[1].loss), (2, 2.5));
    assert_eq!(run.onset().unwrap().step, 1);
    assert_eq!(run.records.len(), 1);
    assert_eq!(run.settings()["options.beta"], "0.5");
    let text = run.warnings.join("\n");
    for part in [
        "metrics.jsonl: 1 of 4 lines",
        "ends in the middle of line 4",
        "epochs.jsonl is missing",
        "eval/b.json is damaged",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}

#[test]
fn settings_that_were_changed_are_a_warning() {
    for text in ["", "# sha256 of what follows: 00\nmethod = \"fgsm\"\n"] {
        let run = Run::load(folder(&[("config.toml", text)]).path()).unwrap();
        assert!(run.warnings.iter().any(|line| line.contains("config.toml was changed")));
    }
}

#[test]
fn what_is_no_run_folder_is_refused() {
    let dir = folder(&[("config.toml", "= nothing")]);
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        assert!(matches!(Run::load(&path), Err(Error::NotARun { .. })));
    }
}

#[test]
fn no_path_of_the_machine_is_among_the_settings() {
    let dir = folder(&[(
        "config.toml",
        "dataset = \"imagefolder:/secret/x y/pets\"\ninit = \"/secret/place/a.safetensors\"\n\
         [options]\nfile = \"/secret/b\"\n[provenance]\ndevice = \"/secret/c\"\n",
    )]);
    let run = Run::load(dir.path()).unwrap();
    let text = format!("{:?} {:?} {}", run.settings(), run.provenance(), run.dataset());
    assert!(!text.contains("secret") && text.contains("a.safetensors"), "{text}");
    assert!(run.is_own_dataset("imagefolder:/secret/x y/pets/"));
    assert!(!run.is_own_dataset("imagefolder:/other/pets"));
}

/// A line of epochs.jsonl.
fn epoch(epoch: u64, steps: u64, more: &str) -> String {
    format!("{{\"epoch\":{epoch},\"step\":{steps},\"val\":null,\"seconds\":4.0{more}}}\n")
}

#[test]
fn the_final_figures_say_what_was_trained_and_how_long_it_took() {
    let summary = "{\"method\":\"fgsm\",\"dataset\":\"d\",\"epochs\":2,\"steps\":14,\"passes\":\
                   {\"forward\":0,\"backward_input\":0,\"backward_full\":0},\"parameters\":1,\
                   \"seconds\":9.5,\"peak_rss_mib\":1}";
    let epochs = epoch(0, 7, "") + &epoch(1, 14, "");
    let dir = folder(&[
        ("config.toml", "epochs = 8\nearly_stop = 1\n"),
        ("epochs.jsonl", epochs.as_str()),
        ("summary.json", summary),
    ]);
    let run = Run::load(dir.path()).unwrap();
    assert_eq!((run.epochs_trained(), run.seconds()), (Some(2), Some(9.5)));
    // Without its final figures the log says so.
    fs::write(dir.path().join("summary.json"), &summary[..40]).unwrap();
    let run = Run::load(dir.path()).unwrap();
    assert_eq!((run.epochs_trained(), run.seconds()), (Some(2), Some(8.0)));
    assert!(run.warnings.iter().any(|line| line.starts_with("summary.json cannot be read")));
    assert_eq!(Run::default().epochs_trained(), None);
}

#[test]
fn steps_that_a_rollback_threw_away_have_taken_their_time() {
    let rolled = ",\"rollback\":{\"co\":{\"step\":9},\"to_step\":7,\"from_method\":\"fgsm\",\
                  \"method\":\"sora\"}";
    let abandoned = "{\"step\":7,\"images_per_s\":50.0}\n{\"step\":8,\"images_per_s\":\"NaN\"}\n\
                     {\"step\":9,\"images_per_s\":25.0}\n";
    let load = |more: &str| {
        let epochs = epoch(0, 7, "") + &epoch(1, 14, more);
        let dir = folder(&[
            ("config.toml", "batch = 100\n"),
            ("epochs.jsonl", epochs.as_str()),
            ("abandoned.jsonl", abandoned),
        ]);
        Run::load(dir.path()).unwrap()
    };
    assert_eq!(load(rolled).seconds(), Some(4.0 + 4.0 + 2.0 + 4.0));
    assert_eq!(load("").seconds(), Some(8.0), "the log still has the steps");
}

#[test]
fn the_steps_of_an_epoch_are_known_before_it_ends() {
    let steps = "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n";
    let load = |config: &str| {
        Run::load(folder(&[("config.toml", config), ("metrics.jsonl", steps)]).path()).unwrap()
    };
    assert_eq!(load("steps_per_epoch = 7\n").steps_per_epoch(), 7.0);
    for older in ["seed = 0\n", "steps_per_epoch = 0\n"] {
        assert_eq!(load(older).steps_per_epoch(), 3.0, "{older}");
    }
}
