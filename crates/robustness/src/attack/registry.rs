//! Attacks by name. The row of each attack stands in the attack's own file.

use super::{Attack, apgd, cw, deepfool, ensemble, fab, fgsm, fmn, pgd, rays, square};
use crate::{
    classifier::Access,
    error::{Error, Result},
    threat::Norm,
};

/// One row of the registry.
#[derive(Debug)]
pub struct AttackInfo {
    /// The beginning of the attack's names; empty for ensembles.
    pub(super) base: &'static str,
    /// Name or pattern.
    pub name: &'static str,
    /// A description in one line.
    pub summary: &'static str,
    /// Paper.
    pub source: &'static str,
    /// Norms in which the attack is defined.
    pub norms: &'static [Norm],
    /// The access to the network that the attack needs.
    pub needs: Access,
    /// Reads a name that begins with `base`.
    pub(super) parse: fn(&str, Norm) -> Result<Box<dyn Attack>>,
}

/// Attacks that are defined in l-inf and l2.
pub(super) const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];
/// Attacks that are defined in l1 as well.
pub(super) const EVERY: &[Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

/// Every attack and ensemble.
pub const ATTACKS: &[AttackInfo] = &[
    fgsm::INFO,
    pgd::INFO,
    cw::INFO,
    apgd::CROSS_ENTROPY,
    apgd::DLR,
    apgd::TARGETED,
    fab::INFO,
    fab::TARGETED,
    fmn::INFO,
    deepfool::INFO,
    square::INFO,
    rays::INFO,
    ensemble::STANDARD,
    ensemble::PLUS,
    ensemble::RAND,
    ensemble::OWN,
];

/// One attack of an entry.
#[derive(Debug)]
pub struct Part {
    /// Name of its results in the report.
    pub name: String,
    /// Name of its draws and kept results, see [`Attack::key`].
    pub key: String,
    /// The attack.
    pub attack: Box<dyn Attack>,
}

impl Part {
    /// `attack` with results called `name`.
    pub fn new(name: impl Into<String>, attack: Box<dyn Attack>) -> Self {
        Self { name: name.into(), key: attack.key(), attack }
    }
}

/// Attacks under one name, each of which runs on the images that the ones before have left. `clean`
/// has none.
#[derive(Debug)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Its attacks.
    pub parts: Vec<Part>,
}

impl Entry {
    /// An entry of one attack, which need not be in the registry.
    pub fn custom(name: impl Into<String>, attack: Box<dyn Attack>) -> Self {
        let name = name.into();
        Self { parts: vec![Part::new(name.clone(), attack)], name }
    }

    /// The name and the attacks with every option, for an identity.
    pub fn description(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(|part| format!("{:?}", part.attack)).collect();
        format!("{}: {}", self.name, parts.join(" + "))
    }
}

/// Reads one name: `clean`, an attack, or an ensemble.
///
/// # Errors
/// [`Error`] for an unknown attack, a form that the attack does not have, or an attack that is not
/// defined for `norm`.
pub fn entry(name: &str, norm: Norm) -> Result<Entry> {
    let parts = match (name, ensemble::parts(name, norm)) {
        ("clean", _) => Vec::new(),
        (_, Some(parts)) => parts?,
        (_, None) => vec![single(name, norm)?],
    };
    Ok(Entry { name: name.to_owned(), parts })
}

/// Reads several names, each of them once.
///
/// # Errors
/// [`Error`] as for [`entry`], or for a name that occurs twice.
pub fn entries<S: AsRef<str>>(names: &[S], norm: Norm) -> Result<Vec<Entry>> {
    let mut found: Vec<Entry> = Vec::with_capacity(names.len());
    for name in names.iter().map(AsRef::as_ref) {
        if found.iter().any(|entry| entry.name == name) {
            return Err(Error::Repeated(name.to_owned()));
        }
        found.push(entry(name, norm)?);
    }
    Ok(found)
}

/// Whether a classifier that answers with `access` can be attacked by all of `entries`; asked before
/// anything is begun for them.
///
/// # Errors
/// [`Error::Access`] for the first attack that asks for more.
pub fn allowed(entries: &[Entry], access: Access) -> Result<()> {
    let mut parts = entries.iter().flat_map(|entry| &entry.parts);
    parts.try_for_each(|part| access.allows(&part.name, part.attack.needs()))
}

