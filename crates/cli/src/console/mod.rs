//! The program's output: text and tables on standard output, log lines and bars on standard error.
//!
//! No function here fails because a terminal, a pipe or a full disk refuses a log line: such lines
//! are dropped. A result that cannot be written is an error, but a reader that has closed the pipe
//! (`| head`) is not.

mod bar;
mod duration;
mod hint;
mod log;
mod output;
mod style;
mod table;

pub use bar::Bar;
pub use duration::duration;
pub use hint::no_such;
pub use log::{note, start_logging};
pub use output::{print, print_json, steers, visible, wrap, wrap_hanging};
pub use style::{ColorChoice, Settings, color, set, settings, width};
pub use table::Table;
