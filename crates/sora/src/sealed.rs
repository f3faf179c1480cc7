//! JSON records that carry the SHA-256 of their own text, so that a changed byte is noticed.
//!
//! The last field of a sealed record is `sum`: the digest of all of the text before it. So is that of
//! the description in a weights file, which is one line. Records of older versions lack it and are
//! read as they are, like those that another program has put on one line; any other layout with a
//! `sum` counts as changed.

use std::{fs, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    files,
};

/// How a digest stands at the end of an object: the text before and after it. In lines, a field of
/// this name within another has a wider margin.
struct Layout(&'static str, &'static str);

const LINES: Layout = Layout(",\n  \"sum\": \"", "\"\n}\n");
const ONE_LINE: Layout = Layout(",\"sum\":\"", "\"}");

/// Length of a digest in hexadecimal digits.
const DIGITS: usize = 64;
/// What is wrong with a record that does not fit its digest.
const CHANGED: &str = "changed since it was written (damaged or edited): its `sum` is another";

/// Writes `value`, a JSON object, with its digest to `path`, completely or not at all.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be written or a full disk; `path` is then unchanged.
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    files::write_atomic(path, &text(value)?)
}

/// The text of the object `value` with its digest; another value, or an empty object, gets none.
///
/// # Errors
/// [`Error::Defect`] for a value that cannot be serialised.
pub fn text(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = files::json(value)?;
    if text.starts_with(b"{\n") && text.ends_with(b"\n}\n") {
        text.truncate(text.len() - 3);
        let end = LINES.end(&text);
        text.extend_from_slice(end.as_bytes());
    }
    Ok(text)
}

/// The text of the object `value` on one line, with its digest.
///
/// # Errors
/// [`Error::Defect`] for a value that cannot be serialised, or that is no object with fields.
pub(crate) fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::defect(format!("cannot serialise a description: {e}")))?;
    let body = text.strip_suffix('}').filter(|body| body.len() > 1);
    let body = body.ok_or_else(|| Error::defect("a description without fields"))?;
    Ok(format!("{body}{}", ONE_LINE.end(body.as_bytes())))
}

/// Whether the record in `text` is another than was written, as far as its digest tells.
pub fn is_changed(text: &[u8]) -> bool {
    LINES.is_changed(text)
}

/// The same for a text that [`line`] made.
pub(crate) fn is_line_changed(text: &str) -> bool {
    ONE_LINE.is_changed(text.as_bytes())
}

/// Reads the record in `text`, the content of `path`.
///
/// # Errors
/// [`Error::Damaged`] for a text that was changed, is not JSON, or is another record.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    // Its layout first: of a text that is cut off, the digest is not the first thing to be said.
    let value: Value =
        serde_json::from_slice(text).map_err(|e| Error::damaged(path, format!("damaged: {e}")))?;
    if is_changed(text) {
        return Err(Error::damaged(path, CHANGED));
    }
    serde_json::from_value(value).map_err(|e| Error::damaged(path, format!("damaged: {e}")))
}

/// Reads the record in the file `path`.
///
/// # Errors
/// Those of [`parse`], and [`Error`] for a file that cannot be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(path, &fs::read(path).map_err(|e| Error::read(path, e))?)
}

impl Layout {
    /// What follows the text `body` of an object.
    fn end(&self, body: &[u8]) -> String {
        format!("{}{}{}", self.0, files::sha256(body), self.1)
    }

    fn is_changed(&self, text: &[u8]) -> bool {
        let at = text.len().saturating_sub(self.0.len() + DIGITS + self.1.len());
        let (body, found) = text.split_at(at);
        let has = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|window| window == part);
        // A text with either of them, the field or the digest, has been sealed.
        found != self.end(body).as_bytes()
            && (has(text, self.0.as_bytes()) || has(found, files::sha256(body).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Value {
        json!({ "results": { "clean": { "accuracy": 0.1, "sum": "x" } }, "n": 12, "names": ["a"] })
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_a_whole_record_is_read() {
        let whole = text(&record()).unwrap();
        let read: Value = parse(Path::new("a.json"), &whole).unwrap();
        let (sum, mut rest) = (read["sum"].clone(), read);
        rest.as_object_mut().unwrap().remove("sum");
        assert_eq!((rest, sum.as_str().unwrap().len()), (record(), DIGITS));
        for bit in 0..8 * whole.len() {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(is_changed(&other), "bit {bit}");
            let error = parse::<Value>(Path::new("a.json"), &other).unwrap_err();
            assert!(error.to_string().contains("a.json"), "{error}");
        }
        for length in 0..whole.len() {
            assert!(parse::<Value>(Path::new("a.json"), &whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_line_notices_every_flipped_bit_too() {
        let whole = line(&record()).unwrap();
        assert!(!whole.contains('\n') && !is_line_changed(&whole));
        let read: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(
            (read["n"].clone(), read["results"].clone()),
            (12.into(), record()["results"].clone())
        );
        for bit in 0..8 * whole.len() {
            let mut other = whole.clone().into_bytes();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(ONE_LINE.is_changed(&other), "bit {bit}");
        }
        assert!(!is_line_changed(r#"{"n":12,"names":["a"]}"#), "of an older version");
        assert!(line(&json!({})).is_err() && line(&json!(3)).is_err());
    }

    #[test]
    fn records_without_a_digest_are_read_as_they_are() {
        let older = files::json(&record()).unwrap();
        let sealed: Value = serde_json::from_slice(&text(&record()).unwrap()).unwrap();
        let on_one_line = serde_json::to_vec(&sealed).unwrap();
        for text in [older, on_one_line, b"{}\n".to_vec(), text(&json!({})).unwrap()] {
            assert!(!is_changed(&text));
            assert!(parse::<Value>(Path::new("a.json"), &text).is_ok());
        }
        assert_eq!(text(&json!([1])).unwrap(), files::json(&json!([1])).unwrap());
    }

    #[test]
    fn a_file_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(read::<Value>(&path).is_err());
        write(&path, &record()).unwrap();
        let numbers: std::collections::BTreeMap<String, Value> = read(&path).unwrap();
        assert_eq!(numbers["n"], 12);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("12", "13")).unwrap();
        assert!(read::<Value>(&path).unwrap_err().to_string().contains("changed since"));
    }
}
