//! Makes foreign text (names of files and folders, messages of libraries) fit for one line of a
//! terminal.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The text on one line. Control characters (a newline in a file name, a terminal's escape
/// character) and characters that change the direction of writing are escaped.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether the character separates lines or paragraphs, or turns the direction of the text that
/// follows.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path on one line, whatever bytes it has.
pub(crate) fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// A list of paths for a message: `a, b`.
pub(crate) fn shown_all(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| shown(p)).collect::<Vec<_>>().join(", ")
}

/// The name in `known` that `name` was probably meant to be: the closest one, if at most a third of
/// its characters (but 2 in any case) must change.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(name);
    known
        .iter()
        .map(|k| (distance(&wanted, &plain(k)), k))
        .filter(|(d, k)| *d <= (k.chars().count() / 3).max(2) && *d < wanted.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k.as_str())
}

/// Number of characters to insert, remove or replace (Levenshtein), of texts that are cut off at
/// 64.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|t| t.chars().take(64).collect::<Vec<_>>());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = cost.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(one_line("a\x1b[31m\r\n\u{9b}b"), "a\\u{1b}[31m\\r\\n\\u{9b}b");
        assert_eq!(one_line("gpj\u{202e}.png\u{2028}"), "gpj\\u{202e}.png\\u{2028}");
        assert_eq!(one_line("Käfer, 甲虫"), "Käfer, 甲虫");
    }

    #[test]
    fn the_nearest_name_is_found_where_one_is_near() {
        let known = ["cifar10", "cifar100", "fashion-mnist", "mnist", "svhn"].map(String::from);
        for (name, wanted) in [
            ("cifar-10", Some("cifar10")),
            ("CIFAR100", Some("cifar100")),
            ("fashionmnist", Some("fashion-mnist")),
            ("minst", Some("mnist")),
            ("nonesuch", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, &known), wanted, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
