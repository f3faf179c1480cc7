//! Files that a user names with `--out`. Only files that this program wrote, of the same kind, are
//! overwritten without a flag, and those of a run never.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use sora::run::RunDir;

use crate::error::{Failure, Result};

/// Number of bytes at the beginning of a file that are examined.
const HEAD: u64 = 64 << 10;

/// The treatment of an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// A file that this program wrote is overwritten.
    Own,
    /// Any file is overwritten.
    Any,
}

impl Overwrite {
    /// The treatment that `--force` asks for.
    pub fn by(force: bool) -> Self {
        if force { Self::Any } else { Self::Own }
    }
}

/// What is written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A report's page.
    Page,
    /// A page of the reference.
    Reference,
    /// A figure: SVG, PNG or GIF.
    Figure,
    /// A network as ONNX.
    Onnx,
    /// Weights.
    Weights,
    /// Sample images and their logits.
    Samples,
    /// The rows of a grid.
    Rows,
    /// The log of a run.
    Log,
    /// A manual page.
    Manual,
    /// The record of an evaluation or a sweep.
    Record,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Page => "a report",
            Self::Reference => "a page of the reference",
            Self::Figure => "a figure",
            Self::Onnx => "an ONNX file",
            Self::Weights => "a weights file",
            Self::Samples => "a file of samples",
            Self::Rows => "a table",
            Self::Log => "a log as CSV",
            Self::Manual => "a manual page",
            Self::Record => "a record",
        }
    }
}

/// Refuses to write `path` where that would destroy another file, and makes its folder.
///
/// # Errors
/// Those of [`guard`], and a folder that cannot be made.
pub fn prepare(path: &Path, kind: Content, overwrite: Overwrite) -> Result<()> {
    guard(path, kind, overwrite)?;
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => make_folder(dir),
        None => Ok(()),
    }
}

/// Refuses to write `path` where that would destroy another file.
///
/// # Errors
/// A file that is not of this `kind` and this program, with [`Overwrite::Own`]; a file of a run, a
/// folder of that name.
pub fn guard(path: &Path, kind: Content, overwrite: Overwrite) -> Result<()> {
    let at = path.display();
    if let Some(dir) = path.parent() {
        RunDir::refuse_link(dir)?;
    }
    if path.is_dir() {
        return Err(Failure::input(format!("{at}: is a folder; expected a file")));
    }
    if is_of_a_run(path) {
        return Err(Failure::input(format!("{at}: belongs to a run; choose another file")));
    }
    if overwrite == Overwrite::Own && !is_free_or_own(path, kind) {
        return Err(Failure::input(format!(
            "{at}: is there and is not {} that sora wrote; choose another file, or overwrite it \
             with --force",
            kind.name()
        )));
    }
    Ok(())
}

/// Makes a folder for output.
///
/// # Errors
/// A folder that cannot be made.
pub fn make_folder(dir: &Path) -> Result<()> {
    RunDir::refuse_link(dir)?;
    std::fs::create_dir_all(dir)
        .map_err(|e| Failure::input(format!("{}: cannot make the folder: {e}", dir.display())))
}

/// Whether `path` is there and is what a training has written for itself.
fn is_of_a_run(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mut dirs = path.ancestors().skip(1).map(RunDir::at);
    dirs.any(|dir| dir.consists_of(&path) && RunDir::open(dir.path()).is_ok())
}

fn is_free_or_own(path: &Path, kind: Content) -> bool {
    match File::open(path) {
        // A name that cannot be read at all fails when it is written, with the system's reason.
        Err(e) => e.kind() == ErrorKind::NotFound,
        Ok(file) => {
            let mut head = Vec::new();
            let read = file.take(HEAD).read_to_end(&mut head);
            // Overwriting an empty file loses nothing.
            read.is_ok() && (head.is_empty() || kind_of(&head) == Some(kind))
        }
    }
}

