//! Tests of the ledger and its files.

use std::fs::{self, File};

use super::*;
use crate::{
    evaluate::state::{ExistingState, lock},
    identity::tests::{identity, others},
};

fn spent(seconds: f64) -> Spent {
    Spent { seconds, queries: Some(3) }
}

const RESUME: StateOptions = StateOptions { start: ExistingState::Resume, examples: None };
const FRESH: StateOptions = StateOptions { start: ExistingState::Fresh, examples: None };
const PAIRS: StateOptions = StateOptions { start: ExistingState::Resume, examples: Some(2) };

#[test]
fn a_file_cut_anywhere_gives_back_its_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.jsonl");
    let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
    ledger.add("clean", 0, &[4, 5, 6], &[true, true, false], spent(1.0), &[]);
    ledger.add("pgd", 0, &[4, 5], &[true, false], spent(3.0), &[0.5; 4]);
    ledger.add("pgd", 1, &[4], &[false], spent(1.0), &[0.5; 2]);
    let whole = fs::read(&path).unwrap();
    drop(ledger);
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        assert_eq!(ledger.knows("clean", 6, 0), lines > 1, "{cut}");
        assert_eq!(ledger.fell_in("pgd", 5), (lines > 2).then_some(0), "{cut}");
        assert_eq!(ledger.fell_in("pgd", 4), (lines > 3).then_some(1), "{cut}");
        let kept = fs::read(&path).unwrap();
        assert!(kept.ends_with(b"\n") && (lines == 0 || whole.starts_with(&kept)));
    }
    let ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
    // With one round only, sample 4 stands; its second round counts no seconds then.
    assert!(ledger.survived("pgd", 4, 1) && !ledger.survived("pgd", 4, 2));
    assert_eq!(
        (ledger.seconds("pgd", 1, [4, 5].into_iter()), ledger.seconds("pgd", 2, [4].into_iter())),
        (3.0, 2.5)
    );
    let queries = |rounds, ids: &[u32]| ledger.queries("pgd", rounds, ids.iter().copied());
    assert_eq!((queries(1, &[4, 5]), queries(2, &[4, 5])), (Some(3), Some(6)));
}

#[test]
fn queries_that_were_not_counted_are_not_told() {
    let mut ledger = Ledger::in_memory();
    ledger.add("square", 0, &[1, 2], &[true, true], spent(1.0), &[]);
    assert_eq!(ledger.queries("square", 1, [1, 2].into_iter()), Some(3));
    let uncounted = Spent { seconds: 1.0, queries: None };
    ledger.add("square", 0, &[3], &[true], uncounted, &[]);
    assert_eq!(ledger.queries("square", 1, [1, 2, 3].into_iter()), None);
}

#[test]
fn nothing_of_another_evaluation_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    for (what, other) in others() {
        let path = dir.path().join(what);
        let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
        ledger.add("clean", 0, &[1], &[true], spent(1.0), &[]);
        drop(ledger);
        let before = fs::read(&path).unwrap();
        let error = Ledger::open(&path, &other, RESUME).unwrap_err();
        assert!(matches!(error, Error::OtherEvaluation { .. }), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{what}");
        // The evaluation itself can still resume, and another one may replace the file if its
        // options say so.
        assert!(Ledger::open(&path, &identity(), RESUME).unwrap().knows("clean", 1, 0), "{what}");
        assert_eq!(Ledger::open(&path, &other, FRESH).unwrap().known(), (0, 0), "{what}");
    }
}

