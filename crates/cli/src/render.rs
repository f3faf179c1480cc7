//! Failures for the user: one line, with flags in place of the names of settings.
//!
//! The library names settings by the keys of config.toml, in backticks: `` `val_steps` ``. This
//! module replaces them by the flags that set them: `--val-steps`.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::Command;
use sora::{
    data::{DataError, Remedy},
    error::{Error, nearest},
};

use crate::{
    commands::attacks::stem,
    console::{steers, visible},
    error::{Failure, Kind},
};

/// The text on standard error when a command fails: one line without control characters.
pub fn line(failure: &Failure) -> String {
    let before = if failure.kind() == Kind::Interrupted { "" } else { "error: " };
    format!("{before}{}", text(failure))
}

/// The failure in one line.
pub fn text(failure: &Failure) -> String {
    match failure {
        Failure::Line(_, text) => {
            let parts: Vec<&str> = text.split(['\n', '\r']).map(str::trim).collect();
            visible(parts.join(" ").trim())
        }
        Failure::Library(error) => library(error),
    }
}

/// The library's error in one line, with flags.
pub fn library(error: &Error) -> String {
    let flags = flags();
    let text = match error {
        Error::Setting { setting, value, problem } => {
            let value = if value.is_empty() { String::new() } else { format!(" {value}") };
            match setting.strip_prefix("options.") {
                Some(option) => format!("--set {option}={}: {problem}", value.trim_start()),
                None => format!("{}{value}: {problem}", flag(setting, &flags)),
            }
        }
        Error::UnknownName { kind, name, known } => unknown(kind, name, known),
        // A key in a file is no flag of the call.
        Error::InFile { .. } | Error::Damaged { .. } => return one_line(&error.to_string()),
        Error::Interrupted { run: Some(run), .. } => {
            format!("{error}; go on with `sora resume {}`", run.display())
        }
        Error::Data(DataError::Unknown { name, known }) => {
            let own = "a set of your own is folder:PATH, or a folder with train/ and test/";
            format!("{}; {own}", unknown("data set", name, known))
        }
        Error::Data(error) => match error.remedy() {
            Some(Remedy::Fetch { name }) => format!("{error} (`sora data fetch {name}`)"),
            _ => error.to_string(),
        },
        _ => error.to_string(),
    };
    one_line(&with_flags(&text, &flags))
}

/// The message for an unknown name, with the nearest known ones or the command that lists all.
fn unknown(kind: &str, name: &str, known: &[String]) -> String {
    let (flag, list) = match kind {
        "method" => ("--method ", "sora methods"),
        "network" => ("--model ", "sora models"),
        "attack" => ("--attacks ", "sora attacks"),
        "device" => ("--device ", ""),
        "recipe" => ("figure ", "sora reproduce"),
        "data set" => ("data set ", "sora data list"),
        _ => ("", ""),
    };
    let mut text = format!("{flag}'{name}': no such {kind}; ");
    let stems: Vec<String>;
    let near = if kind == "attack" {
        stems = known.iter().map(|pattern| stem(pattern).to_owned()).collect();
        nearest(name.split('-').next().unwrap_or(name), &stems)
    } else {
        nearest(name, known)
    };
    let steps = name.strip_prefix("pgd-").filter(|steps| kind == "method" && is_number(steps));
    let _ = match (steps, near.is_empty(), list.is_empty()) {
        (Some(steps), ..) => write!(text, "did you mean --method pgd --set steps={steps}?"),
        (_, false, true) => write!(text, "did you mean {}?", near.join(" or ")),
        (_, false, false) => {
            write!(text, "did you mean {}? `{list}` lists them all", near.join(" or "))
        }
        (_, true, false) if known.len() > 12 => write!(text, "`{list}` lists what there is"),
        (_, true, _) => write!(text, "choose one of {}", known.join(", ")),
    };
    text
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The long flags of every command.
fn flags() -> BTreeSet<String> {
    fn collect(command: &Command, all: &mut BTreeSet<String>) {
        all.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(String::from));
        command.get_subcommands().for_each(|command| collect(command, all));
    }
    let mut all = BTreeSet::new();
    collect(&crate::call::command(), &mut all);
    all
}

/// The flag of a setting, or the name itself where no flag sets it.
fn flag(setting: &str, flags: &BTreeSet<String>) -> String {
    let name = setting.replace('_', "-");
    if flags.contains(&name) { format!("--{name}") } else { setting.to_owned() }
}

/// `text` with flags in place of the settings that it names in backticks.
fn with_flags(text: &str, flags: &BTreeSet<String>) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        let word = i % 2 == 1;
        let replaced = flag(part.split_whitespace().next().unwrap_or_default(), flags);
        if word && replaced.starts_with("--") {
            out += &replaced;
            out += part.trim_start_matches(|c: char| !c.is_whitespace());
        } else if word {
            let _ = write!(out, "`{part}`");
        } else {
            out += part;
        }
    }
    out
}

/// Escapes control characters and those that turn the direction of writing, because a message is
/// one line and a file name must not steer the terminal.
fn one_line(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn settings_become_flags_and_names_their_nearest() {
        let error = Error::setting("val_steps", 0, "expected 1 to 9; or leave out `val`");
        assert_eq!(library(&error), "--val-steps 0: expected 1 to 9; or leave out --val");
        let error = Error::setting("options.beta", "x", "expected a number");
        assert_eq!(library(&error), "--set beta=x: expected a number");
        let error = Error::unfit("weights", "give `mean 0` and see `sora models`");
        assert_eq!(library(&error), "weights: give --mean 0 and see `sora models`");
        let error = Error::unknown("method", "pgd-20", ["pgd", "sora"]);
        assert!(library(&error).ends_with("did you mean --method pgd --set steps=20?"));
        let error = Error::unknown("attack", "pdg-10", ["fgsm", "pgd-K[xR]", "square[-Q]"]);
        assert!(library(&error).contains("did you mean pgd?"), "{}", library(&error));
        let error = Error::unknown("network", "resnet19", ["resnet18", "vit"]);
        assert_eq!(
            library(&error),
            "--model 'resnet19': no such network; did you mean resnet18? `sora models` lists them all"
        );
        let error = Error::damaged(Path::new("g.toml"), "unknown field `epochs`");
        assert_eq!(library(&error), "g.toml: unknown field `epochs`");
    }

    #[test]
    fn a_failure_of_the_program_is_one_line_with_its_status() {
        let failure = Failure::input("two\nlines\n\u{1b}[31m");
        assert_eq!(line(&failure), "error: two lines \\u{1b}[31m");
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(line(&Failure::interrupted("stopped")), "stopped");
    }

    #[test]
    fn a_message_is_one_line_that_cannot_steer_a_terminal() {
        let error = Error::damaged(std::path::Path::new("a\n\u{1b}[2J\u{202e}"), "cut off");
        assert_eq!(library(&error), "a\\n\\u{1b}[2J\\u{202e}: cut off");
    }
}
