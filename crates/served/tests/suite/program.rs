//! Programs: this test binary, started again for the test `model` alone.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use robustness::{
    Access, Classifier, EvalConfig, Evaluator, InMemory, Ledger, Norm, Samples, Threat,
    attack::entries, sanity,
};
use sora_served::{Error, Options, Served};

use super::{SHAPE, images, labels, logits};

/// The line that begins every answer, and what is behind it.
fn answer(out: &mut impl Write, head: &str, body: &[u8]) {
    writeln!(out, "{head}").unwrap();
    out.write_all(body).unwrap();
    out.flush().unwrap();
}

/// Not a test: the program of the tests below, which say by `behaves=` how it is. Without that it
/// does nothing.
#[test]
fn model() {
    let Some(how) = std::env::args().find_map(|a| a.strip_prefix("behaves=").map(str::to_owned))
    else {
        return;
    };
    let (how, mark) = how.split_once('@').unwrap_or((&how, ""));
    // Whether it was started before: `mark` is a file that is there then.
    let again = !mark.is_empty() && Path::new(mark).exists();
    if !mark.is_empty() {
        fs::write(mark, "").unwrap();
    }
    let (mut input, mut out) = (io::stdin().lock(), io::stdout());
    let answers = if how == "labels" || how == "strange-label" { "labels" } else { "logits" };
    let classes = if how == "changes" && again { 4 } else { 3 };
    // The name of this test may stand on the line without an end.
    writeln!(out).unwrap();
    match how {
        "silent" => thread::sleep(Duration::from_secs(30)),
        "no-start" => std::process::exit(3),
        "no-json" => answer(&mut out, "{\"classes\": ten}", b""),
        _ => answer(
            &mut out,
            &format!(
                r#"{{"shape": [3, 2, 4], "classes": {classes}, "answers": "{answers}", "batch": 5}}"#
            ),
            b"",
        ),
    }
    let mut line = String::new();
    while input.read_line(&mut line).unwrap() > 0 {
        let head: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (id, n) = (head["id"].as_u64().unwrap(), head["shape"][0].as_u64().unwrap() as usize);
        assert_eq!(head["shape"], serde_json::json!([n, 3, 2, 4]));
        let mut bytes = vec![0; 4 * n * SHAPE.pixels()];
        input.read_exact(&mut bytes).unwrap();
        let x: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mut z = logits(&x);
        match how {
            "late" => thread::sleep(Duration::from_secs(30)),
            "dies" => std::process::exit(7),
            "dies-once" | "changes" if !again => std::process::exit(7),
            "cut-off" => {
                answer(&mut out, &format!(r#"{{"id": {id}, "shape": [{n}, 3]}}"#), &[1, 2, 3]);
                std::process::exit(0);
            }
            "no-line" => answer(&mut out, "Traceback: something", b""),
            "other-id" => answer(&mut out, r#"{"id": 99, "shape": [1, 3]}"#, b""),
            "refuses" => {
                answer(&mut out, &format!(r#"{{"id": {id}, "error": "out of\nmemory"}}"#), b"")
            }
            "nan" => z[1] = f32::NAN,
            "softmax" => z.chunks_mut(3).for_each(|row| {
                let sum: f32 = row.iter().map(|v| v.exp()).sum();
                row.iter_mut().for_each(|v| *v = v.exp() / sum);
            }),
            _ => {}
        }
        if answers == "labels" {
            let class = |&k: &usize| if how == "labels" { k as i32 } else { -1 };
            let body: Vec<u8> = labels(&x).iter().flat_map(|k| class(k).to_le_bytes()).collect();
            answer(&mut out, &format!(r#"{{"id": {id}, "shape": [{n}]}}"#), &body);
        } else {
            let width = if how == "wrong-shape" { 4 } else { 3 };
            let body: Vec<u8> = z.iter().flat_map(|v| v.to_le_bytes()).collect();
            answer(&mut out, &format!(r#"{{"id": {id}, "shape": [{n}, {width}]}}"#), &body);
        }
        line.clear();
    }
    std::process::exit(0);
}

fn command(how: &str) -> String {
    let program = std::env::current_exe().unwrap();
    // One thread: with more, the test harness writes a line of its own after a minute.
    let options = "program::model --exact --nocapture --test-threads=1";
    format!("'{}' {options} behaves={how}", program.display())
}

fn quick() -> Options {
    Options { timeout: Duration::from_secs(20), retries: 1, ..Options::default() }
}

#[test]
fn a_program_answers_as_it_would_at_home() {
    let model = Served::exec(&command("good"), quick()).unwrap();
    assert_eq!((model.shape(), model.access()), (SHAPE, Access::Scores));
    let x = images(13);
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    // It takes five images at a time.
    let cost = model.cost();
    assert_eq!((cost.queries, cost.requests, cost.retries, cost.not_finite), (13, 3, 0, 0));
    assert!(model.pull_back(&x, &mut |_, z| z.to_vec()).is_err());

    let told = Served::exec(&command("labels"), quick()).unwrap();
    assert_eq!(told.access(), Access::Labels);
    let rows = told.logits(&x).unwrap();
    let named: Vec<usize> = rows.chunks(3).map(robustness::predicted).collect();
    assert_eq!(named, labels(&x));
    assert!(rows.iter().all(|v| *v == 0.0 || *v == 1.0));
}

#[test]
fn attacks_without_gradients_run_on_a_program_and_their_queries_are_counted() {
    let x = images(12);
    let samples = InMemory::new(SHAPE, x.clone(), labels(&x)).unwrap();
    for (how, names) in
        [("good", ["clean", "square-60", "rays-60"]), ("labels", ["clean", "rays-50", "rays-60"])]
    {
        let model = Served::exec(&command(how), quick()).unwrap();
        let config = EvalConfig::under(Threat { norm: Norm::Linf, epsilon: 0.3 });
        let mut evaluator = Evaluator::new(&model, &samples, config, Ledger::in_memory()).unwrap();
        let outcome = evaluator.run(&entries(&names, Norm::Linf).unwrap()).unwrap();
        let of = |name: &str| outcome.results.get(name).unwrap();
        assert_eq!((of("clean").correct, of("clean").queries), (12, Some(12)));
        assert!(of("rays-60").correct < 12, "{how}: {:?}", of("rays-60"));
        let counted: u64 = names.iter().map(|name| of(name).queries.unwrap()).sum();
        assert_eq!(counted, model.cost().queries, "{how}");
        assert!(of("rays-60").queries_per_image.unwrap() <= 61.0);
        let refused = evaluator.run(&entries(&["fgsm"], Norm::Linf).unwrap()).unwrap_err();
        assert!(refused.is_input(), "{refused}");
    }
}

/// The row of a label sums to 1, as probabilities do.
#[test]
fn labels_are_not_taken_for_the_outputs_of_a_softmax() {
    let x = images(6);
    for (how, softmax) in [("good", false), ("labels", false), ("softmax", true)] {
        let model = Served::exec(&command(how), quick()).unwrap();
        let found = sanity::probe(&model, &x, &labels(&x), Norm::Linf, 0).unwrap().join("\n");
        assert_eq!(found.contains("probabilities, not logits"), softmax, "{how}: {found}");
        assert!(softmax || found.is_empty(), "{how}: {found}");
    }
}

#[test]
fn the_digest_is_of_the_answers() {
    let x = images(9);
    let samples = InMemory::new(SHAPE, x.clone(), labels(&x)).unwrap();
    let digest = |how: &str, batch| {
        Served::exec(&command(how), quick()).unwrap().digest(&samples, batch).unwrap()
    };
    let own = digest("good", 4);
    assert_eq!((own.len(), &own), (64, &digest("good", 9)));
    assert!(own != digest("nan", 4) && own != digest("labels", 4));
    assert_eq!(samples.len(), 9);
}

#[test]
fn pixels_are_normalised_where_the_model_asks_for_it() {
    let given = sora_served::Normalisation { mean: vec![0.5, 0.0, 0.25], std: vec![0.5, 1.0, 2.0] };
    let options = Options { normalisation: Some(given), ..quick() };
    let model = Served::exec(&command("good"), options).unwrap();
    let x = images(2);
    let (mean, std) = ([0.5, 0.0, 0.25], [0.5, 1.0, 2.0]);
    let sent: Vec<f32> =
        x.iter().enumerate().map(|(i, x)| (x - mean[i / 8 % 3]) / std[i / 8 % 3]).collect();
    assert_eq!(model.logits(&x).unwrap(), logits(&sent));
    let wrong = sora_served::Normalisation { mean: vec![0.5], std: vec![0.5] };
    let options = Options { normalisation: Some(wrong), ..quick() };
    let error = Served::exec(&command("good"), options).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("3 numbers each"), "{error}");
}

#[test]
fn numbers_that_are_none_are_an_answer() {
    let model = Served::exec(&command("nan"), quick()).unwrap();
    let x = images(6);
    let z = model.logits(&x).unwrap();
    assert!(z[1].is_nan() && z[16].is_nan() && z[0].is_finite());
    assert_eq!(model.cost().not_finite, 2);
    assert!(!robustness::stands(&z[..3], labels(&x)[0]));
}

#[test]
fn a_program_that_dies_once_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let model = Served::exec(&command(&format!("dies-once@{}", mark.display())), quick()).unwrap();
    let x = images(7);
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    assert_eq!((model.cost().retries, model.cost().queries), (1, 7));
}

/// What goes wrong when the program is started, or asked.
fn problem(how: &str, options: Options) -> Error {
    let model = match Served::exec(&command(how), options) {
        Ok(model) => model,
        Err(error) => return error,
    };
    let error = model.logits(&images(2)).unwrap_err();
    let robustness::Error::Classifier(inner) = error else { panic!("{error}") };
    *inner.downcast::<Error>().unwrap()
}

#[test]
fn what_goes_wrong_is_one_line_that_says_what() {
    let dir = tempfile::tempdir().unwrap();
    let changes = format!("changes@{}", dir.path().join("mark").display());
    for (how, words, input) in [
        ("no-start", &["ended (exit status: 3)", "asked 2 times"][..], false),
        ("no-json", &["description", "of the form"], true),
        ("dies", &["ended (exit status: 7) before it answered", "asked 2 times"], false),
        ("cut-off", &["ended (exit status: 0)"], false),
        ("no-line", &["begins with 'Traceback: something'", r#""shape": [2, 3]"#], true),
        ("other-id", &["request 99, expected 1"], true),
        ("wrong-shape", &["shape [2, 4], expected [2, 3]"], true),
        ("strange-label", &["class -1, expected 0 to 2"], true),
        ("refuses", &["it failed: out of"], false),
        (&changes, &["not the one that it gave"], true),
    ] {
        let error = problem(how, quick());
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{how}: {text}");
        assert!(text.contains("behaves=") && !text.contains('\n'), "{how}: {text}");
        assert_eq!(error.is_input(), input, "{how}: {text}");
    }
}

#[test]
fn a_program_that_does_not_answer_in_time_is_ended() {
    for how in ["silent", "late"] {
        let started = Instant::now();
        let hasty =
            Options { timeout: Duration::from_millis(700), retries: 0, ..Options::default() };
        let error = problem(how, hasty);
        assert!(matches!(error, Error::Late { .. }), "{how}: {error}");
        assert!(error.to_string().contains("within 0.7 seconds"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{how}: {:?}", started.elapsed());
    }
}

#[test]
fn commands_that_are_none_are_refused() {
    for (command, word) in [
        ("", "expected a program"),
        ("a 'b", "a quote is open"),
        ("/no/such/program -x", "cannot start it"),
    ] {
        let error = Served::exec(command, quick()).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(word), "{error}");
    }
}
