//! `sora completions`: the script by which a shell completes calls of this program.

use clap_complete::env::Shells;

use crate::{
    complete::VARIABLE,
    console::print,
    error::{Failure, Result},
};

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// In ~/.bashrc: source <(sora completions bash)
    Bash,
    /// In ~/.zshrc: source <(sora completions zsh)
    Zsh,
    /// In ~/.config/fish/config.fish: sora completions fish | source
    Fish,
    /// In $PROFILE: sora completions powershell | Out-String | Invoke-Expression
    Powershell,
    /// In ~/.elvish/rc.elv: eval (sora completions elvish | slurp)
    Elvish,
}

/// Which shell.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script. The script asks the program itself for every completion, so it knows the
/// existing data sets, methods, networks and runs.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Elvish => "elvish",
    };
    let failed = |e: &dyn std::fmt::Display| Failure::work(format!("no script for {name}: {e}"));
    let shells = Shells::builtins();
    let shell = shells.completer(name).ok_or_else(|| failed(&"unknown to clap_complete"))?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "sora", "sora", "sora", &mut script)
        .map_err(|e| failed(&e))?;
    print(&String::from_utf8_lossy(&script))
}
