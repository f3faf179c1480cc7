//! `sora help`: explains a command or a topic.

use crate::{
    call::command,
    console::{no_such, print, wrap, wrap_hanging},
    error::Result,
};

/// The exit statuses, and what each means for any command.
const EXIT_STATUSES: [(u8, &str); 4] = [
    (0, "done"),
    (
        1,
        "the work failed: a full disk, a device that fails, training that diverged or was stopped \
         by `--on-co stop`. What was complete is kept; the message says how to go on.",
    ),
    (2, "the call or its input is wrong: a flag, a value, a file. Nothing was changed."),
    (
        130,
        "interrupted by Ctrl-C, SIGTERM, SIGHUP or SIGUSR1. Where a state is kept, it is saved; the \
         same call, or `sora resume RUN`, goes on.",
    ),
];

/// What else `sora help exit-status` says.
const OUTPUT_THAT_FAILS: &str = "Log lines that cannot be written (a full disk, a closed terminal) \
     are dropped and change no exit status. A result on standard output that cannot be written \
     gives 1, unless its reader has gone away (`| head`). A hang-up that was ignored when the \
     program started stays ignored (nohup).";

/// What to explain.
#[derive(Debug, clap::Args)]
pub struct HelpArgs {
    /// A command, such as `train` or `data fetch`, or exit-status
    #[arg(value_name = "COMMAND|exit-status")]
    pub topic: Vec<String>,
}

/// Prints the help.
pub fn run(args: &HelpArgs) -> Result<()> {
    if args.topic == ["exit-status"] {
        return print(&exit_status());
    }
    let mut found = command();
    found.build();
    for word in &args.topic {
        let next = found.find_subcommand(word).cloned().ok_or_else(|| {
            let known = found.get_subcommands().map(clap::Command::get_name);
            no_such("command", word, known.chain(["exit-status"]), "`sora help` lists them all")
        })?;
        found = next;
    }
    // The help is the one that `--help` prints.
    let words = ["sora"].into_iter().chain(args.topic.iter().map(String::as_str)).chain(["--help"]);
    match command().try_get_matches_from(words) {
        Err(help) => print(&help.render().to_string()),
        Ok(_) => Ok(()),
    }
}

fn exit_status() -> String {
    let mut text = "Exit status of every command\n\n".to_owned();
    for (status, meaning) in EXIT_STATUSES {
        text += &wrap_hanging(&format!("{status:>5}  {meaning}\n"), 7);
    }
    text + &wrap(&format!("\n{OUTPUT_THAT_FAILS}\n"))
}
