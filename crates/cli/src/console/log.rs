//! Log lines on standard error.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write, stderr},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

use super::{
    output::{message, visible},
    style::{color, settings},
};
use crate::world;

/// Columns of the name of a level.
const LEVEL: usize = 5;

/// Standard error without failures: text that cannot be written is dropped, because a log line must
/// not stop a training run.
#[derive(Clone, Copy, Debug, Default)]
struct Lossy;

impl Write for Lossy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().write_all(bytes).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush().ok();
        Ok(())
    }
}

/// Formats a level and a text on one line.
#[derive(Clone, Copy, Debug)]
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let mut text = Text::default();
        event.record(&mut text);
        let text = message(&visible(&text.0).replace('\n', " "), LEVEL + 1);
        if writer.has_ansi_escapes() {
            writeln!(writer, "\u{1b}[{}m{level:>LEVEL$}\u{1b}[0m {text}", code(level))
        } else {
            writeln!(writer, "{level:>LEVEL$} {text}")
        }
    }
}

/// The colour of a level, as an ANSI code.
fn code(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The message of an event, followed by its fields.
#[derive(Debug, Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        if field.name() == "message" {
            write!(self.0, "{value:?}").ok();
        } else {
            write!(self.0, " {}={value:?}", field.name()).ok();
        }
    }
}

/// Starts logging with the level of the global flags and RUST_LOG.
pub fn start_logging() {
    if !world::first() {
        return;
    }
    let settings = settings();
    let default = match (settings.quiet, settings.verbose) {
        (true, _) => "warn",
        (false, true) => {
            "warn,sora=debug,sora_cli=debug,sora_data=debug,sora_devices=debug,sora_robustness=debug"
        }
        (false, false) => "warn,sora=info,sora_cli=info,sora_data=info,sora_robustness=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lossy)
        .log_internal_errors(false)
        .with_ansi(color(stderr().is_terminal()))
        .event_format(OneLine)
        .try_init();
    // A second start, in a test of this crate, has no effect.
    drop(started);
}

/// Writes a line to standard error, whatever the log's level.
pub fn note(line: &str) {
    if !world::first() {
        return;
    }
    writeln!(Lossy, "{}", message(&visible(line), 0)).ok();
}
