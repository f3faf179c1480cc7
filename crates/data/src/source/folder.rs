//! A folder of images: `PATH/train/CLASS/*.png|jpg|jpeg` and `PATH/test/CLASS/...`.
//!
//! The classes are the sorted names of train's sub-folders. The images of a split are listed by class in turn (the first
//! of each class, then the second of each, ...; sorted by name within a class), so that the first N hold all classes
//! evenly. With an image size each is cropped at its centre to a square and resized with a triangle filter (bilinear,
//! widened when it shrinks, as torchvision's `Resize` does it). Orientation tags (EXIF) are not applied.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Parts;
use super::cache::{self, Pixels};
use crate::error::{DataError, Result, one_line};
use crate::info::Info;
use crate::open::{Channels, OpenOptions};
use crate::paths::data_dir;
use crate::split::Split;

const LAYOUT: &str = "PATH/train/CLASS/*.png|jpg and PATH/test/CLASS/*.png|jpg";
/// Largest image file and largest side that are taken; larger ones are hardly meant.
const MAX_FILE: u64 = 256 << 20;
const MAX_SIDE: u32 = 16_384;

/// Reads the folder `path`; `name` is what the set is called from then on.
pub(crate) fn open(path: &Path, name: &str, options: &OpenOptions<'_>) -> Result<(Info, Parts)> {
    let listing = Listing::read(path)?;
    let pixels = pixels(&listing, options)?;
    let classes = listing.classes.len();
    let split = |images: Vec<u8>, list: &[Item]| {
        let count = images.len() / pixels.shape.iter().product::<usize>().max(1);
        Split::new(images, list.iter().take(count).map(|i| i.label).collect(), pixels.shape, classes)
    };
    let train = split(pixels.train, &listing.train)?;
    let test = split(pixels.test, &listing.test)?;
    let template = crate::find("folder").ok_or_else(|| DataError::value("data set", name, "a registered kind"))?;
    let info = Info { name: name.to_owned(), title: name.to_owned(), num_classes: classes, classes: listing.classes, ..template };
    Ok((info, Parts { train, test }))
}

struct Item {
    path: PathBuf,
    label: u32,
    /// Length and time of change, to notice a changed file.
    stamp: (u64, u128),
}

struct Listing {
    root: PathBuf,
    classes: Vec<String>,
    train: Vec<Item>,
    test: Vec<Item>,
}

