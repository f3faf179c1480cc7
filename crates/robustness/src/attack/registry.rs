//! Attacks by name, and ensembles of them.

use super::{
    Attack, Objective, apgd::Apgd, cw::CarliniWagner, fab::Fab, fgsm::Fgsm, pgd::Pgd,
    square::Square,
};
use crate::{
    error::{Error, Result},
    threat::Norm,
};

/// One row of the registry.
#[derive(Debug)]
pub struct AttackInfo {
    /// Name or pattern on the command line.
    pub name: &'static str,
    /// One line for `sora attacks`.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms it is defined for.
    pub norms: &'static [Norm],
    /// Reads a name; `None` if it is not this attack's.
    parse: fn(&str, Norm) -> Option<Box<dyn Attack>>,
}

const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];
const AUTO_PGD: &str = "Croce and Hein 2020, arXiv 2003.01690";
const BOUNDARY: &str = "Croce and Hein 2020, arXiv 1907.02044";

/// Every attack, in the order of `sora attacks`.
pub const ATTACKS: &[AttackInfo] = &[
    AttackInfo {
        name: "fgsm",
        summary: "one step of epsilon along the gradient (its sign in l-inf)",
        source: "Goodfellow et al. 2015, arXiv 1412.6572",
        norms: BOTH,
        parse: |name, _| (name == "fgsm").then(|| dynamic(Fgsm)),
    },
    AttackInfo {
        name: "pgd-K[xR]",
        summary: "K steps of epsilon/4 from a random start (50x10: steps of 2/255), R restarts; for example pgd-10 or pgd-50x10",
        source: "Madry et al. 2018, arXiv 1706.06083; Wong et al. 2020, arXiv 2001.03994",
        norms: BOTH,
        parse: |name, norm| Pgd::parse(name, norm).map(dynamic),
    },
    AttackInfo {
        name: "cw[-K[xR]]",
        summary: "Carlini-Wagner: in l-inf PGD on the margin, 50 steps; in l2 the nearest image by Adam with a binary search over c, 100 steps for each of 9 c",
        source: "Carlini and Wagner 2017, arXiv 1608.04644",
        norms: BOTH,
        parse: |name, norm| match norm {
            Norm::Linf => Pgd::parse_margin(name).map(dynamic),
            Norm::L2 => CarliniWagner::parse(name).map(dynamic),
        },
    },
    AttackInfo {
        name: "apgd-ce[-K[xR]]",
        summary: "Auto-PGD on the cross-entropy, 100 steps",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |name, _| apgd(name, Objective::CrossEntropy),
    },
    AttackInfo {
        name: "apgd-dlr[-K[xR]]",
        summary: "Auto-PGD on the difference of logits ratio, 100 steps",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |name, _| apgd(name, Objective::Dlr),
    },
    AttackInfo {
        name: "apgd-t[-K[xR]]",
        summary: "Auto-PGD on the targeted difference of logits ratio, 100 steps for each of the 9 likeliest other classes",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |name, _| apgd(name, Objective::TargetedDlr),
    },
    AttackInfo {
        name: "fab[-K[xR]]",
        summary: "fast adaptive boundary: the nearest adversarial image, 100 steps",
        source: BOUNDARY,
        norms: BOTH,
        parse: |name, _| Fab::parse(name).filter(|fab| !fab.targeted).map(dynamic),
    },
    AttackInfo {
        name: "fab-t[-K[xR]]",
        summary: "fast adaptive boundary towards each of the 9 likeliest other classes, 100 steps each",
        source: BOUNDARY,
        norms: BOTH,
        parse: |name, _| Fab::parse(name).filter(|fab| fab.targeted).map(dynamic),
    },
    AttackInfo {
        name: "square[-Q[xR]]",
        summary: "random search from the logits alone, 5000 queries",
        source: "Andriushchenko et al. 2020, arXiv 1912.00049",
        norms: BOTH,
        parse: |name, _| Square::parse(name).map(dynamic),
    },
    AttackInfo {
        name: "autoattack",
        summary: "standard ensemble: apgd-ce, apgd-t, fab-t, square, each on what still stands",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |_, _| None,
    },
    AttackInfo {
        name: "autoattack-plus",
        summary: "apgd-ce and apgd-dlr with 5 restarts, fab with 5 restarts, square, apgd-t, fab-t",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |_, _| None,
    },
    AttackInfo {
        name: "autoattack-rand",
        summary: "for networks whose output is random: apgd-ce and apgd-dlr on means of 20 gradients",
        source: AUTO_PGD,
        norms: BOTH,
        parse: |_, _| None,
    },
    AttackInfo {
        name: "autoattack:A+B+...",
        summary: "an ensemble of one's own, in the order given; for example autoattack:apgd-ce+square",
        source: "",
        norms: BOTH,
        parse: |_, _| None,
    },
];

fn dynamic(attack: impl Attack + 'static) -> Box<dyn Attack> {
    Box::new(attack)
}

fn apgd(name: &str, objective: Objective) -> Option<Box<dyn Attack>> {
    Apgd::parse(name).filter(|apgd| apgd.objective == objective).map(dynamic)
}

