//! Readers of files and words by their bytes, for the fuzz targets of the repository (`fuzz/`), which
//! build this crate with `--cfg fuzzing`, and for the test that replays their seeds. No part of the
//! library.
#![allow(missing_docs)]

use crate::{
    DataIdentity, Epsilon, Identity, Ledger, Norm, Threat, WeightsIdentity, entry,
    evaluate::{ExistingState, StateOptions},
};

/// A reader by the name of its target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] =
    &[("evaluation_state", evaluation_state), ("evaluation_words", evaluation_words)];

/// The identity in the seeds, see `scripts/fuzz_seeds.py`.
fn identity() -> Identity {
    Identity {
        program: "seed".into(),
        weights: WeightsIdentity::default(),
        data: DataIdentity::default(),
        norm: Norm::Linf,
        epsilon: 0.5,
        seed: 0,
        options: vec![],
        attacks: vec![],
    }
}

/// The state of an evaluation that was cut off: read or refused; what is read stays known. With an
/// odd first byte the bytes behind the first zero byte are its adversarial examples.
pub fn evaluation_state(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let cut = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    let examples = rest.get(cut + 1..).unwrap_or_default();
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("s");
    let digest = identity().digest();
    let header = format!("sora adversarial examples 1 {digest}\n").into_bytes();
    let written = std::fs::write(&path, &rest[..cut])
        .and_then(|()| std::fs::write(dir.path().join("s.adv"), [&header, examples].concat()));
    let (start, kept) = (ExistingState::Resume, (how & 1 == 1).then_some(2));
    let options = StateOptions { start, examples: kept };
    let Ok(ledger) = Ledger::open(&path, &identity(), options) else { return };
    let before = ledger.known();
    drop(ledger);
    let after = Ledger::open(&path, &identity(), options).map(|ledger| ledger.known());
    assert!(written.is_err() || after.is_ok_and(|after| after == before), "what was read is lost");
}

/// Names of attacks, and radii, as calls and files give them.
pub fn evaluation_words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for norm in [Norm::Linf, Norm::L2] {
        let _ = entry(text, norm);
    }
    let Ok(epsilon) = text.parse::<Epsilon>() else { return };
    let again = epsilon.to_string().parse::<Epsilon>();
    assert!(again.is_ok_and(|again| again == epsilon), "a radius is not what is written of it");
    for norm in [Norm::Linf, Norm::L2] {
        let _ = Threat::new(norm, &epsilon);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// See `fuzz/seeds` (not in the published package).
    #[test]
    fn every_seed_of_the_fuzz_targets_is_read_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if !seeds.is_dir() {
            return;
        }
        for (name, target) in TARGETS {
            let files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "no seeds of {name}");
            for file in files {
                target(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }

    /// The seeds are read: they are as this crate writes states.
    #[test]
    fn the_seed_of_a_state_holds_what_it_says() {
        let seed =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/evaluation_state/plain");
        let Ok(bytes) = fs::read(seed) else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, &bytes[1..]).unwrap();
        let options = StateOptions { start: ExistingState::Resume, examples: None };
        let ledger = Ledger::open(&path, &identity(), options).unwrap();
        assert_eq!(ledger.known(), (5, 2));
    }
}
