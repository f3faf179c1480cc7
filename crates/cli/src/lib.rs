//! The program `sora`: its commands and its output.
//!
//! `call` reads the command line, each file of `commands` holds a command with its arguments,
//! `console` prints, [`render`] turns the library's errors into one line, and [`dashboard`] draws a
//! run in the terminal.

mod call;
mod commands;
mod complete;
mod console;
pub mod dashboard;
pub mod error;
mod finish;
mod output_file;
mod progress;
pub mod render;
mod signals;
mod values;
mod world;

use std::process::ExitCode;

/// Runs the program with the words of the call.
pub fn main() -> ExitCode {
    complete::answer();
    silence_panics();
    ExitCode::from(answer(std::env::args_os().collect()))
}

/// Runs the program with `words`, the first of which is its name; returns its exit status.
pub fn answer(words: Vec<std::ffi::OsString>) -> u8 {
    std::panic::catch_unwind(|| status(words)).unwrap_or(1)
}

fn status(words: Vec<std::ffi::OsString>) -> u8 {
    let call = call::Call::parse_words(words);
    console::set(call.settings());
    match world::join(&call.command) {
        Ok(member) => {
            console::start_logging();
            let result = call::run(call.command);
            member.end(result)
        }
        Err(failure) => world::Member::default().end(Err(failure)),
    }
}

/// Makes a panic, which is a defect of the program, print one line only.
fn silence_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map_or_else(String::new, |place| format!(" ({place})"));
        console::note(&format!(
            "error: a defect of this program{place}: {text}; please report it with the call"
        ));
    }));
}