#[test]
fn a_file_that_is_no_state_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for text in ["important\n", "important", "{\"a\": 1}\n", "{", "\n"] {
        for options in [RESUME, FRESH, PAIRS] {
            fs::write(&path, text).unwrap();
            let opened = Ledger::open(&path, &identity(), options);
            // A single byte of a state's beginning may be a state that a kill cut off.
            if text == "{" {
                continue;
            }
            assert!(matches!(opened, Err(Error::NotAState(_))), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
    // Beside the state, too.
    let (state, examples) = (dir.path().join("s"), dir.path().join("s.adv"));
    fs::write(&examples, "mine").unwrap();
    let opened = Ledger::open(&state, &identity(), PAIRS);
    assert!(matches!(opened, Err(Error::NotAState(_))));
    assert_eq!(fs::read_to_string(&examples).unwrap(), "mine");
}

#[test]
fn two_evaluations_at_once_have_files_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Ledger::open_in(dir.path(), "state", &identity(), RESUME);
    let (one, two) = (open().unwrap(), open().unwrap());
    assert_ne!(one.path(), two.path());
    let held = one.path().unwrap().to_owned();
    assert!(matches!(Ledger::open(&held, &identity(), FRESH), Err(Error::InUse(_))));
    one.remove().unwrap();
    two.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_file_that_another_process_has_made_meanwhile_is_not_taken_for_the_own_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.jsonl");
    // Taken away while it is in use: what is there now stays.
    let mut first = Ledger::open(&path, &identity(), PAIRS).unwrap();
    first.add("clean", 0, &[1], &[true], spent(1.0), &[]);
    fs::remove_file(&path).unwrap();
    let mut second = Ledger::open(&path, &identity(), RESUME).unwrap();
    second.add("clean", 0, &[2], &[true], spent(1.0), &[]);
    let there = fs::read(&path).unwrap();
    first.remove().unwrap();
    assert_eq!(fs::read(&path).unwrap(), there);
    drop(second);
    assert!(Ledger::open(&path, &identity(), RESUME).unwrap().knows("clean", 2, 0));
    // Taken away, and made again by another, between opening and locking.
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let stale = open().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(lock(stale, &path).unwrap().is_none(), "no file");
    let stale = open().unwrap();
    fs::remove_file(&path).unwrap();
    let (_held, unlocked) = lock(open().unwrap(), &path).unwrap().expect("the file of the path");
    assert!(unlocked.is_none() && lock(stale, &path).unwrap().is_none(), "another file");
}

#[test]
fn examples_come_back_and_batches_without_them_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.jsonl");
    let mut plain = Ledger::open(&path, &identity(), RESUME).unwrap();
    plain.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.0; 4]);
    drop(plain);
    let mut kept = Ledger::open(&path, &identity(), PAIRS).unwrap();
    assert!(!kept.knows("pgd", 2, 0));
    let points = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    kept.add("pgd", 0, &[1, 2, 3], &[false, true, false], spent(1.0), &points);
    drop(kept);
    let mut again = Ledger::open(&path, &identity(), PAIRS).unwrap();
    assert_eq!(again.example("pgd", 3, 1).unwrap(), Some(vec![0.5, 0.6]));
    assert_eq!(again.example("pgd", 1, 1).unwrap(), Some(vec![0.1, 0.2]));
    assert_eq!(again.example("pgd", 2, 1).unwrap(), None);
    again.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Bits all over the state and its examples: the evaluation is refused, or what is known is
/// what was written.
#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, beside) = (dir.path().join("s.jsonl"), dir.path().join("s.jsonl.adv"));
    let mut ledger = Ledger::open(&path, &identity(), PAIRS).unwrap();
    ledger.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.1, 0.2, 0.3, 0.4]);
    ledger.add("pgd", 1, &[1], &[false], spent(0.5), &[0.5, 0.6]);
    let files = [path.clone(), beside].map(|path| (fs::read(&path).unwrap(), path));
    drop(ledger);
    let mut refused = 0;
    for (whole, damaged) in &files {
        for bit in (0..whole.len() * 8).step_by(7) {
            for (bytes, path) in &files {
                fs::write(path, bytes).unwrap();
            }
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(damaged, bytes).unwrap();
            let Ok(mut ledger) = Ledger::open(&path, &identity(), PAIRS) else {
                refused += 1;
                continue;
            };
            for (id, round, example) in [(2, 0, [0.3, 0.4]), (1, 1, [0.5, 0.6])] {
                if ledger.knows("pgd", id, round) {
                    assert_eq!(ledger.fell_in("pgd", id), Some(round), "bit {bit}");
                    let found = ledger.example("pgd", id, 2).unwrap();
                    assert_eq!(found, Some(example.to_vec()), "bit {bit}");
                }
            }
        }
    }
    assert!(refused > 20, "damaged headers are refused");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_costs_the_state_and_not_the_work() {
    let mut ledger = Ledger::in_memory();
    ledger.state = Some(State::on_full_disk());
    ledger.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.5; 4]);
    assert!(matches!(ledger.news(), Some(Error::Io { .. })));
    assert_eq!(ledger.fell_in("pgd", 2), Some(0));
    assert!(matches!(ledger.example("pgd", 2, 1), Err(Error::ExamplesLost)));
    // The failure is reported once.
    ledger.add("pgd", 1, &[1], &[true], spent(1.0), &[0.5; 2]);
    assert!(ledger.knows("pgd", 1, 1));
}

