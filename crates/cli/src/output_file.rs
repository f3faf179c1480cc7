//! Files that a user names with `--out`. Only files that this program wrote are overwritten without
//! a flag.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

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

/// Refuses to write `path` where that would destroy a file of another program, and makes its
/// folder.
///
/// # Errors
/// Those of [`guard`], and a folder that cannot be made.
pub fn prepare(path: &Path, overwrite: Overwrite) -> Result<()> {
    guard(path, overwrite)?;
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => make_folder(dir),
        None => Ok(()),
    }
}

/// Refuses to write `path` where that would destroy a file of another program.
///
/// # Errors
/// A file that was not written by this program, with [`Overwrite::Own`]; a folder of that name.
pub fn guard(path: &Path, overwrite: Overwrite) -> Result<()> {
    let at = path.display();
    if path.is_dir() {
        return Err(Failure::input(format!("{at}: is a folder; expected a file")));
    }
    if overwrite == Overwrite::Own && !is_free_or_own(path) {
        return Err(Failure::input(format!(
            "{at}: is there and was not written by sora; choose another file, or overwrite \
             it with --force"
        )));
    }
    Ok(())
}

/// Makes a folder for output.
///
/// # Errors
/// A folder that cannot be made.
pub fn make_folder(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|e| Failure::input(format!("{}: cannot make the folder: {e}", dir.display())))
}

fn is_free_or_own(path: &Path) -> bool {
    match File::open(path) {
        // A name that cannot be read at all fails when it is written, with the system's reason.
        Err(e) => e.kind() == ErrorKind::NotFound,
        Ok(file) => {
            let mut head = Vec::new();
            file.take(HEAD).read_to_end(&mut head).is_ok() && is_own(&head)
        }
    }
}

/// Whether a file that begins with `head` was written by this program.
fn is_own(head: &[u8]) -> bool {
    let near = |mark: &str, within: usize| {
        head[..head.len().min(within)].windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    match head {
        // Overwriting an empty file loses nothing.
        [] => true,
        // The third: pages of the reference.
        [b'<', ..] => {
            near("sora-plot", 1024)
                || near("made by `sora reference`", 64)
                || near(r#"name="generator" content="sora"#, 1024)
        }
        [0x89, b'P', b'N', b'G', ..] | [b'G', b'I', b'F', ..] => near("sora-plot", 4096),
        // ONNX: ir_version, followed by the producer's name.
        [0x08, _, 0x12, 4, b's', b'o', b'r', b'a', ..] => true,
        // The rows of a grid.
        [b'r', ..] => near("run,group,seed,folder,seconds", 40),
        // The log of a run.
        [b's', ..] => near("step,epoch,loss,adv_acc,lr", 40),
        // Manual pages.
        [b'.', b'i', ..] => near(".TH sora", 256),
        // Records of evaluations and sweeps.
        [b'{', b'\n', ..] => near(r#""program": "sora "#, 4096),
        // safetensors: the length of the header, then JSON.
        _ if head.get(8) == Some(&b'{') => near(r#""__metadata__":{"sora"#, 64),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_program_wrote_stays_unless_forced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("notes.txt");
        std::fs::write(&file, "important, about sora-plot").unwrap();
        let refused = crate::render::text(&prepare(&file, Overwrite::Own).unwrap_err());
        assert!(refused.contains("--force") && refused.contains("notes.txt"), "{refused}");
        assert!(prepare(&file, Overwrite::Any).is_ok());
        assert_eq!(std::fs::read(&file).unwrap(), b"important, about sora-plot");
        assert!(prepare(dir.path(), Overwrite::Any).is_err(), "a folder");
        assert!(prepare(&dir.path().join("new/file.svg"), Overwrite::Own).is_ok());
        std::fs::write(&file, "").unwrap();
        assert!(prepare(&file, Overwrite::Own).is_ok(), "nothing to lose");
    }

    #[test]
    fn own_files_are_known_by_their_mark() {
        assert!(is_own(b"<svg xmlns=\"x\"><!-- sora-plot --></svg>"));
        assert!(!is_own(b"<svg xmlns=\"x\"><text>sora</text></svg>"));
        assert!(is_own(b"\x08\x09\x12\x04sora\x1a"));
        assert!(!is_own(b"\x08\x09\x12\x07pytorch"));
        let mut safetensors = 80u64.to_le_bytes().to_vec();
        safetensors.extend(br#"{"__metadata__":{"sora":"{}"}}"#);
        assert!(is_own(&safetensors));
        let mut other = 80u64.to_le_bytes().to_vec();
        other.extend(br#"{"__metadata__":{"format":"pt","sora":"x"}}"#);
        assert!(!is_own(&other));
        assert!(!is_own(b"sora"));
        assert!(is_own(b"step,epoch,loss,adv_acc,lr,momentum\n"));
        assert!(!is_own(b"step,epoch,loss\n1,0,0.5\n"));
    }
}