/// Reads the name of a single attack.
pub(super) fn single(name: &str, norm: Norm) -> Result<Part> {
    let named = |info: &&AttackInfo| {
        let rest = name.strip_prefix(info.base).filter(|_| !info.base.is_empty());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let Some(info) = ATTACKS.iter().filter(named).max_by_key(|info| info.base.len()) else {
        let known = ATTACKS.iter().map(|info| info.name.to_owned());
        return Err(Error::UnknownAttack {
            name: name.to_owned(),
            known: std::iter::once("clean".to_owned()).chain(known).collect(),
        });
    };
    if !info.norms.contains(&norm) {
        return Err(Error::Undefined { attack: name.to_owned(), norm });
    }
    Ok(Part::new(name, (info.parse)(name, norm)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Passes;

    #[test]
    fn every_form_of_the_registry_is_read() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            for info in ATTACKS.iter().filter(|info| info.norms.contains(&norm)) {
                let name = info
                    .name
                    .replace("[-K[xR]]", "")
                    .replace("[-Q[xR]]", "")
                    .replace("[-Q]", "")
                    .replace("[-K]", "")
                    .replace("K[xR]", "7x2")
                    .replace(
                        "A+B+...",
                        if norm == Norm::L1 { "apgd-ce-9" } else { "fgsm+square-10" },
                    );
                let entry = entry(&name, norm).unwrap();
                assert!(!entry.parts.is_empty(), "{name}");
                let needs = |part: &Part| part.attack.needs();
                assert_eq!(entry.parts.iter().map(needs).max(), Some(info.needs), "{name}");
                let silent = |part: &Part| part.attack.passes(4) == Passes::default();
                assert!(!entry.parts.iter().any(silent), "{name} does not say its passes");
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
            assert!(entry(wrong, Norm::Linf).is_err_and(|e| e.is_input()), "{wrong}");
        }
        assert!(matches!(entry("pdg-3", Norm::Linf), Err(Error::UnknownAttack { .. })));
        assert!(matches!(
            entries(&["fgsm", "fgsm"], Norm::Linf),
            Err(Error::Repeated(name)) if name == "fgsm"
        ));
    }

    #[test]
    fn names_come_back() {
        for (name, norm) in [
            ("fgsm", Norm::Linf),
            ("pgd-7x2", Norm::Linf),
            ("cw-7", Norm::L2),
            ("cw-7x2", Norm::Linf),
            ("apgd-ce-7x2", Norm::L2),
            ("apgd-dlr", Norm::L2),
            ("apgd-t-9x2", Norm::L2),
            ("fab-7x3", Norm::Linf),
            ("fab-t", Norm::Linf),
            ("fmn", Norm::L2),
            ("fmn-30", Norm::Linf),
            ("deepfool-7", Norm::L2),
            ("square-300x2", Norm::Linf),
        ] {
            let base = name.rsplit_once('-').map_or(name, |(base, _)| base);
            let key = &single(name, norm).unwrap().key;
            assert!(key.starts_with(base) || name.starts_with(key.as_str()), "{name}: {key}");
        }
    }

    #[test]
    fn the_official_order() {
        let keys = |name: &str| {
            let parts = entry(name, Norm::Linf).unwrap().parts;
            parts.into_iter().map(|part| part.key).collect::<Vec<_>>()
        };
        assert_eq!(keys("autoattack"), ["apgd-ce", "apgd-t", "fab-t", "square"]);
        assert_eq!(
            keys("autoattack-plus"),
            ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
        );
        let l1 = entry("autoattack", Norm::L1).unwrap();
        let rounds: Vec<_> =
            l1.parts.iter().map(|part| (&*part.key, part.attack.rounds(10))).collect();
        assert_eq!(rounds, [("apgd-ce", 5), ("apgd-t", 5), ("fab-t", 9), ("square", 1)]);
        assert!(entry("autoattack-plus", Norm::L1).is_err());
        assert_eq!(keys("autoattack-rand"), ["apgd-ce-eot20", "apgd-dlr-eot20"]);
        assert_eq!(keys("autoattack:square-100+pgd-20x3"), ["square-100", "pgd-20"]);
    }

    #[test]
    fn passes_follow_from_the_settings_of_an_attack() {
        let of = |name: &str, norm, classes| {
            let parts = entry(name, norm).unwrap().parts;
            let passes = parts.iter().map(|part| part.attack.passes(classes));
            passes.map(|Passes { forward, gradient }| (forward, gradient)).collect::<Vec<_>>()
        };
        for (name, norm, expected) in [
            ("fgsm", Norm::Linf, (0, 1)),
            ("pgd-1000@0.1", Norm::Linf, (0, 1000)),
            ("pgd-50x10", Norm::L2, (0, 50)),
            ("cw", Norm::Linf, (0, 50)),
            ("cw", Norm::L2, (0, 909)),
            ("apgd-ce-20x2", Norm::L1, (0, 23)),
            ("apgd-t", Norm::Linf, (1, 103)),
            ("fab", Norm::Linf, (101, 1500)),
            ("fab-t-5", Norm::L2, (7, 8)),
            ("fmn", Norm::L2, (0, 101)),
            ("deepfool", Norm::L2, (1, 450)),
            ("square-100x2", Norm::Linf, (101, 0)),
            ("rays", Norm::Linf, (10_000, 0)),
        ] {
            assert_eq!(of(name, norm, 10), [expected], "{name} {norm}");
        }
        assert_eq!(of("autoattack-rand", Norm::Linf, 10), [(0, 2060); 2]);
        assert_eq!(of("deepfool-7", Norm::Linf, 3), [(1, 14)]);
    }

    #[test]
    fn what_an_identity_says_of_an_attack_holds_its_options() {
        let of = |name| entry(name, Norm::Linf).unwrap().description();
        assert!(of("autoattack-rand").contains("eot: 20"));
        assert_ne!(of("pgd-10"), of("pgd-10x2"));
        assert_eq!(of("clean"), "clean: ");
    }
}
