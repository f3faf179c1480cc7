//! Calls this program as a child process.
//!
//! The child holds the reading end of a pipe whose other end this process keeps. When this process
//! ends, for whatever reason, or wants the child to stop, the pipe closes, and the child writes its
//! state and stops. No orphan is left, and no signal has to be sent.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    error::{Failure, Result},
    signals::WATCH_STDIN,
    world,
};

/// Time between two checks of a child.
const EVERY: Duration = Duration::from_millis(50);

/// The treatment of a child's standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The output is returned.
    Keep,
    /// The output is discarded.
    Drop,
}

/// Runs `sora` with the words of `call`, and stops it when `interrupt` is set. Returns its standard
/// output if that is kept.
///
/// # Errors
/// A child that fails or is interrupted.
pub fn sora<S: AsRef<OsStr>>(
    call: &[S],
    output: Output,
    interrupt: &AtomicBool,
) -> Result<Vec<u8>> {
    let words: Vec<OsString> = call.iter().map(|word| word.as_ref().to_owned()).collect();
    let name = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let program = std::env::current_exe()
        .map_err(|e| Failure::work(format!("cannot find this program: {e}")))?;
    let mut child = world::leave(&mut Command::new(program))
        .args(&words)
        .env(WATCH_STDIN, "1")
        .stdin(Stdio::piped())
        .stdout(if output == Output::Keep { Stdio::piped() } else { Stdio::null() })
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| Failure::work(format!("cannot start `sora {name}`: {e}")))?;
    let (printed, code) = wait(&mut child, interrupt)
        .map_err(|e| Failure::work(format!("cannot wait for `sora {name}`: {e}")))?;
    match code {
        Some(0) => Ok(printed),
        Some(130) => Err(Failure::interrupted(format!(
            "interrupted in `sora {name}`; the same call goes on from there"
        ))),
        Some(2) => Err(Failure::input(format!("`sora {name}` refused, see above"))),
        _ => Err(Failure::work(format!(
            "`sora {name}` failed, see above; the same call goes on from there"
        ))),
    }
}

/// Waits for the child; returns its output and its exit status.
fn wait(child: &mut Child, interrupt: &AtomicBool) -> std::io::Result<(Vec<u8>, Option<i32>)> {
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut printed = Vec::new();
        stdout.map(|mut stdout| stdout.read_to_end(&mut printed)).transpose().map(|_| printed)
    });
    // `Child::wait` would close the pipe at once, so the child is polled.
    let status = loop {
        if interrupt.load(Ordering::Relaxed) {
            drop(child.stdin.take());
        }
        match child.try_wait()? {
            Some(status) => break status,
            None => thread::sleep(EVERY),
        }
    };
    let printed = reader.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    Ok((printed, status.code()))
}
