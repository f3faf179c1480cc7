//! Ctrl-C and termination.
//!
//! The first signal asks for an orderly end, and the second ends the process at once; all files on
//! disk are whole in either case. The command of `--on-finish` is run once, whichever ends the
//! process; a signal that comes meanwhile does not wait for it. A hang-up that was ignored when
//! this process started (`nohup`) stays ignored. Ctrl-C does not stay ignored: a shell that runs a
//! script ignores it for every job in the background, and a run that only a kill can stop would
//! lose its last steps.

use std::{
    io::{Read, stdin},
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    console::note,
    error::{Failure, Result},
    finish,
};

/// Exit status of an interrupted command.
const INTERRUPTED: u8 = 130;

/// How long a command that has the terminal may take to give it back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Environment variable of a child that must stop when its standard input ends, because its parent
/// has ended or wants it to stop.
pub const WATCH_STDIN: &str = "SORA_STOP_WITH_STDIN";

/// The reaction to the first signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSignal {
    /// Print this line, set the flag and continue.
    Finish(&'static str),
    /// Print this line and end.
    End(&'static str),
    /// Set the flag and print nothing: the command has the terminal, and ends when it has given it
    /// back.
    GiveBack,
}

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag that the first signal sets.
pub fn flag() -> Arc<AtomicBool> {
    FLAG.get_or_init(Arc::default).clone()
}

/// Watches for signals from now on.
///
/// # Errors
/// A system that refuses the handler.
pub fn watch(first: FirstSignal) -> Result<()> {
    let flag = flag();
    let mut signals = Signals::new(wanted())
        .map_err(|e| Failure::work(format!("cannot watch for signals: {e}")))?;
    let raised = flag.clone();
    let on_signal = move || {
        for _ in signals.forever() {
            react(first, &raised);
        }
    };
    let cannot = |e| Failure::work(format!("cannot start a thread: {e}"));
    thread::Builder::new().name("signals".into()).spawn(on_signal).map_err(cannot)?;
    if std::env::var_os(WATCH_STDIN).is_some() {
        let raised = flag.clone();
        let on_end = move || {
            std::io::copy(&mut stdin().lock().take(u64::MAX), &mut std::io::sink()).ok();
            // The same Ctrl-C may already have arrived as a signal and must not count a second
            // time.
            if !raised.load(Ordering::Relaxed) {
                react(first, &raised);
            }
        };
        thread::Builder::new().name("parent".into()).spawn(on_end).map_err(cannot)?;
    }
    Ok(())
}

fn react(first: FirstSignal, raised: &AtomicBool) {
    if raised.swap(true, Ordering::Relaxed) {
        end();
        return;
    }
    match first {
        FirstSignal::Finish(text) => note(&format!("\n{text}")),
        FirstSignal::End(text) => {
            note(&format!("\n{text}"));
            end();
        }
        FirstSignal::GiveBack => {
            // Where the terminal has gone away, the command waits for its keys for ever.
            thread::sleep(PATIENCE);
            end();
        }
    }
}

/// Ends the process, after the command of `--on-finish` where that has not been started. It runs on
/// a thread of its own, so that the next signal finds it started and ends the process at once.
fn end() {
    let Some(command) = finish::take() else { process::exit(INTERRUPTED.into()) };
    let last = move || {
        finish::tell(&command, INTERRUPTED);
        process::exit(INTERRUPTED.into())
    };
    if thread::Builder::new().name("finish".into()).spawn(last).is_err() {
        process::exit(INTERRUPTED.into());
    }
}

/// The signals that ask a program to end.
fn wanted() -> Vec<i32> {
    let mut wanted = vec![SIGINT, SIGTERM];
    // What a batch system can be told to send before the time is up.
    #[cfg(unix)]
    wanted.push(signal_hook::consts::SIGUSR1);
    #[cfg(unix)]
    if ignored() & (1 << (signal_hook::consts::SIGHUP - 1)) == 0 {
        wanted.push(signal_hook::consts::SIGHUP);
    }
    wanted
}

/// The mask of the signals that were ignored when this process started; empty where the platform
/// does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_signals_are_watched() {
        let wanted = wanted();
        assert!(wanted.contains(&SIGTERM), "{wanted:?}");
    }
}
