//! Reads several run folders and gives each run a name of its own.

use std::path::{Path, PathBuf};

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
    // Folders of the same name, such as a/seed0 and b/seed0, get the name of the folder around
    // them.
    let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
    let paths: Vec<_> = runs.iter().map(|run| run.path.clone()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            let absolute = std::path::absolute(&run.path).unwrap_or_default();
            let parent = absolute.parent().and_then(Path::file_name).unwrap_or_default();
            run.name = format!("{}/{}", parent.to_string_lossy(), run.name);
            if paths.iter().filter(|path| **path == run.path).count() > 1 {
                run.name += &format!(" ({})", i + 1);
            }
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
}