/// An attack of an entry.
#[derive(Debug)]
pub struct Part {
    /// What its results are called in the report.
    pub name: String,
    /// What its draws and its kept results are called: the same attack with more restarts goes on
    /// where this one ended.
    pub key: String,
    /// The attack.
    pub attack: Box<dyn Attack>,
}

/// A named entry of `--attacks`: attacks, each on what the ones before have left. `clean` has none.
#[derive(Debug)]
pub struct Entry {
    /// Name as it was given.
    pub name: String,
    /// Its attacks.
    pub parts: Vec<Part>,
}

impl Entry {
    /// An entry of one attack, which need not be in the registry.
    pub fn custom(name: &str, attack: Box<dyn Attack>) -> Self {
        Self {
            name: name.to_owned(),
            parts: vec![Part { name: name.to_owned(), key: name.to_owned(), attack }],
        }
    }
}

/// Reads one name of `--attacks`.
///
/// # Errors
/// An unknown attack, or one that is not defined for `norm`.
pub fn entry(name: &str, norm: Norm) -> Result<Entry> {
    let ensemble =
        |names: &[&str]| names.iter().map(|name| part(name, norm)).collect::<Result<Vec<_>>>();
    let parts = match name {
        "clean" => Vec::new(),
        "autoattack" => ensemble(&["apgd-ce", "apgd-t", "fab-t", "square"])?,
        "autoattack-plus" => ensemble(&[
            "apgd-ce-100x5",
            "apgd-dlr-100x5",
            "fab-100x5",
            "square",
            "apgd-t",
            "fab-t",
        ])?,
        "autoattack-rand" => [("apgd-ce", Objective::CrossEntropy), ("apgd-dlr", Objective::Dlr)]
            .map(|(name, objective)| Part {
                name: name.into(),
                key: format!("{name}-eot20"),
                attack: Box::new(Apgd { objective, steps: 100, restarts: 1, eot: 20 }),
            })
            .into(),
        _ => match name.strip_prefix("autoattack:") {
            Some(list) => ensemble(&list.split('+').collect::<Vec<_>>())?,
            None => vec![part(name, norm)?],
        },
    };
    Ok(Entry { name: name.to_owned(), parts })
}

/// Reads the name of a single attack.
fn part(name: &str, norm: Norm) -> Result<Part> {
    let found =
        ATTACKS.iter().find_map(|info| (info.parse)(name, norm).map(|attack| (info, attack)));
    match found {
        Some((info, attack)) if info.norms.contains(&norm) => {
            Ok(Part { name: name.to_owned(), key: key(name), attack })
        }
        Some(_) => Err(Error::Undefined { attack: name.to_owned(), norm }),
        None => {
            let known = ATTACKS.iter().map(|info| info.name.to_owned());
            Err(Error::UnknownAttack {
                name: name.to_owned(),
                known: std::iter::once("clean".to_owned()).chain(known).collect(),
            })
        }
    }
}

/// `name` without its restarts, with the steps that it stands for; the 50x10 protocol has a step
/// size of its own and so a name of its own.
fn key(name: &str) -> String {
    if name == "pgd-50x10" || name.starts_with("apgd-t-") || name.starts_with("fab-t-") {
        return name.to_owned();
    }
    let base = match name.rsplit_once('x') {
        Some((base, restarts))
            if !restarts.is_empty() && restarts.bytes().all(|b| b.is_ascii_digit()) =>
        {
            base
        }
        _ => name,
    };
    match base {
        "apgd-ce-100" | "apgd-dlr-100" | "fab-100" => base.trim_end_matches("-100").to_owned(),
        "square-5000" => "square".to_owned(),
        _ => base.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_registry_is_read() {
        for norm in [Norm::Linf, Norm::L2] {
            for info in ATTACKS {
                let name = info
                    .name
                    .replace("[-K[xR]]", "")
                    .replace("[-Q[xR]]", "")
                    .replace("K[xR]", "7x2")
                    .replace("A+B+...", "fgsm+square-10");
                let entry = entry(&name, norm).unwrap();
                assert!(!entry.parts.is_empty(), "{name}");
            }
        }
        for wrong in [
            "",
            "clean+fgsm",
            "autoattack:",
            "autoattack:fgsm+",
            "autoattack:clean",
            "autoattack:autoattack",
            "autoattack-",
            "pgd",
            "fgsm-2",
        ] {
            assert!(
                matches!(entry(wrong, Norm::Linf), Err(Error::UnknownAttack { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_official_order() {
        let names = |name: &str| {
            entry(name, Norm::Linf)
                .unwrap()
                .parts
                .into_iter()
                .map(|part| part.key)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("autoattack"), ["apgd-ce", "apgd-t", "fab-t", "square"]);
        assert_eq!(
            names("autoattack-plus"),
            ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
        );
        assert_eq!(names("autoattack-rand"), ["apgd-ce-eot20", "apgd-dlr-eot20"]);
        assert_eq!(names("autoattack:square-100+pgd-20x3"), ["square-100", "pgd-20"]);
    }
}
