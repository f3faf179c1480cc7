//! Checksums of whole files.

use std::fs::File;
use std::io::{self, Write};

use sha2::Digest;

/// The checksum from the file's position to its end, in lower-case hexadecimal.
pub(super) fn digest<D: Digest + Write>(file: &mut File) -> io::Result<String> {
    let mut hash = D::new();
    io::copy(file, &mut hash)?;
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
