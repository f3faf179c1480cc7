//! `--on-finish COMMAND`: what a user wants to happen when a long command ends.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::error::{Failure, Result};

/// The command of this call, until it is started: at the end of the work or by a signal before it.
static WAITING: Mutex<Option<String>> = Mutex::new(None);

/// A shell command to run at the end.
#[derive(Debug, Default, clap::Args)]
pub struct OnFinish {
    /// Run a shell command at the end; SORA_STATUS holds the exit status
    #[arg(long, value_name = "COMMAND", help_heading = "Output")]
    on_finish: Option<String>,
}

impl OnFinish {
    /// Runs `work`, and the command after it, or when a signal ends the process before. A command
    /// that fails gives a warning only, because the work is what counts.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn after(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(command) = self.on_finish.as_ref().filter(|_| crate::world::first()) else {
            return work();
        };
        *waiting() = Some(command.clone());
        let result = work();
        match take() {
            Some(command) => tell(&command, result.as_ref().err().map_or(0, Failure::exit_code)),
            // A signal has started it, and ends the process after it, with the status it was told.
            None => loop {
                thread::park();
            },
        }
        result
    }
}

fn waiting() -> MutexGuard<'static, Option<String>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command of this call if it has not been started. Whoever takes it runs it, so that it runs
/// once.
pub fn take() -> Option<String> {
    waiting().take()
}

/// Runs `command` as the one of a call that ends with `status`.
pub fn tell(command: &str, status: u8) {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    // A call of this program inside the command is neither one of these processes nor their child.
    let ended = crate::world::leave(&mut Command::new(shell))
        .args([flag, command])
        .env("SORA_STATUS", status.to_string())
        .env_remove(crate::signals::WATCH_STDIN)
        .stdin(Stdio::null())
        // Standard output belongs to the result, so the command writes to standard error.
        .stdout(std::io::stderr())
        .status();
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("--on-finish '{command}': {status}"),
        Err(e) => tracing::warn!("--on-finish '{command}': cannot start it: {e}"),
    }
}