impl Listing {
    fn read(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root).map_err(DataError::io("read", root))?;
        for split in ["train", "test"] {
            if !root.join(split).is_dir() {
                return Err(DataError::bad(
                    &root,
                    format!("no {split} folder"),
                    LAYOUT,
                    format!("put the {split} images in {split}/CLASS/ (no part of another split is taken in its place)"),
                ));
            }
        }
        let folder = root.join("train");
        let classes = sub_folders(&folder)?;
        if classes.len() < 2 {
            let found = format!("{} class folders", classes.len());
            return Err(DataError::bad(folder, found, "2 or more, each with images", "make one sub-folder a class"));
        }
        let train = list(&folder, &classes, &classes)?;
        let folder = root.join("test");
        let present = sub_folders(&folder)?;
        if let Some(unknown) = present.iter().find(|c| !classes.contains(c)) {
            return Err(DataError::bad(
                folder.join(unknown),
                "a class that train does not have",
                format!("one of the {} classes of train", classes.len()),
                "rename the folder or add the class to train",
            ));
        }
        if present.is_empty() {
            return Err(DataError::bad(folder, "no class folders", LAYOUT, "put the test images in test/CLASS/"));
        }
        let test = list(&folder, &present, &classes)?;
        Ok(Self { root, classes, train, test })
    }

    fn counts(&self) -> [usize; 2] {
        [self.train.len(), self.test.len()]
    }

    /// A digest of everything that the decoded images depend on.
    fn key(&self, options: &OpenOptions<'_>) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(options.image_size.unwrap_or(0).to_le_bytes());
        hash.update([options.channels.count() as u8]);
        for item in self.train.iter().chain(&self.test) {
            let path = item.path.as_os_str().as_encoded_bytes();
            hash.update((path.len() as u64).to_le_bytes());
            hash.update(path);
            hash.update(item.stamp.0.to_le_bytes());
            hash.update(item.stamp.1.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// The cache file: one for a folder, image size and channels, so that a stale one is replaced and not left behind.
    fn cache_file(&self, options: &OpenOptions<'_>) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        hash.update(self.root.as_os_str().as_encoded_bytes());
        let name: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let size = options.image_size.map_or("as-is".to_owned(), |s| s.to_string());
        let channels = options.channels.count();
        Ok(data_dir(options.data_dir.as_deref())?.join("cache").join(format!("folder-{name}-{size}-{channels}.bin")))
    }
}

/// Sorted names of the sub-folders; hidden ones are passed over.
fn sub_folders(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io("read", folder))? {
        let path = entry.map_err(DataError::io("read", folder))?.path();
        let Some(name) = path.file_name() else { continue };
        let Some(text) = name.to_str() else {
            return Err(DataError::bad(&path, "a name that is not Unicode", "a class name", "rename the folder"));
        };
        if !text.starts_with('.') && path.is_dir() {
            names.push(text.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The images of `present` classes, in turn; labels are positions in `classes`.
fn list(folder: &Path, present: &[String], classes: &[String]) -> Result<Vec<Item>> {
    let per_class: Vec<Vec<Item>> = present
        .par_iter()
        .map(|class| {
            let folder = folder.join(class);
            let label = classes.iter().position(|c| c == class).unwrap_or_default() as u32;
            let mut items = Vec::new();
            for entry in fs::read_dir(&folder).map_err(DataError::io("read", &folder))? {
                let path = entry.map_err(DataError::io("read", &folder))?.path();
                if !is_image(&path) {
                    continue;
                }
                let meta = fs::metadata(&path).map_err(DataError::io("read", &path))?;
                let changed = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                items.push(Item { path, label, stamp: (meta.len(), changed.map_or(0, |d| d.as_nanos())) });
            }
            if items.is_empty() {
                let fix = "add some or remove the folder";
                return Err(DataError::bad(folder, "no images", "files ending in .png, .jpg or .jpeg", fix));
            }
            items.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(items)
        })
        .collect::<Result<_>>()?;
    let mut columns: Vec<_> = per_class.into_iter().map(Vec::into_iter).collect();
    let mut items = Vec::new();
    loop {
        let before = items.len();
        items.extend(columns.iter_mut().filter_map(Iterator::next));
        if items.len() == before {
            return Ok(items);
        }
    }
}

fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    !hidden && matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
}

/// The images of both splits, from the cache or decoded; those over the limits may be left out.
fn pixels(listing: &Listing, options: &OpenOptions<'_>) -> Result<Pixels> {
    let counts = listing.counts();
    let cache = if options.cache {
        listing.cache_file(options).inspect_err(|e| tracing::warn!("decoded images are not kept: {e}")).ok()
    } else {
        None
    };
    let key = listing.key(options);
    if let Some(file) = cache.as_deref().filter(|f| f.exists()) {
        match cache::load(file, &key, counts) {
            Ok(pixels) => return Ok(pixels),
            Err(reason) => tracing::info!("decoding again: {} is not usable: {reason}", file.display()),
        }
    }
    let part = |n: usize, limit: Option<usize>| limit.map_or(n, |limit| n.min(limit));
    let wanted = [part(counts[0], options.limit_train), part(counts[1], options.limit_test)];
    let pixels = decode(&listing.train[..wanted[0]], &listing.test[..wanted[1]], options)?;
    // A part would not serve the next call, which may want all.
    if let Some(file) = cache.filter(|_| wanted == counts)
        && let Err(error) = cache::save(&file, &key, counts, &pixels)
    {
        tracing::warn!("decoded images are not kept: cannot write {}: {error}", file.display());
    }
    Ok(pixels)
}

fn decode(train: &[Item], test: &[Item], options: &OpenOptions<'_>) -> Result<Pixels> {
    let Some(first) = train.first() else { return Ok(Pixels { shape: [1, 1, 1], train: vec![], test: vec![] }) };
    let shape = match options.image_size {
        Some(size) => [options.channels.count(), size, size],
        None => {
            let image = load(&first.path)?;
            [options.channels.count(), image.height() as usize, image.width() as usize]
        }
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
        let mut bytes = Vec::new();
        let length = pixels.checked_mul(items.len());
        length.and_then(|n| bytes.try_reserve_exact(n).ok()).ok_or_else(|| {
            DataError::value("image size", format!("{}x{}", shape[1], shape[2]), "images that fit in memory: choose a smaller --image-size")
        })?;
        bytes.resize(pixels * items.len(), 0);
        bytes.par_chunks_exact_mut(pixels).zip(items).try_for_each(|(out, item)| {
            let image = load(&item.path)?;
            let image = match options.image_size {
                Some(size) => square(&image, size as u32),
                None if (image.height() as usize, image.width() as usize) == (shape[1], shape[2]) => image,
                None => {
                    return Err(DataError::bad(
                        &item.path,
                        format!("{}x{} pixels", image.width(), image.height()),
                        format!("{}x{}, the size of the first image ({})", shape[2], shape[1], first.path.display()),
                        "give --image-size N to crop and resize all images",
                    ));
                }
            };
            planar(image, options.channels, out);
            report();
            Ok(())
        })?;
        Ok(bytes)
    };
    Ok(Pixels { shape, train: all(train)?, test: all(test)? })
}

fn load(path: &Path) -> Result<DynamicImage> {
    let bad = |found: String| {
        DataError::bad(path, found, "a whole PNG or JPEG image", "repair the file or remove it")
    };
    let length = fs::metadata(path).map_err(DataError::io("read", path))?.len();
    if length > MAX_FILE {
        return Err(bad(format!("a file of {length} bytes")));
    }
    let bytes = fs::read(path).map_err(DataError::io("read", path))?;
    let mut reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(DataError::io("read", path))?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Some(other) => return Err(bad(format!("an image in {other:?} format"))),
        None => return Err(bad("no image format that is known".into())),
    };
    // The decoder fills the missing part of a cut-off JPEG with grey and says nothing.
    if format == ImageFormat::Jpeg && !ends(&bytes) {
        return Err(bad("a JPEG that breaks off before its end marker".into()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| bad(format!("an image that cannot be decoded ({})", one_line(&e.to_string()))))?;
    if image.width() == 0 || image.height() == 0 {
        return Err(bad("an image without pixels".into()));
    }
    Ok(image)
}

/// Whether a JPEG's last scan is followed by the end marker. (Within a scan both markers cannot occur: 0xff is stuffed.)
fn ends(jpeg: &[u8]) -> bool {
    let pairs = |bytes: &[u8], marker| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    pairs(jpeg, 0xda).is_some_and(|scan| pairs(&jpeg[scan..], 0xd9).is_some())
}

/// The central square, resized to `size` x `size`.
fn square(image: &DynamicImage, size: u32) -> DynamicImage {
    let side = image.width().min(image.height());
    let cropped = image.crop_imm((image.width() - side) / 2, (image.height() - side) / 2, side, side);
    if side == size {
        return cropped;
    }
    // On 8-bit RGB(A), so that an odd colour type does not decide how rounding is done.
    if cropped.color().has_alpha() {
        DynamicImage::ImageRgba8(resize(&cropped.into_rgba8(), size, size, FilterType::Triangle))
    } else {
        DynamicImage::ImageRgb8(resize(&cropped.into_rgb8(), size, size, FilterType::Triangle))
    }
}

/// Interleaved pixels to planes.
fn planar(image: DynamicImage, channels: Channels, out: &mut [u8]) {
    match channels {
        Channels::Grey => out.copy_from_slice(&image.into_luma8()),
        Channels::Rgb => {
            let rgb = image.into_rgb8();
            let pixels = out.len() / 3;
            for (channel, plane) in out.chunks_exact_mut(pixels).enumerate() {
                for (value, pixel) in plane.iter_mut().zip(rgb.pixels()) {
                    *value = pixel.0[channel];
                }
            }
        }
    }
}
