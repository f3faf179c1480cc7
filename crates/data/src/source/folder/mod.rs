//! A folder of the user's own images: `PATH/train/CLASS/*.png|jpg|jpeg` and `PATH/test/CLASS/...`
//! (see [`super::tree`]).
//!
//! With an image size, each image is cropped at its centre to a square and resized with a triangle
//! filter (bilinear, widened for a reduction, as in torchvision's `Resize`). Sets whose pixels fit
//! in [`OpenOptions::max_memory`] are decoded once and kept; larger ones are decoded on demand, to
//! the same pixels.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{self, Pixels};
use super::encoded::{OnDisk, load};
use super::parts::Parts;
use super::tree::{Item, Tree};
use crate::error::{DataError, Result};
use crate::info::Info;
use crate::options::{OpenOptions, Orientation};
use crate::paths::data_dir;
use crate::picture::{Fit, Picture, Pictures};
use crate::split::Split;
use crate::text::{one_line, shown};

/// Reads the folder `path` and fills in the fields of `info` that depend on the images.
pub(crate) fn open(info: &mut Info, path: &Path, options: &OpenOptions<'_>) -> Result<Parts> {
    let tree = Tree::read(path, &["test"], options.needs_test)?;
    let classes = tree.classes.len();
    let shape = shape(&tree, options)?;
    let counts = wanted(&tree, options);
    let bytes = shape.iter().try_fold(counts[0] + counts[1], |a, &b| a.checked_mul(b));
    let parts = if bytes.is_some_and(|bytes| bytes as u64 <= options.max_memory) {
        let pixels = pixels(&tree, shape, options)?;
        let split = |images: Vec<u8>, list: &[Item]| {
            let count = images.len() / pixels.shape.iter().product::<usize>().max(1);
            Split::new(
                images,
                list.iter().take(count).map(|i| i.label).collect(),
                pixels.shape,
                classes,
            )
        };
        Parts { train: split(pixels.train, &tree.train)?, test: split(pixels.test, &tree.test)? }
    } else {
        tracing::info!(
            "{}: more than {} MiB of pixels, the images are decoded on demand",
            one_line(&info.name),
            options.max_memory >> 20
        );
        let first: Arc<Path> = tree.train.first().map_or(path, |i| &i.path).into();
        let split = |list: &[Item], n: usize| {
            let files = OnDisk {
                paths: list.iter().take(n).map(|i| i.path.clone()).collect(),
                decoding: options.decoding(),
            };
            let labels = list.iter().take(n).map(|i| i.label).collect();
            let pictures = Fitted {
                files,
                shape,
                square: options.image_size.is_some(),
                first: Arc::clone(&first),
            };
            Split::on_demand(Arc::new(pictures), Fit::Exact, labels, shape, classes)
        };
        Parts { train: split(&tree.train, counts[0])?, test: split(&tree.test, counts[1])? }
    };
    info.num_classes = classes;
    info.classes = tree.classes;
    Ok(parts)
}

/// The files of a folder, each fitted to the set's shape, so that the pixels do not depend on where
/// they are kept.
#[derive(Debug)]
struct Fitted {
    files: OnDisk,
    shape: [usize; 3],
    square: bool,
    first: Arc<Path>,
}

impl Pictures for Fitted {
    fn picture(&self, i: usize) -> Result<Picture> {
        let picture = self.files.picture(i)?;
        let [channels, height, width] = self.shape;
        if self.square {
            return Picture::new(
                height,
                width,
                channels,
                Fit::Square.interleaved(&picture, self.shape)?,
            );
        }
        same_size(
            &picture,
            self.shape,
            self.files.paths.get(i).map_or(&*self.first, |p| p),
            &self.first,
        )?;
        Ok(picture)
    }

    fn digest(&self, i: usize) -> Result<[u8; 32]> {
        let file = self.files.digest(i)?;
        // A picture that is not resized has the digest of its file.
        Ok(if self.square {
            Sha256::new().chain_update(b"square").chain_update(file).finalize().into()
        } else {
            file
        })
    }
}

fn same_size(picture: &Picture, shape: [usize; 3], path: &Path, first: &Path) -> Result<()> {
    let [_, height, width] = shape;
    if (picture.height(), picture.width()) == (height, width) {
        return Ok(());
    }
    Err(DataError::bad(
        path,
        format!("{}x{} pixels", picture.width(), picture.height()),
        format!("{width}x{height}, the size of the first image ({})", shown(first)),
        "choose an `image_size` to crop and resize all images to",
    ))
}

