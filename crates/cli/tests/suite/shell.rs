//! The program in a shell: help and tables that fit, completions, manual pages, schemas, colours.

use std::{collections::BTreeSet, fs, path::Path, process::Output};

use assert_cmd::Command;
use serde_json::Value;

use crate::cli::{refused, sora, stderr, train_short};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `sora` in a terminal of 80 columns.
fn narrow(call: &[&str]) -> String {
    let output = Command::cargo_bin("sora").unwrap().args(call).env("COLUMNS", "80").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{call:?}: {}", stderr(&output));
    text(&output)
}

/// The commands that a help page lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let of = |line: &str| {
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        name.split_whitespace().next().map(str::to_owned)
    };
    commands.take_while(|line| !line.is_empty()).filter_map(of).collect()
}

#[track_caller]
fn fits(call: &[&str], text: &str) {
    for line in text.lines() {
        let width = line.chars().count();
        assert!(width <= 80, "{call:?}: {width} columns: {line}");
    }
}

#[test]
fn every_help_page_fits_80_columns() {
    let mut pages = 0;
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(path) = waiting.pop() {
        for flag in ["--help", "-h"] {
            let mut call: Vec<&str> = path.iter().map(String::as_str).collect();
            call.push(flag);
            let help = narrow(&call);
            fits(&call, &help);
            pages += 1;
            if flag == "-h" {
                for name in listed(&help) {
                    waiting.push(path.iter().cloned().chain([name]).collect());
                }
            }
        }
    }
    assert!(pages > 50, "{pages} pages of help");
}

#[test]
fn every_list_fits_80_columns() {
    for call in [
        &["methods"][..],
        &["methods", "sora"],
        &["models"],
        &["models", "preact-resnet18"],
        &["attacks"],
        &["attacks", "pgd-50x10"],
        &["data", "list"],
        &["data", "info", "synthetic"],
        &["reproduce"],
        &["schema"],
        &["help", "exit-status"],
    ] {
        fits(call, &narrow(call));
    }
}

#[test]
fn the_exit_statuses_are_as_wide_as_the_terminal() {
    for columns in ["40", "57", "80", "120"] {
        let mut call = Command::cargo_bin("sora").unwrap();
        let output = call.args(["help", "exit-status"]).env("COLUMNS", columns).output().unwrap();
        let text = text(&output);
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        let columns: usize = columns.parse().unwrap();
        assert!(longest <= columns && longest + 15 > columns, "{longest} of {columns}: {text}");
        assert!(text.contains("\n  130  interrupted by"), "{text}");
        assert!(text.contains("`sora resume RUN`"), "a command is broken: {text}");
    }
}

