//! Imagenette, from the `.tgz` archive, whose image files are kept in memory as they are, or from
//! the class folders that it unpacks to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};
use std::sync::Arc;

use flate2::bufread::GzDecoder;
use tar::Archive;

use super::encoded::{InMemory, MAX_FILE};
use super::files::{find_file, find_folder, is_damage, missing, most_unpacked};
use super::imagenet::{Layout, on_demand, split_sizes};
use super::parts::Parts;
use super::tree::{in_turn, is_image};
use crate::error::{DataError, Result};
use crate::info::Info;
use crate::options::OpenOptions;
use crate::text::one_line;

/// Most bytes of image files, and of the unpacked archive (the largest official set has 340 MB).
const MAX_IMAGES: u64 = 1 << 30;
const MAX_UNPACKED: u64 = 2 << 30;

pub(crate) fn open(info: &mut Info, data_dir: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let source = info.sources.first().map_or("", |s| s.file.as_str()).to_owned();
    if let Some(root) = find_folder(info, data_dir, source.trim_end_matches(".tgz")) {
        return super::imagenet::class_folders(info, &root, options);
    }
    let path = find_file(info, data_dir, &source).ok_or_else(|| missing(info, data_dir))?;
    archive(info, &path, options)
}

/// Class, member name and byte range of an image file of a split.
type Found = (String, String, std::ops::Range<usize>);

fn archive(info: &mut Info, path: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let fix = info.get_again();
    let bad = |found: String, expected: &str| DataError::bad(path, found, expected, fix.clone());
    let broken = |e: io::Error| {
        if is_damage(&e) {
            bad(format!("a broken archive ({})", one_line(&e.to_string())), "a whole .tgz file")
        } else {
            DataError::io("read", path)(e)
        }
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let length = file.metadata().map_err(DataError::io("read", path))?.len();
    let most = most_unpacked(length).min(MAX_IMAGES);
    let mut archive =
        Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(MAX_UNPACKED));
    let mut bytes = [Vec::new(), Vec::new()];
    let mut found: [Vec<Found>; 2] = [vec![], vec![]];
    // A raw iteration skips long-name records, which the reader would otherwise take into memory
    // whole.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path().map_err(broken)?.into_owned();
        let Some((split, class)) = place(&member) else { continue };
        let size = entry.size();
        let name = one_line(&member.to_string_lossy());
        if size > MAX_FILE || bytes[split].len() as u64 + size > most {
            return Err(bad(
                format!("{size} bytes in {name}"),
                &format!("image files of {} MiB at most", most >> 20),
            ));
        }
        let start = bytes[split].len();
        entry.read_to_end(&mut bytes[split]).map_err(broken)?;
        found[split].push((class, name, start..bytes[split].len()));
    }
    // Read to the end of the file, so that the decoder checks the gzip checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;

    let mut ids: Vec<String> = found[0].iter().map(|(class, ..)| class.clone()).collect();
    ids.sort();
    ids.dedup();
    if ids.len() != info.num_classes {
        return Err(bad(
            format!("{} classes in train/", ids.len()),
            &format!("train/CLASS/*.JPEG of {} classes", info.num_classes),
        ));
    }
    let [train_bytes, test_bytes] = bytes;
    let [train, test] = found;
    let split = |bytes: Vec<u8>, found: Vec<Found>, limit: Option<usize>| {
        let mut by_class = vec![Vec::new(); ids.len()];
        for (class, name, range) in found {
            let label = ids
                .binary_search(&class)
                .map_err(|_| bad(format!("class '{class}' in val/"), "a class of train"))?;
            by_class[label].push((name, range, label as u32));
        }
        by_class
            .iter_mut()
            .for_each(|list: &mut Vec<(String, _, u32)>| list.sort_by(|a, b| a.0.cmp(&b.0)));
        let listed = in_turn(by_class);
        let n = limit.map_or(listed.len(), |l| l.min(listed.len()));
        let (files, labels) =
            listed.into_iter().take(n).map(|(name, range, label)| ((name, range), label)).unzip();
        on_demand(
            Arc::new(InMemory {
                archive: path.to_owned(),
                bytes,
                files,
                decoding: options.decoding(),
            }),
            labels,
            info,
            options,
        )
    };
    let counts = [train.len(), test.len()];
    let train = split(train_bytes, train, options.limit_train)?;
    let test = split(test_bytes, test, options.limit_test)?;
    if test.is_empty() {
        return Err(bad("no images in val/".into(), "val/CLASS/*.JPEG"));
    }
    split_sizes(info, path, counts);
    Layout::Ids(ids).name(info);
    Ok(Parts { train, test })
}

/// The split (0: train, 1: val) and the class of a member `.../train/CLASS/FILE`.
fn place(member: &Path) -> Option<(usize, String)> {
    let parts: Vec<&str> = member
        .components()
        .map(|c| match c {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let [.., split, class, _] = parts[..] else { return None };
    let split = ["train", "val"].iter().position(|s| *s == split)?;
    is_image(member).then(|| (split, class.to_owned()))
}

#[cfg(test)]
mod tests;