#[test]
fn a_state_without_a_finished_batch_goes_and_one_with_a_batch_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let left = || fs::read_dir(dir.path()).unwrap().count();
    for options in [RESUME, FRESH, PAIRS] {
        drop(Ledger::open(&path, &identity(), options).unwrap());
        assert_eq!(left(), 0, "{options:?}");
    }
    let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
    ledger.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.0; 4]);
    drop(ledger);
    assert_eq!(left(), 1);
    // Read without a new batch it stays, also where its batches lack examples.
    drop(Ledger::open(&path, &identity(), RESUME).unwrap());
    drop(Ledger::open(&path, &identity(), PAIRS).unwrap());
    assert!(Ledger::open(&path, &identity(), RESUME).unwrap().knows("pgd", 2, 0));
    // Nor does a refusal take it away, or leave anything where nothing was.
    fs::write(dir.path().join("s.jsonl.adv"), "mine").unwrap();
    assert!(matches!(Ledger::open(&path, &identity(), PAIRS), Err(Error::NotAState(_))));
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    assert!(matches!(Ledger::open(&path, &identity(), PAIRS), Err(Error::NotAState(_))));
    assert!(!path.exists() && left() == 1);
}

#[test]
fn an_evaluation_that_ends_leaves_what_another_was_cut_off_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let open = |options| Ledger::open(&path, &identity(), options).unwrap();
    let mut long = open(RESUME);
    long.add("clean", 0, &[1, 2, 3], &[true, true, true], spent(1.0), &[]);
    long.add("apgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.5; 4]);
    drop(long);
    let cut_off = fs::read(&path).unwrap();
    // Kept without examples, the lines of the long one are no results of the second of these.
    for options in [RESUME, PAIRS] {
        let mut short = open(options);
        short.ask("clean", 1);
        short.ask("fgsm", 1);
        short.add("fgsm", 0, &[1, 2, 3], &[true, false, true], spent(1.0), &[0.5; 6]);
        short.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), cut_off, "{options:?}");
        assert!(!dir.path().join("s.jsonl.adv").exists(), "nor examples that nobody goes on from");
    }
    // What both asked for is of use to the long one.
    let mut short = open(RESUME);
    ["clean", "apgd", "fgsm"].iter().for_each(|attack| short.ask(attack, 1));
    short.add("apgd", 0, &[3], &[true], spent(1.0), &[0.5; 2]);
    short.add("fgsm", 0, &[1], &[true], spent(1.0), &[0.5; 2]);
    // Another process knows of more rounds than are asked for here.
    let mut more = Ledger::in_memory();
    more.add("apgd", 0, &[1], &[true], spent(1.0), &[]);
    more.add("apgd", 1, &[1], &[true], spent(1.0), &[]);
    short.take_over(&more.known_results().unwrap()).unwrap();
    short.finish().unwrap();
    let mut long = open(RESUME);
    assert!(long.knows("apgd", 3, 0) && !long.knows("fgsm", 1, 0));
    // In the end nothing is left.
    long.ask("clean", 1);
    long.ask("apgd", 2);
    long.finish().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_state_stays_while_it_holds_more_rounds_than_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let mut long = Ledger::open(&path, &identity(), RESUME).unwrap();
    for round in 0..3 {
        long.add("pgd", round, &[1], &[true], spent(1.0), &[]);
    }
    drop(long);
    for (rounds, stays) in [(1, true), (2, true), (9, false)] {
        let mut ledger = Ledger::open(&path, &identity(), RESUME).unwrap();
        ledger.ask("pgd", rounds);
        ledger.finish().unwrap();
        assert_eq!(path.exists(), stays, "{rounds}");
    }
}

#[test]
fn the_clean_pass_and_corruptions_are_known_without_examples() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.jsonl");
    let mut plain = Ledger::open(&path, &identity(), RESUME).unwrap();
    for attack in ["clean", "corruption-fog-1", "pgd"] {
        plain.add(attack, 0, &[1, 2], &[true, false], spent(1.0), &[]);
    }
    drop(plain);
    let kept = Ledger::open(&path, &identity(), PAIRS).unwrap();
    let known = |attack| kept.knows(attack, 1, 0) && kept.knows(attack, 2, 0);
    assert!(known("clean") && known("corruption-fog-1") && !kept.knows("pgd", 2, 0));
}

#[test]
fn examples_go_with_the_state_also_where_the_last_call_kept_none() {
    let dir = tempfile::tempdir().unwrap();
    let (path, beside) = (dir.path().join("s.jsonl"), dir.path().join("s.jsonl.adv"));
    let mut kept = Ledger::open(&path, &identity(), PAIRS).unwrap();
    kept.add("pgd", 0, &[1, 2], &[true, false], spent(1.0), &[0.0; 4]);
    drop(kept);
    assert!(path.exists() && beside.exists());
    Ledger::open(&path, &identity(), RESUME).unwrap().remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Those of another evaluation are not this one's, nor is any other file.
    let digest = others()[0].1.digest();
    for text in ["mine".to_owned(), format!("sora adversarial examples 1 {digest}\n")] {
        fs::write(&beside, &text).unwrap();
        Ledger::open(&path, &identity(), RESUME).unwrap().remove().unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(&beside).unwrap(), text);
    }
}
