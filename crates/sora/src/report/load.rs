//! Reads several run folders and gives each run a name of its own.

use std::path::{Component, Path, PathBuf};

use super::run::{Run, folder_name};
use crate::error::{Error, Result};

/// Runs to compare.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// The runs that could be read, in the order of the paths.
    pub runs: Vec<Run>,
    /// The other folders, each with the reason why it is not a run.
    pub skipped: Vec<Skipped>,
}

/// A folder that is not a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The folder.
    pub path: PathBuf,
    /// The reason, without the machine's paths.
    pub problem: String,
}

impl Skipped {
    /// The folder's last name.
    pub fn name(&self) -> String {
        folder_name(&self.path)
    }
}

impl Runs {
    /// Reads run folders and gives each run a name of its own; folders that are not runs are
    /// skipped.
    ///
    /// # Errors
    /// [`Error`] without paths, or if none is a run folder.
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        let mut all = Self::default();
        let mut first = None;
        for path in paths {
            match Run::load(path) {
                Ok(run) => all.runs.push(run),
                Err(e) => {
                    let problem = match &e {
                        Error::NotARun { problem, .. } => problem.clone(),
                        other => super::privacy::without_paths(&other.to_string()),
                    };
                    all.skipped.push(Skipped { path: path.clone(), problem });
                    first.get_or_insert(e);
                }
            }
        }
        if all.runs.is_empty() {
            return Err(first.unwrap_or_else(|| {
                Error::unfit("no run folder given", "expected at least one that a training made")
            }));
        }
        name(&mut all.runs);
        Ok(all)
    }
}

/// Gives each of `runs` a different name.
fn name(runs: &mut [Run]) {
    // The mark that a recipe appends to a folder's name means nothing to a reader, unless it is the
    // only difference.
    let readable: Vec<_> = runs.iter().map(|run| without_mark(&run.name).to_owned()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if !readable.iter().enumerate().any(|(j, other)| j != i && *other == readable[i]) {
            run.name.clone_from(&readable[i]);
        }
    }
    let parents: Vec<_> = runs.iter().map(|run| parents(&run.path)).collect();
    let mut names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
    with_parents(&mut names, &parents);
    with_numbers(&mut names);
    for (run, name) in runs.iter_mut().zip(names) {
        run.name = name;
    }
}

/// The names of the folders around a folder, outwards.
fn parents(path: &Path) -> Vec<String> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut parts = Vec::new();
    for part in absolute.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.into_iter().rev().skip(1).collect()
}

/// Gives folders of one name at different places, such as a/seed0 and b/seed0, the names of the
/// folders around them, as many as tell them apart.
fn with_parents(names: &mut [String], parents: &[Vec<String>]) {
    for depth in 0.. {
        let same = |i: usize, j: usize| names[i] == names[j] && parents[i] != parents[j];
        let all = 0..names.len();
        let alike: Vec<usize> = all.clone().filter(|i| all.clone().any(|j| same(*i, j))).collect();
        let mut longer = false;
        for i in alike {
            if let Some(parent) = parents[i].get(depth) {
                names[i] = format!("{parent}/{}", names[i]);
                longer = true;
            }
        }
        if !longer {
            return;
        }
    }
}

/// Numbers the names that are still equal: those of one folder that is given several times.
fn with_numbers(names: &mut [String]) {
    let before = names.to_vec();
    for (i, name) in before.iter().enumerate() {
        if before.iter().filter(|other| *other == name).count() > 1 {
            let mut number = i + 1;
            // Another folder may be called so.
            while names.contains(&format!("{name} ({number})")) {
                number += 1;
            }
            names[i] = format!("{name} ({number})");
        }
    }
}

/// A folder's name without the eight hexadecimal digits, at least one of them a letter, by which a
/// recipe separates its settings.
fn without_mark(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((readable, mark))
            if mark.len() == 8
                && mark.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && mark.parse::<u64>().is_err() =>
        {
            readable
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::run::tests::folder, *};

    #[test]
    fn names_lose_the_mark_of_a_recipe_where_they_stay_distinct() {
        let config = "method = \"fgsm\"\n";
        let names = ["sora_seed_0-dc0b7665", "fgsm-20261124", "pgd-dc0b7665", "pgd-0b7665dc"];
        let files: Vec<_> = names.iter().map(|name| format!("{name}/config.toml")).collect();
        let dir = folder(&files.iter().map(|f| (f.as_str(), config)).collect::<Vec<_>>());
        let paths: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
        let runs = Runs::load(&paths).unwrap().runs;
        let found: Vec<_> = runs.into_iter().map(|run| run.name).collect();
        assert_eq!(found, ["sora_seed_0", "fgsm-20261124", "pgd-dc0b7665", "pgd-0b7665dc"]);
    }

    #[test]
    fn folders_of_one_name_are_told_apart_and_what_is_no_run_is_left_out() {
        let config = "method = \"fgsm\"\n";
        let dir = folder(&[
            ("a/seed0/config.toml", config),
            ("b/seed0/config.toml", config),
            ("c/notes.txt", ""),
        ]);
        let paths = ["a/seed0", "b/seed0", "c", "missing"].map(|name| dir.path().join(name));
        let all = Runs::load(&paths).unwrap();
        let names: Vec<_> = all.runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["a/seed0", "b/seed0"]);
        let skipped: Vec<_> = all.skipped.iter().map(Skipped::name).collect();
        assert_eq!(skipped, ["c", "missing"]);
        assert!(all.skipped.iter().all(|s| s.problem.contains("config.toml")), "{skipped:?}");
        assert!(matches!(Runs::load(&paths[2..]), Err(Error::NotARun { .. })));
        assert!(Runs::load(&[]).is_err());
    }

    #[test]
    fn names_are_as_long_as_it_takes_to_tell_folders_apart() {
        let config = "method = \"fgsm\"\n";
        let names = ["exp1/a/seed0", "exp2/a/seed0", "exp2/b/seed0", "exp2/b/seed0 (4)", "c/one"];
        let files: Vec<_> = names.iter().map(|name| format!("{name}/config.toml")).collect();
        let dir = folder(&files.iter().map(|f| (f.as_str(), config)).collect::<Vec<_>>());
        let load = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
            let runs = Runs::load(&paths).unwrap().runs;
            runs.into_iter().map(|run| run.name).collect::<Vec<_>>()
        };
        let expected = ["exp1/a/seed0", "exp2/a/seed0", "b/seed0", "seed0 (4)", "one"];
        assert_eq!(load(&names), expected);
        // A folder that is given twice, also in other words, has no other name to take.
        assert_eq!(load(&["c/one", "exp1/../c/one/"]), ["one (1)", "one (2)"]);
        let twice = ["exp2/b/seed0 (4)", "exp1/a/seed0", "c/one", "exp1/a/seed0"];
        assert_eq!(load(&twice), ["seed0 (4)", "seed0 (2)", "one", "seed0 (5)"]);
    }
}