fn shape(tree: &Tree, options: &OpenOptions<'_>) -> Result<[usize; 3]> {
    let channels = options.channels.count();
    match (options.image_size, tree.train.first()) {
        (Some(size), _) => Ok([channels, size, size]),
        (None, Some(first)) => {
            let picture = load(&first.path, options.decoding())?;
            Ok([channels, picture.height(), picture.width()])
        }
        (None, None) => Ok([channels, 1, 1]),
    }
}

/// Numbers of images of both splits, within the limits.
fn wanted(tree: &Tree, options: &OpenOptions<'_>) -> [usize; 2] {
    let part = |n: usize, limit: Option<usize>| limit.map_or(n, |limit| n.min(limit));
    [part(tree.train.len(), options.limit_train), part(tree.test.len(), options.limit_test)]
}

/// A digest of everything that decides the decoded images.
fn key(tree: &Tree, options: &OpenOptions<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(options.image_size.unwrap_or(0).to_le_bytes());
    hash.update(options.decoding().bytes());
    for item in tree.train.iter().chain(&tree.test) {
        let path = item.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(item.stamp.0.to_le_bytes());
        hash.update(item.stamp.1.to_le_bytes());
    }
    hash.finalize().into()
}

/// Path of the cache file. Each folder, image size and number of channels has one file, so that a
/// new cache replaces a stale one.
fn cache_file(root: &Path, options: &OpenOptions<'_>) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(root.as_os_str().as_encoded_bytes());
    let name: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let size = options.image_size.map_or("as-is".to_owned(), |s| s.to_string());
    let channels = options.channels.count();
    let turned = match options.orientation {
        Orientation::AsStored => "",
        Orientation::Exif => "-exif",
    };
    Ok(data_dir(options.data_dir.as_deref())?
        .join("cache")
        .join(format!("folder-{name}-{size}-{channels}{turned}.bin")))
}

/// The images of both splits within the limits, from the cache or decoded.
fn pixels(tree: &Tree, shape: [usize; 3], options: &OpenOptions<'_>) -> Result<Pixels> {
    let counts = [tree.train.len(), tree.test.len()];
    let cache = if options.cache {
        cache_file(&tree.root, options)
            .inspect_err(|e| tracing::warn!("decoded images are not kept: {e}"))
            .ok()
    } else {
        None
    };
    let (key, wanted) = (key(tree, options), wanted(tree, options));
    if let Some(file) = cache.as_deref().filter(|f| f.exists()) {
        match cache::load(file, &key, counts) {
            Ok(mut pixels) => {
                // Statistics over the images must not depend on whether a cache existed.
                let image: usize = pixels.shape.iter().product();
                pixels.train.truncate(wanted[0] * image);
                pixels.test.truncate(wanted[1] * image);
                return Ok(pixels);
            }
            Err(reason) => {
                tracing::info!("decoding again: {} is not usable: {reason}", shown(file))
            }
        }
    }
    let pixels = decode(&tree.train[..wanted[0]], &tree.test[..wanted[1]], shape, options)?;
    // Only a whole set is cached, because a part would not serve a later call that wants all
    // images.
    if let Some(file) = cache.filter(|_| wanted == counts)
        && let Err(error) = cache::save(&file, &key, counts, &pixels)
    {
        tracing::warn!("decoded images are not kept: cannot write {}: {error}", shown(&file));
    }
    Ok(pixels)
}

fn decode(
    train: &[Item],
    test: &[Item],
    shape: [usize; 3],
    options: &OpenOptions<'_>,
) -> Result<Pixels> {
    let Some(first) = train.first() else {
        return Ok(Pixels { shape, train: vec![], test: vec![] });
    };
    let total = (train.len() + test.len()) as u64;
    let done = AtomicU64::new(0);
    let report = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = options.progress
            && (done.is_multiple_of(64) || done == total)
        {
            progress(done, total);
        }
    };
    let all = |items: &[Item]| -> Result<Vec<u8>> {
        let pixels: usize = shape.iter().product();
        let mut bytes = vec![0; pixels * items.len()];
        bytes.par_chunks_exact_mut(pixels).zip(items).try_for_each(|(out, item)| {
            let picture = load(&item.path, options.decoding())?;
            let fit = if options.image_size.is_some() {
                Fit::Square
            } else {
                same_size(&picture, shape, &item.path, &first.path)?;
                Fit::Exact
            };
            out.copy_from_slice(&fit.apply(&picture, shape)?);
            report();
            Ok(())
        })?;
        Ok(bytes)
    };
    Ok(Pixels { shape, train: all(train)?, test: all(test)? })
}

#[cfg(test)]
mod tests;
