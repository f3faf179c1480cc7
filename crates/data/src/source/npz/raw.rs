//! The images of an array in a file of their own, each with its digest.
//!
//! Format, little-endian: magic `soraraw\0`, version `u32`, key (32 bytes: the archive and the
//! array), the images, the SHA-256 of each image, and the SHA-256 of everything before it except
//! the images.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};
use crate::picture::{Picture, Pictures};
use crate::source::kept;

const MAGIC: &[u8; 8] = b"soraraw\0";
const VERSION: u32 = 1;
const HEADER: u64 = 8 + 4 + 32;

/// Images `[H, W, C]` in a file, each read on request and compared with its digest.
#[derive(Debug)]
pub(super) struct Raw {
    file: Mutex<File>,
    path: PathBuf,
    shape: [usize; 3],
    digests: Vec<[u8; 32]>,
}

impl Raw {
    /// Opens a file that was made from `key` with `n` images of `shape` = \[C, H, W\]; the error
    /// says why the file cannot be used.
    pub(super) fn open(
        path: &Path,
        key: &[u8; 32],
        shape: [usize; 3],
        n: usize,
    ) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).map_err(|e| e.to_string())?;
        if header != self::header(key) {
            return Err("it is of another archive or format".into());
        }
        let images = (n * shape.iter().product::<usize>()) as u64;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        if length != HEADER + images + 32 * (n as u64 + 1) {
            return Err(format!("its length is {length} bytes"));
        }
        let mut table = vec![0; 32 * (n + 1)];
        file.seek(SeekFrom::Start(HEADER + images))
            .and_then(|_| file.read_exact(&mut table))
            .map_err(|e| e.to_string())?;
        let mut digests = table.as_chunks::<32>().0.to_vec();
        if digests.pop() != Some(seal(&header, &digests)) {
            return Err("its digests are damaged".into());
        }
        Ok(Self { file: Mutex::new(file), path: path.into(), shape, digests })
    }

    fn known(&self, i: usize) -> Result<[u8; 32]> {
        self.digests.get(i).copied().ok_or_else(|| {
            DataError::value("image index", i, format!("below {}", self.digests.len()))
        })
    }
}

impl Pictures for Raw {
    fn picture(&self, i: usize) -> Result<Picture> {
        let known = self.known(i)?;
        let [channels, height, width] = self.shape;
        let mut bytes = vec![0; channels * height * width];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file
            .seek(SeekFrom::Start(HEADER + i as u64 * bytes.len() as u64))
            .and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        read.map_err(DataError::io("read", &self.path))?;
        if Sha256::digest(&bytes)[..] != known {
            return Err(DataError::bad(
                &self.path,
                format!("image {i} changed since it was unpacked"),
                "the bytes of the archive",
                "remove the file: it is unpacked again",
            ));
        }
        Picture::new(height, width, channels, bytes)
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        self.known(i)
    }
}

/// A file of images that is being written.
pub(super) struct Writer {
    out: tempfile::NamedTempFile,
    header: [u8; HEADER as usize],
    /// Number of bytes of an image.
    item: usize,
    /// Number of bytes written of the current image.
    begun: usize,
    hash: Sha256,
    digests: Vec<[u8; 32]>,
}

impl Writer {
    /// Begins a file beside its place in `folder`.
    pub(super) fn new(folder: &Path, key: &[u8; 32], item: usize) -> io::Result<Self> {
        let mut out = kept::unfinished(folder, kept::UNPACKED)?;
        let header = header(key);
        out.write_all(&header)?;
        Ok(Self { out, header, item, begun: 0, hash: Sha256::new(), digests: vec![] })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.item - self.begun));
            self.hash.update(part);
            self.begun += part.len();
            if self.begun == self.item {
                self.digests.push(self.hash.finalize_reset().into());
                self.begun = 0;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Adds the digests and gives the file its name, so that a kill leaves nothing that looks
    /// whole.
    pub(super) fn finish(mut self, path: &Path) -> io::Result<()> {
        self.out.write_all(self.digests.as_flattened())?;
        self.out.write_all(&seal(&self.header, &self.digests))?;
        self.out.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

fn header(key: &[u8; 32]) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(key);
    header
}

fn seal(header: &[u8], digests: &[[u8; 32]]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(digests.as_flattened()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    const KEY: [u8; 32] = [9; 32];
    const SHAPE: [usize; 3] = [1, 2, 3];

    /// Five images, written in uneven parts.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.raw");
        let images: Vec<u8> = (0..30).collect();
        let mut writer = Writer::new(dir.path(), &KEY, 6).unwrap();
        images.chunks(7).for_each(|part| writer.write(part).unwrap());
        writer.finish(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn round_trip() {
        let (dir, path) = written();
        let raw = Raw::open(&path, &KEY, SHAPE, 5).unwrap();
        for i in [3, 0, 4] {
            let first = 6 * i as u8;
            assert_eq!(raw.picture(i).unwrap().pixels(), (first..first + 6).collect::<Vec<_>>());
        }
        assert!(raw.picture(5).is_err());
        assert!(Raw::open(&path, &[8; 32], SHAPE, 5).unwrap_err().contains("another archive"));
        assert!(Raw::open(&path, &KEY, SHAPE, 4).unwrap_err().contains("its length"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest! {
        /// Whichever byte is changed, either the file is refused or the image that holds the byte
        /// is refused, and no other image.
        #[test]
        fn any_damage_is_noticed(at in 0usize..44 + 30 + 32 * 6, flip in 1u8..) {
            let (_dir, path) = written();
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            match Raw::open(&path, &KEY, SHAPE, 5) {
                Err(_) => prop_assert!(!(44..74).contains(&at)),
                Ok(raw) => {
                    prop_assert!((44..74).contains(&at));
                    for i in 0..5 {
                        let damaged = i == (at - 44) / 6;
                        let picture = raw.picture(i);
                        prop_assert_eq!(picture.is_err(), damaged);
                        if let Err(error) = picture {
                            let text = error.to_string();
                            prop_assert!(text.contains("changed since it was unpacked"), "{}", text);
                        }
                    }
                }
            }
        }
    }
}
