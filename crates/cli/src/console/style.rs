//! Colours, width and quietness, from the flags, the environment and the terminal.

use std::{
    env,
    io::{IsTerminal, stderr, stdout},
    sync::OnceLock,
};

use clap::ValueEnum;

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR, CLICOLOR=0 or TERM=dumb is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// The global flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// `--color`.
    pub color: ColorChoice,
    /// `--quiet`: neither progress nor log lines below a warning.
    pub quiet: bool,
    /// `--verbose`.
    pub verbose: bool,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Stores the global flags; only the first call has an effect.
pub fn set(settings: Settings) {
    SETTINGS.set(settings).ok();
}

/// The global flags, or the defaults before they are known.
pub fn settings() -> Settings {
    SETTINGS.get().copied().unwrap_or_default()
}

/// Whether to colour the output to a stream; `is_terminal` says whether it is a terminal.
pub fn color(is_terminal: bool) -> bool {
    decide(settings().color, is_terminal, |name| env::var(name).ok())
}

/// Whether `choice` and the environment ask for colours. NO_COLOR and CLICOLOR_FORCE count only if
/// they are not empty (<https://no-color.org>, <https://bixense.com/clicolors>).
fn decide(
    choice: ColorChoice,
    is_terminal: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if is_set("NO_COLOR") => false,
        ColorChoice::Auto if is_set("CLICOLOR_FORCE") => {
            variable("CLICOLOR_FORCE").as_deref() != Some("0")
        }
        ColorChoice::Auto => {
            let off = variable("CLICOLOR").as_deref() == Some("0");
            is_terminal && !off && variable("TERM").as_deref() != Some("dumb")
        }
    }
}

/// Whether standard error can show a bar that is redrawn in place.
pub fn can_redraw() -> bool {
    let dumb = env::var("TERM").is_ok_and(|term| term == "dumb");
    stderr().is_terminal() && !dumb && !settings().quiet && crate::world::first()
}

/// Number of columns for text on standard output: the terminal's, else COLUMNS, else 80.
pub fn width() -> usize {
    columns(terminal_size::terminal_size_of(stdout()))
}

/// The same for standard error.
pub fn width_of_messages() -> usize {
    columns(terminal_size::terminal_size_of(stderr()))
}

fn columns(terminal: Option<(terminal_size::Width, terminal_size::Height)>) -> usize {
    let given = env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    let terminal = || terminal.map(|(width, _)| usize::from(width.0));
    given.or_else(terminal).filter(|&width| width > 0).unwrap_or(80).max(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_over_the_environment_and_the_environment_over_the_terminal() {
        let with = |choice, is_terminal, set: &[(&str, &str)]| {
            decide(choice, is_terminal, |name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        use ColorChoice::{Always, Auto, Never};
        assert!(with(Auto, true, &[]));
        assert!(!with(Auto, false, &[]));
        assert!(with(Always, false, &[("NO_COLOR", "1"), ("TERM", "dumb")]));
        assert!(!with(Never, true, &[("CLICOLOR_FORCE", "1")]));
        assert!(!with(Auto, true, &[("NO_COLOR", "1")]));
        assert!(with(Auto, true, &[("NO_COLOR", "")]), "set to nothing is not set");
        assert!(!with(Auto, true, &[("CLICOLOR", "0")]));
        assert!(!with(Auto, true, &[("TERM", "dumb")]));
        assert!(with(Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!with(Auto, true, &[("CLICOLOR_FORCE", "0")]));
    }
}