/// What a file that begins with `head` is, if this program wrote it.
fn kind_of(head: &[u8]) -> Option<Content> {
    let near = |mark: &str, within: usize| {
        head[..head.len().min(within)].windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    let (kind, is_own) = match head {
        [b'<', ..] if near("made by `sora reference`", 64) => (Content::Reference, true),
        [b'<', ..] if near(r#"name="generator" content="sora"#, 1024) => (Content::Page, true),
        [b'<', ..] => (Content::Figure, near("sora-plot", 1024)),
        [0x89, b'P', b'N', b'G', ..] | [b'G', b'I', b'F', ..] => {
            (Content::Figure, near("sora-plot", 4096))
        }
        // ONNX: ir_version, followed by the producer's name.
        [0x08, _, 0x12, 4, b's', b'o', b'r', b'a', ..] => (Content::Onnx, true),
        [b'r', ..] => (Content::Rows, near("run,group,seed,folder,seconds", 40)),
        [b's', ..] => (Content::Log, near("step,epoch,loss,adv_acc,lr", 40)),
        [b'.', b'i', ..] => (Content::Manual, near(".TH sora", 256)),
        [b'{', b'\n', ..] => (Content::Record, near(r#""program": "sora "#, 4096)),
        // safetensors: the length of the header, then JSON.
        _ if head.get(8) != Some(&b'{') => return None,
        _ if near(r#""__metadata__":{"sora":"samples""#, 64) => (Content::Samples, true),
        _ => (Content::Weights, near(r#""__metadata__":{"sora"#, 64)),
    };
    is_own.then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_program_wrote_stays_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        std::fs::write(&file, "important, about sora-plot").unwrap();
        let refused =
            crate::render::text(&prepare(&file, Content::Figure, Overwrite::Own).unwrap_err());
        assert!(refused.contains("--force") && refused.contains("notes.txt"), "{refused}");
        assert!(prepare(&file, Content::Figure, Overwrite::Any).is_ok());
        assert_eq!(std::fs::read(&file).unwrap(), b"important, about sora-plot");
        std::fs::write(&file, "step,epoch,loss,adv_acc,lr\n").unwrap();
        assert!(prepare(&file, Content::Log, Overwrite::Own).is_ok());
        let refused =
            crate::render::text(&prepare(&file, Content::Rows, Overwrite::Own).unwrap_err());
        assert!(refused.contains("is not a table that sora wrote"), "{refused}");
        assert!(prepare(dir.path(), Content::Figure, Overwrite::Any).is_err(), "a folder");
        assert!(prepare(&dir.path().join("new/file.svg"), Content::Figure, Overwrite::Own).is_ok());
        std::fs::write(&file, "").unwrap();
        assert!(prepare(&file, Content::Figure, Overwrite::Own).is_ok(), "nothing to lose");
    }

    #[test]
    fn own_files_are_known_by_their_mark() {
        let kind = |head: &[u8]| kind_of(head);
        assert_eq!(kind(b"<svg xmlns=\"x\"><!-- sora-plot --></svg>"), Some(Content::Figure));
        assert_eq!(kind(b"<svg xmlns=\"x\"><text>sora</text></svg>"), None);
        assert_eq!(kind(b"\x08\x09\x12\x04sora\x1a"), Some(Content::Onnx));
        assert_eq!(kind(b"\x08\x09\x12\x07pytorch"), None);
        let safetensors = |header: &str| kind(&[&80u64.to_le_bytes(), header.as_bytes()].concat());
        assert_eq!(safetensors(r#"{"__metadata__":{"sora":"{}"}}"#), Some(Content::Weights));
        assert_eq!(safetensors(r#"{"__metadata__":{"sora":"samples"}}"#), Some(Content::Samples));
        assert_eq!(safetensors(r#"{"__metadata__":{"format":"pt","sora":"x"}}"#), None);
        assert_eq!(kind(b"sora"), None);
        assert_eq!(kind(b"step,epoch,loss,adv_acc,lr,momentum\n"), Some(Content::Log));
        assert_eq!(kind(b"step,epoch,loss\n1,0,0.5\n"), None);
    }
}
