//! `sora attacks`: the attacks of an evaluation.

use serde_json::json;
use sora::attack::{ATTACKS, AttackInfo};

use super::shared::{Describe, Entry, Listing, norms};
use crate::{console::no_such, error::Result};

/// Which attack, and how to print.
#[derive(Debug, clap::Args)]
pub struct AttacksArgs {
    /// An attack to describe, such as pgd-10; without one: the list
    pub name: Option<String>,
    #[command(flatten)]
    pub describe: Describe,
}

/// Prints the list, or one attack.
pub fn run(args: &AttacksArgs) -> Result<()> {
    let name = args.name.as_deref().map(pattern_of).transpose()?;
    args.describe.print("attack", name, list())
}

/// Every attack.
pub fn list() -> Listing {
    Listing {
        heading: &["attack", "norms", "what it does"],
        entries: ATTACKS.iter().map(entry).collect(),
        footer: "K: steps, Q: queries, R: restarts; what stands in brackets may be left out. \
                 `sora attacks NAME` gives the source.",
    }
}

fn entry(info: &AttackInfo) -> Entry {
    Entry {
        name: info.name.into(),
        cells: vec![norms(info.norms), info.summary.into()],
        facts: vec![
            ("what it does", info.summary.into()),
            ("norms", norms(info.norms)),
            ("source", info.source.into()),
        ],
        json: json!({"summary": info.summary, "source": info.source, "norms": info.norms}),
    }
}

/// The row that matches `name`: the row of that name, or the pattern of which the name is an
/// example.
fn pattern_of(name: &str) -> Result<&'static str> {
    let mut patterns = ATTACKS.iter().map(|info| info.name);
    patterns.find(|pattern| is_of(name, pattern)).ok_or_else(|| {
        let known = ATTACKS.iter().map(|info| stem(info.name));
        no_such("attack", name, known, "`sora attacks` lists them all")
    })
}

/// A pattern without its sizes: `pgd` of `pgd-K[xR]`, `fab-t` of `fab-t[-K[xR]]`.
pub fn stem(pattern: &str) -> &str {
    let before = pattern.split('[').next().unwrap_or(pattern);
    before.strip_suffix("-K").unwrap_or(before)
}

/// Whether `name` is `pattern` with any sizes; PGD takes the size of a step behind them.
fn is_of(name: &str, pattern: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(sizes) = name.strip_prefix(stem(pattern)) else { return false };
    let is_size = |sizes: &str| {
        let numbers = match sizes.split_once('@') {
            Some((numbers, _)) if stem(pattern) == "pgd" => numbers,
            _ => sizes,
        };
        let (steps, restarts) = numbers.split_once('x').unwrap_or((numbers, "1"));
        is_number(steps) && is_number(restarts)
    };
    name == pattern || sizes.is_empty() || sizes.strip_prefix('-').is_some_and(is_size)
}

#[cfg(test)]
mod tests {
    use super::pattern_of;

    #[test]
    fn an_example_finds_its_pattern() {
        for (name, pattern) in [
            ("fgsm", "fgsm"),
            ("pgd-10", "pgd-K[xR]"),
            ("pgd-50x10", "pgd-K[xR]"),
            ("pgd-20@2/255", "pgd-K[xR]"),
            ("pgd-50x10@eps/4", "pgd-K[xR]"),
            ("pgd", "pgd-K[xR]"),
            ("pgd-K[xR]", "pgd-K[xR]"),
            ("fab-t", "fab-t[-K[xR]]"),
            ("fab-100", "fab[-K[xR]]"),
            ("autoattack", "autoattack"),
        ] {
            assert_eq!(pattern_of(name).ok(), Some(pattern), "{name}");
        }
        let refused = crate::render::text(&pattern_of("autoatack").unwrap_err());
        assert!(refused.contains("did you mean autoattack"), "{refused}");
        for wrong in ["pgd-x", "pgd-@2/255", "fab-100@2/255"] {
            assert!(pattern_of(wrong).is_err(), "{wrong}");
        }
    }
}
