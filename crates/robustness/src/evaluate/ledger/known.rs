//! What a ledger knows, as the bytes that processes which share an evaluation tell each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ledger, Record};
use crate::error::{Error, Result};

/// A [`Record`] without the place of its example, which its own process has.
#[derive(Serialize, Deserialize)]
struct Known {
    id: u32,
    fallen: bool,
    seconds: Vec<f32>,
    queries: Vec<Option<f64>>,
}

impl Ledger {
    /// Everything that is known, for another process.
    pub(in crate::evaluate) fn known_results(&self) -> Result<Vec<u8>> {
        let all: BTreeMap<&str, Vec<Known>> = self
            .records
            .iter()
            .map(|(attack, records)| {
                let mut known: Vec<Known> = records
                    .iter()
                    .map(|(&id, record)| Known {
                        id,
                        fallen: record.fallen,
                        seconds: record.seconds.clone(),
                        queries: record.queries.clone(),
                    })
                    .collect();
                known.sort_by_key(|one| one.id);
                (attack.as_str(), known)
            })
            .collect();
        serde_json::to_vec(&all).map_err(|source| Error::Json { what: "results", source })
    }

    /// Takes over what another process has [known](Self::known_results): in memory, since that
    /// process has written it down.
    pub(in crate::evaluate) fn take_over(&mut self, known: &[u8]) -> Result<()> {
        let all: BTreeMap<String, Vec<Known>> = serde_json::from_slice(known)
            .map_err(|source| Error::Json { what: "results of another process", source })?;
        for (attack, known) in all {
            let records = self.records.entry(attack).or_default();
            for Known { id, fallen, seconds, queries } in known {
                let record = records.entry(id).or_default();
                if seconds.len() > record.seconds.len() && !record.fallen {
                    *record = Record { seconds, queries, fallen, row: None };
                }
            }
        }
        Ok(())
    }
}
