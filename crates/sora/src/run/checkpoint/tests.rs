use super::*;

fn at(epoch: u64, batch: u64, step: u64) -> Position {
    Position { epoch, batch, step, ..Position::default() }
}

fn state(value: f32) -> State {
    State {
        model: vec![HostTensor { name: "w".into(), shape: vec![1], data: vec![value] }],
        ..State::default()
    }
}

fn write(dir: &Path, progress: &Position, state: &State) -> Result<PathBuf> {
    let metadata = &HashMap::new();
    let content = Content { progress, state, metadata, config: "digest", logs: &LogDigests::new() };
    save(dir, content, 3, |_| false)
}

fn latest(dir: &Path) -> Result<Option<Checkpoint>> {
    newest(dir, Ok, |_| {})
}

fn names(dir: &Path) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    list(dir).unwrap().iter().map(name).collect()
}

#[test]
fn the_newest_whole_checkpoint_is_found_and_old_ones_go() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("checkpoints");
    assert!(latest(&dir).unwrap().is_none());
    for progress in [at(0, 3, 3), at(1, 0, 5), at(1, 2, 7), at(2, 0, 10)] {
        write(&dir, &progress, &state(0.1)).unwrap();
    }
    assert_eq!(names(&dir), ["epoch-001", "epoch-001-step-000007", "epoch-002"]);
    let newest = latest(&dir).unwrap().unwrap();
    assert_eq!((newest.progress.epoch, newest.progress.step), (2, 10));
    assert_eq!(newest.model["w"].data, [0.1]);
    assert_eq!(newest.manifest.unwrap().config.unwrap(), "digest");

    // The remains of a kill do not count as a checkpoint, and a damaged checkpoint is skipped.
    let left = [dir.join(".epoch-003.tmp"), dir.join(".epoch-001.old")];
    left.iter().for_each(|path| fs::create_dir(path).unwrap());
    fs::write(newest.path.join(MODEL), b"cut").unwrap();
    assert_eq!(latest(&dir).unwrap().unwrap().progress.step, 7);
    write(&dir, &at(2, 1, 11), &state(0.1)).unwrap();
    assert!(!left.iter().any(|path| path.exists()), "the next checkpoint clears them away");
    for path in list(&dir).unwrap() {
        fs::write(path.join(STATE), b"{").unwrap();
    }
    assert!(matches!(latest(&dir), Err(Error::Damaged { .. })));
}

#[test]
fn any_changed_byte_of_any_file_is_noticed_and_the_checkpoint_before_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("checkpoints");
    write(&dir, &at(1, 0, 5), &state(0.1)).unwrap();
    let newest_path = write(&dir, &at(2, 0, 10), &state(0.2)).unwrap();
    for file in [MODEL, OPTIMIZER, METHOD, STATE, MANIFEST] {
        let path = newest_path.join(file);
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[place] ^= 1 << (place % 8);
            fs::write(&path, &changed).unwrap();
            let mut lines = Vec::new();
            let found = newest(&dir, Ok, |line| lines.push(line.to_owned())).unwrap().unwrap();
            // A manifest that is changed but has the same content is no change.
            let same = found.progress.step == 10 && file == MANIFEST;
            assert!(same || found.progress.step == 5, "{file}, byte {place}");
            assert!(same || (lines.len() == 1 && lines[0].contains("epoch-001")), "{lines:?}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(weights(&newest_path).is_ok());
    fs::remove_file(newest_path.join(METHOD)).unwrap();
    assert_eq!(latest(&dir).unwrap().unwrap().progress.step, 5, "a missing file");
}

#[test]
fn what_the_run_refuses_falls_back_too() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &at(1, 0, 5), &state(0.1)).unwrap();
    write(root.path(), &at(2, 0, 10), &State::default()).unwrap();
    let take = |found: Checkpoint| match found.model.get("w") {
        Some(_) => Ok(found.progress.step),
        None => Err(Error::mismatch(&found.path, "no tensor named 'w'")),
    };
    assert_eq!(newest(root.path(), take, |_| {}).unwrap(), Some(5));
}

#[test]
fn a_value_that_is_not_finite_is_never_written_and_costs_no_good_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    for step in 1..4 {
        write(dir, &at(step, 0, step), &state(0.1)).unwrap();
    }
    let before = names(dir);
    for value in [f32::NAN, f32::INFINITY] {
        match write(dir, &at(4, 0, 4), &state(value)) {
            Err(Error::Diverged { last_good: Some(path), step: 4, .. }) => {
                assert!(path.ends_with("epoch-003"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names(dir), before);
}
