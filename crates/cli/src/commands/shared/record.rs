//! The files of an evaluation: its state while it runs, and its record.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sora::{
    evaluate::{ExistingState, Identity, Ledger, StateOptions},
    robustness, sealed,
};

use super::Target;
use crate::{
    error::{Failure, Result},
    world,
};

/// What follows in the name of a file of state of a process that is not the first; its number
/// follows.
const RANK: &str = ".rank-";

impl Target {
    /// Opens the ledger of the evaluation `identity`: in the file `state`, or else at the default
    /// place. If the default place cannot be written, the evaluation runs without a file.
    ///
    /// # Errors
    /// A `state` that cannot be written, is not a state, or belongs to another evaluation.
    pub fn ledger(
        &self,
        state: Option<&Path>,
        identity: &Identity,
        options: StateOptions,
    ) -> Result<Ledger> {
        let ledger = match state {
            Some(path) => Ledger::open(&own(path), identity, options).map_err(|e| {
                let again = match e {
                    robustness::Error::OtherEvaluation { .. } => " with --fresh",
                    _ => "",
                };
                Failure::input(format!("--state: {e}{again}"))
            })?,
            None => match self.usual_ledger(identity, options) {
                Ok(ledger) => ledger,
                // Adversarial examples need a file, so the evaluation cannot run without one.
                Err(e) if options.examples.is_some() => return Err(e),
                Err(e) => {
                    let why = crate::render::text(&e);
                    tracing::warn!("{why}; this evaluation cannot be resumed");
                    return Ok(Ledger::in_memory());
                }
            },
        };
        if let (Some(why), Some(path)) = (ledger.unlocked(), ledger.path()) {
            tracing::warn!(
                "{}: this file system has no locks ({why}); see to it that no second process goes on \
                 with this evaluation",
                path.display()
            );
        }
        if let ((results @ 1.., attacks), Some(path)) = (ledger.known(), ledger.path()) {
            tracing::info!(
                "going on from {}: {results} results of {attacks} attacks are there",
                path.display()
            );
        }
        Ok(ledger)
    }

    fn usual_ledger(&self, identity: &Identity, options: StateOptions) -> Result<Ledger> {
        let name = format!("state-{}-{:.4}-{}", identity.norm, identity.epsilon, identity.short());
        let place = own(&self.file(&name)?);
        let dir = place.parent().unwrap_or(Path::new("."));
        let stem = place.file_name().unwrap_or_default().to_string_lossy();
        Ok(Ledger::open_in(dir, &stem, identity, options)?)
    }

    /// Says which states of evaluations that were cut off still lie in the run's eval folder: nobody
    /// but their calls or the user takes them away.
    pub fn say_what_is_left(&self) {
        let Some((dir, _)) = self.subject.run() else { return };
        let entries = fs::read_dir(dir.evaluations()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let states = names.filter(|name| name.starts_with("state-") && name.ends_with(".jsonl"));
        // Several processes have a file each.
        let evaluation =
            |name: String| name.split(RANK).next().map(|stem| stem.replace(".jsonl", ""));
        match states.map(evaluation).collect::<BTreeSet<_>>().len() {
            0 => {}
            left => tracing::info!(
                "{} holds state-*.jsonl of {left} evaluations that were cut off or are still \
                 running: the same calls go on from them",
                dir.evaluations().display()
            ),
        }
    }

    /// Writes the record `value`: to `out`, else for a run to `eval/STEM.json`, else nowhere. A
    /// record that cannot go there is kept in the folder for temporary files.
    ///
    /// # Errors
    /// The place of a record that could not be written where it belongs.
    pub fn keep(
        &self,
        stem: &str,
        out: Option<&Path>,
        value: &impl Serialize,
    ) -> Result<Option<PathBuf>> {
        if !world::first() {
            return Ok(None);
        }
        let place = match out {
            Some(out) => Ok(out.to_owned()),
            None if self.subject.run().is_none() => return Ok(None),
            None => self.file(&format!("{stem}.json")),
        };
        let written = place.and_then(|place| {
            sealed::write(&place, value)?;
            Ok(place)
        });
        match written {
            Ok(place) => Ok(Some(place)),
            Err(e) => {
                let why = crate::render::text(&e);
                let spare = std::env::temp_dir().join(format!("sora-{stem}.json"));
                Err(Failure::work(match sealed::write(&spare, value) {
                    Ok(()) => format!("{why}; the record is in {} instead", spare.display()),
                    Err(_) => format!("{why}; the figures above are all that there is"),
                }))
            }
        }
    }
}

/// The file `path` of this process: of several, each writes down its own part. Names and not locks,
/// which some file systems do not have, keep them apart.
fn own(path: &Path) -> PathBuf {
    named(path, world::link().rank())
}

fn named(path: &Path, rank: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if rank > 0 {
        name.push(format!("{RANK}{rank}"));
    }
    name.into()
}

/// The options of a state: new if `fresh`, with examples of `examples` values or without.
pub fn state_options(fresh: bool, examples: Option<usize>) -> StateOptions {
    StateOptions {
        start: if fresh { ExistingState::Fresh } else { ExistingState::Resume },
        examples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_file_of_its_own() {
        let name = |rank| named(Path::new("eval/state-linf.x"), rank);
        assert_eq!(name(0), Path::new("eval/state-linf.x"));
        assert_eq!(name(1), Path::new("eval/state-linf.x.rank-1"));
        assert_eq!(name(20), Path::new("eval/state-linf.x.rank-20"));
    }
}
