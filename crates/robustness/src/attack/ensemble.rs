//! Attacks one after another, each on the images that withstood the attacks before it: AutoAttack
//! (Croce and Hein 2020, arXiv 2003.01690) in its forms, and lists of the user's own.

use super::{
    AttackInfo, Objective, Part,
    apgd::Apgd,
    registry::{BOTH, EVERY, single},
};
use crate::{
    classifier::Access,
    error::{Error, Result},
    threat::Norm,
};

const SOURCE: &str = "Croce and Hein 2020, arXiv 2003.01690";

/// A row of the registry that stands for several attacks.
const fn row(name: &'static str, summary: &'static str) -> AttackInfo {
    AttackInfo {
        base: "",
        name,
        summary,
        source: SOURCE,
        norms: EVERY,
        needs: Access::Gradients,
        parse: |name, _| {
            let problem = "is an ensemble, not a single attack".into();
            Err(Error::AttackForm { name: name.to_owned(), problem })
        },
    }
}

pub(super) const STANDARD: AttackInfo = row(
    "autoattack",
    "standard ensemble: apgd-ce, apgd-t, fab-t, square, each on what still stands",
);
pub(super) const PLUS: AttackInfo = AttackInfo {
    norms: BOTH,
    ..row(
        "autoattack-plus",
        "apgd-ce and apgd-dlr with 5 restarts, fab with 5 restarts, square, apgd-t, fab-t",
    )
};
pub(super) const RAND: AttackInfo = row(
    "autoattack-rand",
    "for networks whose output is random: apgd-ce and apgd-dlr on means of 20 gradients",
);
pub(super) const OWN: AttackInfo = AttackInfo {
    source: "",
    ..row(
        "autoattack:A+B+...",
        "an ensemble of one's own, in the order given; for example autoattack:apgd-ce+square",
    )
};

/// The attacks of the ensemble called `name`; `None` if `name` is not an ensemble.
pub(super) fn parts(name: &str, norm: Norm) -> Option<Result<Vec<Part>>> {
    let of = |names: &[&str]| names.iter().map(|name| single(name, norm)).collect();
    Some(match name {
        // In l1 a single start finds too little (Croce and Hein 2021, arXiv 2103.01208).
        "autoattack" if norm == Norm::L1 => of(&["apgd-ce-100x5", "apgd-t", "fab-t", "square"]),
        "autoattack" => of(&["apgd-ce", "apgd-t", "fab-t", "square"]),
        "autoattack-plus" if norm == Norm::L1 => {
            Err(Error::Undefined { attack: name.to_owned(), norm })
        }
        "autoattack-plus" => {
            of(&["apgd-ce-100x5", "apgd-dlr-100x5", "fab-100x5", "square", "apgd-t", "fab-t"])
        }
        "autoattack-rand" => {
            Ok([("apgd-ce", Objective::CrossEntropy), ("apgd-dlr", Objective::Dlr)]
                .map(|(name, objective)| {
                    let attack = Apgd { eot: 20, ..Apgd::on(objective) };
                    Part::new(name, Box::new(attack))
                })
                .into())
        }
        _ => of(&name.strip_prefix("autoattack:")?.split('+').collect::<Vec<_>>()),
    })
}
