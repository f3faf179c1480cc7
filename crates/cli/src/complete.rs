//! Completions for the shell: the scripts of `sora completions` ask the program itself.

use std::{ffi::OsStr, path::PathBuf};

use clap_complete::{
    CompleteEnv, CompletionCandidate,
    engine::{ArgValueCompleter, PathCompleter, ValueCompleter},
};
use sora::{
    data,
    method::METHODS,
    model::NETWORKS,
    robustness::{Corruption, corruption::Family},
};

/// Environment variable by which a shell asks for completions.
pub const VARIABLE: &str = "SORA_COMPLETE";

/// Answers a shell that asks for completions, and then ends the process; does nothing otherwise.
pub fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(crate::call::command).var(VARIABLE).complete();
    }
}

/// Names of data sets, and folders.
pub fn datasets() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        let names = data::registry().into_iter().map(|info| (info.name, info.title));
        let mut found = starting_with(word, names);
        found.extend(PathCompleter::dir().complete(word));
        found
    })
}

/// Names of data sets alone.
pub fn dataset_names() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        starting_with(word, data::registry().into_iter().map(|info| (info.name, info.title)))
    })
}

/// Names of training methods.
pub fn methods() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        starting_with(word, METHODS.iter().map(|info| (info.name, info.summary)))
    })
}

/// Names of networks.
pub fn networks() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        starting_with(word, NETWORKS.iter().map(|info| (info.name, info.summary)))
    })
}

/// Names of corruptions and of their families, also behind a comma.
pub fn corruptions() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| {
        let families = Family::ALL.map(|family| (family.name(), "a family of corruptions"));
        let names = Corruption::ALL.map(|one| (one.name(), one.family().name()));
        let all = [("all", "all of them")].into_iter().chain(families).chain(names);
        behind_comma(word, all)
    })
}

/// Names of attacks, also after a comma.
pub fn attacks() -> ArgValueCompleter {
    const COMMON: &[(&str, &str)] = &[
        ("clean", "no attack"),
        ("fgsm", "one step"),
        ("pgd-10", "10 steps"),
        ("pgd-50x10", "50 steps, 10 restarts"),
        ("apgd-ce", "Auto-PGD on the cross-entropy"),
        ("square", "random search from the logits alone"),
        ("autoattack", "the standard ensemble"),
    ];
    ArgValueCompleter::new(|word: &OsStr| behind_comma(word, COMMON.iter().copied()))
}

/// Run folders, the folders on the way to them, and weights files.
pub fn runs() -> ArgValueCompleter {
    let wanted = |path: &std::path::Path| {
        path.is_dir() || path.extension().is_some_and(|ending| ending == "safetensors")
    };
    ArgValueCompleter::new(PathCompleter::any().filter(wanted).current_dir(PathBuf::from(".")))
}

/// Those of `names` that begin as the part of `word` behind its last comma.
fn behind_comma<'a>(
    word: &OsStr,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    let before = word.rfind(',').map_or("", |comma| &word[..=comma]).to_owned();
    let names = names.map(|(name, help)| (format!("{before}{name}"), help));
    starting_with(OsStr::new(word.as_ref()), names)
}

fn starting_with<N, H>(
    word: &OsStr,
    names: impl Iterator<Item = (N, H)>,
) -> Vec<CompletionCandidate>
where
    N: Into<String>,
    H: Into<String>,
{
    let word = word.to_string_lossy();
    names
        .map(|(name, help)| (name.into(), help.into()))
        .filter(|(name, _)| name.starts_with(word.as_ref()))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}
