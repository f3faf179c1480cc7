//! Keeps paths of this machine out of pages and figures that are passed on.

use std::path::Path;

/// `text` with every absolute path cut to its last name. A page or a figure may be passed on, and
/// must not reveal the folders of this machine.
pub fn without_paths(text: &str) -> String {
    if let Some((scheme, path)) = whole_path(text) {
        return format!("{scheme}{}", last_name(path));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, end)) = next_path(rest) {
        let (before, path, after) = (&rest[..start], &rest[start..end], &rest[end..]);
        out.push_str(before);
        out.push_str(last_name(path));
        rest = after;
    }
    out + rest
}

/// A data set's name for readers; the last name of the path for an image folder.
pub fn dataset_name(dataset: &str) -> String {
    match whole_path(dataset) {
        Some(("", path)) => format!("folder {}", last_name(path)),
        Some((scheme, path)) => format!("{} {}", scheme.trim_end_matches(':'), last_name(path)),
        None => match dataset.split_once(':') {
            Some((scheme @ ("folder" | "imagefolder"), path)) => {
                format!("{scheme} {}", last_name(path))
            }
            _ => dataset.to_owned(),
        },
    }
}

/// Splits `text` into a scheme such as `folder:` and an absolute path, if it consists of nothing
/// else. The path may hold spaces.
fn whole_path(text: &str) -> Option<(&str, &str)> {
    if is_absolute(text) {
        return (!text.contains('\n')).then_some(("", text));
    }
    let colon = text.find(':')? + 1;
    let (scheme, path) = text.split_at(colon);
    let word = scheme[..colon - 1].chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (word && colon > 2 && is_absolute(path) && !path.starts_with("//")).then_some((scheme, path))
}

fn is_absolute(text: &str) -> bool {
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('/'), Some(c), _) => !c.is_whitespace(),
        (Some('~'), Some('/'), _) | (Some('\\'), Some('\\'), _) => true,
        (Some(drive), Some(':'), Some('/' | '\\')) => drive.is_ascii_alphabetic(),
        _ => false,
    }
}

/// Begin and end of the next absolute path in running text.
fn next_path(text: &str) -> Option<(usize, usize)> {
    let opens = |c: char| c.is_whitespace() || "\"'`(=:,[<".contains(c);
    let closes = |c: char| c.is_whitespace() || "\"'`)=,]>;".contains(c);
    let mut before = ' ';
    for (start, c) in text.char_indices() {
        let rest = &text[start..];
        if opens(before) && is_absolute(rest) && !rest.starts_with("//") {
            let length = rest.find(closes).unwrap_or(rest.len());
            let path = rest[..length].trim_end_matches([':', '.']);
            return Some((start, start + path.len()));
        }
        before = c;
    }
    None
}

fn last_name(path: &str) -> &str {
    let path = path.trim_end_matches(['/', '\\']);
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path);
    name.rsplit('\\').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_cut_and_nothing_else() {
        for (text, expected) in [
            ("/home/jo smith/pets", "pets"),
            ("folder:/home/jo smith/pets", "folder:pets"),
            ("imagefolder:C:\\Users\\jo\\pets\\", "imagefolder:pets"),
            ("C:\\Users\\jo\\pets", "pets"),
            ("~/secret/pets", "pets"),
            ("cannot read /home/jo/r/a.json: no such file", "cannot read a.json: no such file"),
            ("at '/home/jo/a b'", "at 'a b'"),
            ("8/255 and 1/2, and/or", "8/255 and 1/2, and/or"),
            ("https://example.org/a", "https://example.org/a"),
            ("a / b", "a / b"),
            ("", ""),
        ] {
            assert_eq!(without_paths(text), expected, "{text}");
        }
    }

    #[test]
    fn a_folder_is_named_by_its_last_name() {
        for (dataset, expected) in [
            ("cifar10", "cifar10"),
            ("folder:/home/jo/pets", "folder pets"),
            ("folder:data/pets", "folder pets"),
            ("imagefolder:/home/jo/imagenet", "imagefolder imagenet"),
            ("/home/jo/pets", "folder pets"),
            ("synthetic:64", "synthetic:64"),
        ] {
            assert_eq!(dataset_name(dataset), expected, "{dataset}");
        }
    }
}
