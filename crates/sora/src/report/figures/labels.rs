//! Labels of points, which say what tells them apart.

use crate::report::{caption, run::Run, seeds::Group};

/// A fact about a run that a label may give.
pub(super) type Fact = fn(&Run) -> String;

/// What a threat consists of; a label gives the part that differs, because there is little space.
pub(super) const THREAT: [Fact; 2] = [norm, radius];

fn norm(run: &Run) -> String {
    caption::norm(&run.norm()).to_owned()
}

fn radius(run: &Run) -> String {
    format!("\u{3b5} = {}", run.setting("epsilon"))
}

/// Those of `facts` that are not the same for all runs.
pub(super) fn differing(runs: &[Run], facts: &[Fact]) -> Vec<Fact> {
    let differs = |fact: &Fact| runs.windows(2).any(|two| fact(&two[0]) != fact(&two[1]));
    facts.iter().copied().filter(differs).collect()
}

/// The label of a group: its name, these facts, and how many of its runs were measured if not all
/// were.
pub(super) fn label(group: &Group<'_>, measured: usize, facts: &[Fact]) -> String {
    let mut parts = vec![group.name.clone()];
    if let Some(run) = group.runs.first() {
        parts.extend(facts.iter().map(|fact| fact(run)));
    }
    if measured < group.runs.len() {
        parts.push(format!("{measured} of {} measured", group.runs.len()));
    }
    parts.join(", ")
}

/// `titles`, those that are equal numbered.
pub(super) fn numbered(titles: &[String]) -> Vec<String> {
    let number = |(i, title): (usize, &String)| {
        let equal = |all: &[String]| all.iter().filter(|other| *other == title).count();
        match equal(titles) {
            0 | 1 => title.clone(),
            _ => format!("{title} ({})", equal(&titles[..=i])),
        }
    };
    titles.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::seeds::groups;

    #[test]
    fn a_label_says_what_differs_and_how_many_seeds_were_measured() {
        let run = |name: &str, config: &str| Run {
            name: name.into(),
            config: format!("norm = \"linf\"\ndataset = \"d\"\n{config}").parse().unwrap(),
            ..Run::default()
        };
        let mut runs = [
            run("a-seed0", "epsilon = \"8/255\"\nseed = 0\n"),
            run("a-seed1", "epsilon = \"8/255\"\nseed = 1\n"),
            run("b", "epsilon = \"16/255\"\nseed = 0\n"),
        ];
        let [norm, radius] = THREAT;
        let facts = differing(&runs, &[Run::dataset, norm, radius]);
        let all = groups(&runs);
        assert_eq!(label(&all[0], 1, &facts), "a (2 seeds), \u{3b5} = 8/255, 1 of 2 measured");
        assert_eq!(label(&all[1], 1, &facts), "b, \u{3b5} = 16/255");
        assert_eq!(label(&all[0], 2, &differing(&runs[..2], &THREAT)), "a (2 seeds)");
        runs[2].config.insert("norm".into(), "l2".into());
        let facts = differing(&runs, &THREAT);
        assert_eq!(label(&groups(&runs)[1], 1, &facts), "b, l2, \u{3b5} = 16/255");
    }

    #[test]
    fn equal_titles_are_numbered() {
        let titles = ["pets", "cats", "pets"].map(String::from);
        assert_eq!(numbered(&titles), ["pets (1)", "cats", "pets (2)"]);
    }
}
