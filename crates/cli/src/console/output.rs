//! Text and JSON on standard output.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

use serde::Serialize;

use super::{style::width_of_messages, width};
use crate::{
    error::{Failure, Result},
    world,
};

/// Prints to standard output; a reader that has closed the pipe (`| head`) is not a failure.
///
/// # Errors
/// A stream that cannot be written, such as one on a full disk.
pub fn print(text: &str) -> Result<()> {
    write(&visible(text))
}

fn write(text: &str) -> Result<()> {
    if !world::first() {
        return Ok(());
    }
    match stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::work(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as one JSON object.
///
/// # Errors
/// Those of [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string(value)
        .map_err(|e| Failure::work(format!("cannot serialise the result: {e}")))?;
    write(&(visible_json(&json) + "\n"))
}

/// `json` with the characters that [`steers`] finds in its strings, as JSON escapes them.
fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            // All of them have 16 bits.
            shown += &format!("\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether a character moves the cursor, ends the line, or turns the direction of the text that
/// follows.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

/// `text` with such characters escaped, so that a name from a file cannot move the cursor, hide
/// a line or write in the terminal's name. Line feeds and tabs stay.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `text` broken into lines between words, as wide as the terminal.
pub fn wrap(text: &str) -> String {
    wrap_at(text, width(), 0)
}

/// The same, with `indent` spaces in front of each line that a break begins.
pub fn wrap_hanging(text: &str, indent: usize) -> String {
    wrap_at(text, width(), indent)
}

/// A message of one line as a reader of standard error gets it: on a terminal broken between words,
/// with `indent` in front of each line but the first; elsewhere, in a file or a pipe, one line. The
/// message begins in the column after the indent.
pub(super) fn message(text: &str, indent: usize) -> String {
    if !stderr().is_terminal() {
        return text.to_owned();
    }
    let before = " ".repeat(indent);
    wrap_at(&format!("{before}{text}"), width_of_messages(), indent)[indent..].to_owned()
}

fn wrap_at(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for line in text.split_inclusive('\n') {
        for word in words(line) {
            let long = word.trim_end().chars().count();
            if column > indent && column + long > width {
                wrapped.truncate(wrapped.trim_end_matches(' ').len());
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            }
            wrapped += word;
            column += word.chars().count();
        }
        column = 0;
    }
    wrapped
}

/// The words of a line, each with the spaces behind it. A command in backticks is one word: a line
/// break in it would be copied with it.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split_inclusive(move |c| {
        quoted ^= c == '`';
        c == ' ' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::{visible, visible_json, wrap_at};

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap_at("a bc def\nghi\n", 5, 0), "a bc\ndef\nghi\n");
        assert_eq!(wrap_at("a-very-long-word x", 5, 0), "a-very-long-word\nx");
        assert_eq!(wrap_at("\n\nx", 5, 0), "\n\nx");
        assert_eq!(wrap_at("  a bc def", 6, 2), "  a bc\n  def");
        assert_eq!(wrap_at("use `a b c` now", 9, 0), "use\n`a b c`\nnow", "a command stays whole");
    }

    #[test]
    fn control_characters_are_written_out_and_text_stays() {
        assert_eq!(visible("a\tb\nc: ä 猫 – é"), "a\tb\nc: ä 猫 – é");
        assert_eq!(visible("\u{1b}[2Jx\r"), "\\u{1b}[2Jx\\u{d}");
        assert_eq!(visible("\u{9b}31m\u{202e}"), "\\u{9b}31m\\u{202e}");
    }

    #[test]
    fn json_stays_json_whatever_its_strings_hold() {
        let names = ["h\u{200f}x", "\u{9b}31m\u{7f}\n", "\u{202e}\u{2069} – 猫"];
        let json = visible_json(&serde_json::to_string(&names).unwrap());
        assert!(!json.chars().any(super::steers), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), names);
    }
}