/// The names in the first column of a list, without those that are patterns.
fn names(list: &[&str]) -> Vec<String> {
    let object: Value = serde_json::from_str(&narrow(&[list, &["--json"]].concat())).unwrap();
    object.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_entry_fits_80_columns() {
    for (list, describe) in [
        (&["methods"][..], &["methods"][..]),
        (&["models"], &["models"]),
        (&["attacks"], &["attacks"]),
        (&["data", "list"], &["data", "info"]),
    ] {
        let names = names(list);
        assert!(names.len() > 10, "{names:?}");
        for name in &names {
            let call = [describe, &[name.as_str()]].concat();
            // An address or a checksum is one word, which nothing can break.
            let text = narrow(&call);
            let lines =
                text.lines().filter(|line| !line.contains("://") && !line.contains("sha256"));
            fits(&call, &lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

#[test]
fn the_reference_names_everything_that_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let write = || Command::cargo_bin("sora").unwrap().args(["reference", out]).assert().success();
    write();
    // Its own pages are overwritten, others stay.
    write();
    let page = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.md"))).unwrap();
    for (list, name) in [
        (&["methods"][..], "methods"),
        (&["models"], "networks"),
        (&["attacks"], "attacks"),
        (&["data", "list"], "datasets"),
    ] {
        let text = page(name);
        for entry in names(list) {
            assert!(text.contains(&format!("\n## `{entry}`\n")), "{name}: {entry}");
        }
    }
    let commands = page("commands");
    for name in listed(&narrow(&["--help"])) {
        assert!(commands.contains(&format!("\n## sora {name}\n")), "{name}");
    }
    assert!(commands.contains("\n## sora data fetch\n") && !commands.contains("## sora reference"));
    let schema: Value = serde_json::from_str(&narrow(&["schema", "config"])).unwrap();
    let (settings, files) = (page("settings"), page("files"));
    for flag in ["epochs", "on_co", "lr_max"] {
        assert!(schema["properties"][flag].is_object());
        assert!(settings.contains(&format!("| `{flag}` |")), "{flag}");
    }
    for name in ["metrics", "config", "sweep"] {
        assert!(files.contains(&format!("\n## {name}: ")), "{name}");
    }
    fs::write(dir.path().join("files.md"), "# Mine").unwrap();
    refused(&["reference", out], &["files.md", "--force"]);
}

#[test]
fn help_has_headings_and_names_the_exit_statuses() {
    let help = narrow(&["train", "--help"]);
    let headings = ["Data:", "Network:", "Threat:", "Optimiser:", "Guard:", "Output:"];
    for heading in headings {
        assert!(help.lines().any(|line| line == heading), "{heading}\n{help}");
    }
    for alias in ["lr", "eps", "batch-size"] {
        assert!(help.contains(&format!("[alias: --{alias}]")), "{alias}\n{help}");
    }
    let statuses = narrow(&["help", "exit-status"]);
    for status in ["  0  ", "  1  ", "  2  ", "130  "] {
        assert!(statuses.contains(status), "{statuses}");
    }
    refused(&["help", "trian"], &["did you mean train"]);
    assert_eq!(narrow(&["help", "train"]), help);
}

#[test]
fn completion_scripts_ask_the_program_and_it_answers() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = narrow(&["completions", shell]);
        assert!(script.contains("SORA_COMPLETE") && script.contains("sora"), "{shell}: {script}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    let complete = |words: &[&str]| {
        let output = Command::cargo_bin("sora")
            .unwrap()
            .current_dir(dir.path())
            .env("SORA_COMPLETE", "fish")
            .args([&["--", "sora"], words].concat())
            .output()
            .unwrap();
        text(&output)
    };
    let words = complete(&["train", "--dataset", "cifar"]);
    assert!(words.contains("cifar10") && words.contains("cifar100"), "{words}");
    assert!(complete(&["train", "--method", "n-"]).contains("n-fgsm"));
    assert!(complete(&["train", "--model", "preact"]).contains("preact-resnet18"));
    assert!(complete(&["eval", "r"]).contains("runs"));
    assert!(complete(&["eval", "x", "--attacks", "clean,auto"]).contains("clean,autoattack"));
}

#[test]
fn manual_pages_are_written_and_those_of_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man");
    let call = ["man", out.to_str().unwrap()];
    for _ in 0..2 {
        let output = sora(&call);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let page = fs::read_to_string(out.join("sora-train.1")).unwrap();
    assert!(page.contains(".TH sora-train 1") && page.contains("dataset"), "{page}");
    assert!(out.join("sora.1").exists() && out.join("sora-data-fetch.1").exists());
    fs::write(out.join("sora.1"), "mine").unwrap();
    refused(&call, &["sora.1", "--force"]);
    assert_eq!(fs::read_to_string(out.join("sora.1")).unwrap(), "mine");
}

#[test]
fn a_name_that_is_unknown_gives_the_nearest() {
    refused(&["methods", "sorra"], &["did you mean sora"]);
    refused(&["models", "resnet18-preact"], &["did you mean"]);
    refused(&["attacks", "autoatack"], &["did you mean autoattack"]);
    refused(&["data", "info", "cifar-10"], &["did you mean cifar10"]);
    refused(&["schema", "metric"], &["did you mean metrics"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("r");
    let train = ["train", "--dataset", "synthetic", "--out", out.to_str().unwrap()];
    let method = [&train[..], &["--method", "pgd-20"]].concat();
    refused(&method, &["--method pgd --set steps=20"]);
    let config = dir.path().join("c.toml");
    fs::write(&config, "momemtum = 0.9\n").unwrap();
    let with_config = [&train[..], &["--config", config.to_str().unwrap()]].concat();
    refused(&with_config, &["momemtum", "did you mean momentum"]);
    assert!(stderr(&sora(&with_config)).len() < 300);
    refused(&["train", "--out", out.to_str().unwrap()], &["--dataset", "synthetic"]);
}

#[test]
fn colours_are_as_the_flag_and_the_environment_say() {
    let dir = tempfile::tempdir().unwrap();
    let coloured = |flag: &str, set: &[(&str, &str)]| {
        let out = dir.path().join("no/such/run");
        let output = Command::cargo_bin("sora")
            .unwrap()
            .args(["--color", flag, "help", "--help"])
            .envs(set.iter().copied())
            .output()
            .unwrap();
        let log = Command::cargo_bin("sora")
            .unwrap()
            .args(["diagnose", out.to_str().unwrap(), "--color", flag])
            .envs(set.iter().copied())
            .output()
            .unwrap();
        (output.stdout.contains(&0x1b), log.stderr.contains(&0x1b))
    };
    assert!(coloured("always", &[("NO_COLOR", "1")]).0);
    assert_eq!(coloured("never", &[("CLICOLOR_FORCE", "1")]), (false, false));
    assert_eq!(coloured("auto", &[]), (false, false), "no terminal");
    assert_eq!(coloured("auto", &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), (false, false));
}

/// Whether `value` is as `schema` says; what the schema does not name is refused as well, so that
/// a new figure gets its line.
fn validate(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").ok_or("a reference")?;
        return validate(value, &root["$defs"][name], root, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let tried: Vec<_> = choices.iter().map(|s| validate(value, s, root, at)).collect();
        let ok = tried.iter().any(Result::is_ok);
        return if ok { Ok(()) } else { tried.into_iter().next().unwrap_or(Ok(())) };
    }
    if let Some(choices) = schema["enum"].as_array() {
        return if choices.contains(value) { Ok(()) } else { Err(format!("{at}: {value}")) };
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{at}: the schema has no type")),
    };
    if !kinds.iter().any(|kind| is(kind)) {
        return Err(format!("{at}: {value} is none of {kinds:?}"));
    }
    if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(least, v)| v < least) {
        return Err(format!("{at}: {value} is too small"));
    }
    for item in value.as_array().into_iter().flatten() {
        validate(item, &schema["items"], root, &format!("{at}[]"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in object {
        let known = [&schema["properties"][name], &schema["additionalProperties"]];
        let known = known.into_iter().find(|schema| schema.is_object());
        let of = known.ok_or_else(|| format!("{at}: {name} has no place in the schema"))?;
        validate(value, of, root, &format!("{at}.{name}"))?;
    }
    Ok(())
}

#[track_caller]
fn is_valid(name: &str, value: &Value) {
    let schema: Value = serde_json::from_str(&narrow(&["schema", name])).unwrap();
    if let Err(problem) = validate(value, &schema, &schema, name) {
        panic!("{problem}");
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_the_program_writes_is_as_its_schemas_say() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = train_short(&run, &["--val-steps", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let at = run.to_str().unwrap();
    for (name, file) in [("metrics", "metrics.jsonl"), ("epochs", "epochs.jsonl")] {
        let lines = lines(&run.join(file));
        assert!(!lines.is_empty());
        lines.iter().for_each(|line| is_valid(name, line));
    }
    let json = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    is_valid("summary", &json(&run.join("summary.json")));
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    let config = serde_json::to_value(&config).unwrap();
    let schema: Value = serde_json::from_str(&narrow(&["schema", "config"])).unwrap();
    let known: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
    for key in config.as_object().unwrap().keys() {
        assert!(known.contains(key), "{key}");
    }
    let printed = |call: &[&str]| -> Value {
        let output = sora(call);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let attacks = ["--attacks", "clean,fgsm,autoattack", "--limit", "4"];
    is_valid("eval", &printed(&[&["eval", at, "--json"], &attacks[..]].concat()));
    let sweep = ["sweep", at, "--epsilons", "1/255,2/255", "--attacks", "fgsm", "--steps", "2"];
    is_valid("sweep", &printed(&[&sweep[..], &["--limit", "4", "--json"]].concat()));
    is_valid("diagnose", &printed(&["diagnose", at, "--json"]));
    assert!(validate(&Value::Null, &schema, &schema, "x").is_err(), "the check itself checks");
}
