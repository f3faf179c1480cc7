//! Keeps decoded images as raw bytes, so that a folder is decoded once.
//!
//! Format, little-endian: magic `sorapix\0`; version `u32`; key of 32 bytes, a digest of the files
//! and settings that decide the images; channels, height, width `u32`; numbers of training and test
//! images `u64`; the images' bytes; a digest of all that (SHA-256 over the header and the SHA-256
//! of each MiB of images).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::kept;

const MAGIC: &[u8; 8] = b"sorapix\0";
/// Raise it when the format changes, or when decoding or resizing gives other bytes.
const VERSION: u32 = 3;
/// Number of bytes that are hashed at a time.
const BLOCK: usize = 1 << 20;
const HEADER: usize = 8 + 4 + 32 + 3 * 4 + 2 * 8;

/// Images of both splits, each `[N, C, H, W]` bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Pixels {
    pub shape: [usize; 3],
    pub train: Vec<u8>,
    pub test: Vec<u8>,
}

/// Why a cache cannot be used, for the log.
pub(crate) type Reason = String;

/// Returns the images of a cache file made with `key` for `counts` = \[train, test\] images, or the
/// reason why the file cannot be used.
pub(crate) fn load(path: &Path, key: &[u8; 32], counts: [usize; 2]) -> Result<Pixels, Reason> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|e| e.to_string())?;
    let (magic, rest) = header.split_at(8);
    let (version, rest) = rest.split_at(4);
    let (found_key, rest) = rest.split_at(32);
    if magic != MAGIC || version != VERSION.to_le_bytes() {
        return Err("it is of another format".into());
    }
    if found_key != key {
        return Err("the images have changed".into());
    }
    let (shape, numbers) = rest.split_at(12);
    let shape: Vec<usize> =
        shape.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
    let found: Vec<u64> =
        numbers.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let [c, h, w] = shape[..] else { return Err("its header is damaged".into()) };
    let sizes = counts.map(|n| [c, h, w].iter().try_fold(n, |a, &b| a.checked_mul(b)));
    let ([Some(train), Some(test)], true) = (sizes, found == counts.map(|n| n as u64)) else {
        return Err("its header is damaged".into());
    };
    // Check the length before allocating the memory that the header announces.
    if (HEADER as u64 + 32).checked_add(train as u64).and_then(|l| l.checked_add(test as u64))
        != Some(length)
    {
        return Err(format!("its length is {length} bytes"));
    }
    let mut bytes = |n: usize| -> Result<Vec<u8>, Reason> {
        let mut bytes = Vec::with_capacity(n);
        file.by_ref().take(n as u64).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    };
    let (train, test) = (bytes(train)?, bytes(test)?);
    let mut sum = [0; 32];
    file.read_exact(&mut sum).map_err(|e| e.to_string())?;
    if sum != digest(&header, [&train, &test]) {
        return Err("its checksum is wrong".into());
    }
    Ok(Pixels { shape: [c, h, w], train, test })
}

/// Writes a cache file beside its place and renames it, so that a kill leaves the old file or the
/// new one.
pub(crate) fn save(
    path: &Path,
    key: &[u8; 32],
    counts: [usize; 2],
    pixels: &Pixels,
) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(key);
    for dimension in pixels.shape {
        header.extend(u32::try_from(dimension).map_err(io::Error::other)?.to_le_bytes());
    }
    for count in counts {
        header.extend((count as u64).to_le_bytes());
    }
    let sum = digest(&header, [&pixels.train, &pixels.test]);
    let mut file = kept::unfinished(folder, kept::DECODED)?;
    for part in [&header[..], &pixels.train, &pixels.test, &sum] {
        file.write_all(part)?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn digest(header: &[u8], parts: [&[u8]; 2]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(header);
    for part in parts {
        let blocks: Vec<[u8; 32]> =
            part.par_chunks(BLOCK).map(|block| Sha256::digest(block).into()).collect();
        hash.update(blocks.as_flattened());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    const KEY: [u8; 32] = [3; 32];

    fn pixels() -> Pixels {
        Pixels { shape: [1, 2, 2], train: (0..12).collect(), test: (50..58).collect() }
    }

    fn saved() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/cache.bin");
        save(&path, &KEY, [3, 2], &pixels()).unwrap();
        (dir, path)
    }

    #[test]
    fn round_trip_and_no_leftovers() {
        let (_dir, path) = saved();
        assert_eq!(load(&path, &KEY, [3, 2]).unwrap(), pixels());
        save(&path, &KEY, [3, 2], &pixels()).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_stale_one_is_told() {
        let (_dir, path) = saved();
        assert_eq!(load(&path, &[4; 32], [3, 2]).unwrap_err(), "the images have changed");
        assert_eq!(load(&path, &KEY, [2, 3]).unwrap_err(), "its header is damaged");
        assert!(load(&path.with_extension("none"), &KEY, [3, 2]).is_err());
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(
            at: prop::sample::Index,
            flip in 1u8..,
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let (_dir, path) = saved();
            let mut bytes = fs::read(&path).unwrap();
            match cut {
                Some(cut) => bytes.truncate(cut.index(bytes.len())),
                None => { let at = at.index(bytes.len()); bytes[at] ^= flip; }
            }
            fs::write(&path, bytes).unwrap();
            prop_assert!(load(&path, &KEY, [3, 2]).is_err());
        }
    }
}
