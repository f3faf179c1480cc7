//! Which attacks an evaluation consists of.

use std::fmt;

use clap::ValueEnum;
use sora::{robustness::Access, threat::Norm};

use crate::error::{Failure, Result};

/// A protocol by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// clean, fgsm and pgd-10 on 1000 images
    Quick,
    /// clean, fgsm, pgd-10, pgd-50x10 and autoattack on the whole split
    Paper,
    /// clean and autoattack on the whole split
    Autoattack,
}

/// What is run where nothing is said.
const USUAL: &[&str] = &["clean", "fgsm", "pgd-10"];
/// The same in l1, where neither of the two is defined.
const USUAL_IN_L1: &[&str] = &["clean", "apgd-ce"];

impl Suite {
    /// The images that it takes where nothing is said.
    pub fn images(self) -> Option<usize> {
        (self == Self::Quick).then_some(1000)
    }

    fn attacks(self) -> &'static [&'static str] {
        match self {
            Self::Quick => USUAL,
            Self::Paper => &["clean", "fgsm", "pgd-10", "pgd-50x10", "autoattack"],
            Self::Autoattack => &["clean", "autoattack"],
        }
    }

    /// What is left of it for a model that answers with logits.
    fn by_scores(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &["clean", "square-1000"],
            Self::Paper => &["clean", "square-1000", "square"],
            Self::Autoattack => &["clean", "square"],
        }
    }

    /// What is left of it for a model that answers with labels.
    fn by_labels(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &["clean", "rays-1000"],
            Self::Paper => &["clean", "rays-1000", "rays"],
            Self::Autoattack => &["clean", "rays"],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
            Self::Autoattack => "autoattack",
        })
    }
}

/// The attacks of an evaluation.
#[derive(Debug)]
pub struct Protocol {
    /// Their names, in order.
    pub names: Vec<String>,
    /// What was changed for the model's sake.
    pub note: Option<String>,
}

impl Protocol {
    /// The attacks that were named, those of `suite`, or the usual ones, for a model that gives
    /// `access` under a threat of `norm`.
    ///
    /// # Errors
    /// A model for which no attack of the suite is possible.
    pub fn choose(
        named: &[String],
        suite: Option<Suite>,
        access: Access,
        norm: Norm,
    ) -> Result<Self> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        if !named.is_empty() {
            return Ok(Self { names: named.to_vec(), note: None });
        }
        let chosen = suite.unwrap_or(Suite::Quick);
        let names = match access {
            Access::Gradients => {
                let usual = if norm == Norm::L1 { USUAL_IN_L1 } else { USUAL };
                return Ok(Self { names: owned(suite.map_or(usual, Suite::attacks)), note: None });
            }
            Access::Scores => chosen.by_scores(),
            Access::Labels if norm == Norm::Linf => chosen.by_labels(),
            Access::Labels => {
                return Err(Failure::input(format!(
                    "--norm {norm}: the model answers with labels alone, for which rays is the \
                     attack, in linf; let it answer with logits, or choose --norm linf"
                )));
            }
        };
        let note = format!(
            "the model answers with {access} and gives no gradients: {} in place of {}",
            names[1..].join(", "),
            chosen.attacks()[1..].join(", ")
        );
        Ok(Self { names: owned(names), note: Some(note) })
    }
}

/// What the figures of these attacks are worth.
pub fn upper_bound(names: &[String], access: Access) -> Option<String> {
    if names.iter().all(|name| name == "clean") {
        return None;
    }
    if access < Access::Gradients {
        return Some(
            "accuracies under attacks without gradients are upper bounds of the robust accuracy; an \
             attacker who has the weights finds more"
                .into(),
        );
    }
    let ensemble = names.iter().any(|name| name.starts_with("autoattack"));
    (!ensemble).then(|| {
        "accuracies under single attacks are upper bounds of the robust accuracy; --suite \
         autoattack gives a tighter one"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use sora::attack;

    use super::*;

    #[test]
    fn every_suite_is_possible_for_every_access() {
        for suite in Suite::value_variants() {
            for (access, norm) in [
                (Access::Gradients, Norm::L2),
                (Access::Scores, Norm::L2),
                (Access::Scores, Norm::Linf),
                (Access::Labels, Norm::Linf),
            ] {
                let chosen = Protocol::choose(&[], Some(*suite), access, norm).unwrap();
                let entries = attack::entries(&chosen.names, norm).unwrap();
                assert!(entries.len() > 1);
                let needs = entries.iter().flat_map(|e| &e.parts).map(|part| part.attack.needs());
                assert!(needs.max() <= Some(access), "{suite} {access}");
                assert_eq!(chosen.note.is_some(), access < Access::Gradients);
            }
            assert!(Protocol::choose(&[], Some(*suite), Access::Labels, Norm::L2).is_err());
        }
        let named = ["fgsm".to_owned()];
        let chosen = Protocol::choose(&named, None, Access::Labels, Norm::L2).unwrap();
        assert_eq!((chosen.names, chosen.note), (named.to_vec(), None));
    }
}
