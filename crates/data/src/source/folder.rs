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
                // Opening a named pipe would wait for ever.
                if !meta.is_file() {
                    return Err(DataError::bad(path, "a folder or special file", "an image file", "rename or remove it"));
                }
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
        // All of them first: of several defects the first in order is named, whichever thread is quickest.
        .collect::<Vec<_>>()
        .into_iter()
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
    let bad = |found: String| DataError::bad(path, found, "a whole PNG or JPEG image", "repair the file or remove it");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, open};
    use image::{ImageBuffer, Luma, Rgb, RgbImage};
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime};
    use tempfile::TempDir;

    struct Tree {
        dir: TempDir,
    }

    impl Tree {
        /// Two classes; train has 3 + 2 images, test 1 + 1, all 6x4 and of one colour each.
        fn new() -> Self {
            let tree = Self { dir: tempfile::tempdir().unwrap() };
            for (i, file) in
                ["train/b/1.png", "train/b/0.PNG", "train/b/2.png", "train/a/x.png", "train/a/y.png", "test/a/z.png", "test/b/z.png"]
                    .iter()
                    .enumerate()
            {
                tree.png(file, 6, 4, 10 * i as u8);
            }
            tree
        }

        fn png(&self, file: &str, width: u32, height: u32, value: u8) {
            let path = self.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(width, height, Rgb([value, value + 1, value + 2])).save_with_format(path, ImageFormat::Png).unwrap();
        }

        fn path(&self, file: &str) -> PathBuf {
            self.dir.path().join("set").join(file)
        }

        fn options(&self) -> OpenOptions<'static> {
            OpenOptions { data_dir: Some(self.dir.path().join("data")), ..Default::default() }
        }

        fn open_with(&self, options: &OpenOptions<'_>) -> Result<Dataset> {
            open(&format!("folder:{}", self.path("").display()), options)
        }

        fn open(&self) -> Result<Dataset> {
            self.open_with(&self.options())
        }

        fn message(&self) -> String {
            let message = self.open().unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
            message
        }

        fn caches(&self) -> Vec<PathBuf> {
            fs::read_dir(self.dir.path().join("data/cache")).map(|dir| dir.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
        }
    }

    fn reds(split: &Split) -> Vec<u8> {
        (0..split.len()).map(|i| split.image(i)[0]).collect()
    }

    #[test]
    fn classes_are_sorted_and_listed_in_turn() {
        let tree = Tree::new();
        fs::write(tree.path("train/a/notes.txt"), "not an image").unwrap();
        fs::write(tree.path("train/a/.hidden.png"), "not looked at").unwrap();
        fs::create_dir(tree.path("train/.git")).unwrap();
        let data = tree.open().unwrap();
        assert_eq!(data.info.classes, ["a", "b"]);
        assert_eq!((data.info.num_classes, data.info.channels, data.info.height, data.info.width), (2, 3, 4, 6));
        // a/x, b/0, a/y, b/1, b/2
        assert_eq!(reds(&data.train), [30, 10, 40, 0, 20]);
        assert_eq!((0..5).map(|i| data.train.label(i)).collect::<Vec<_>>(), [0, 1, 0, 1, 1]);
        assert_eq!(reds(&data.test), [50, 60]);
        assert!(data.train.image(0)[24..48].iter().all(|&v| v == 31), "planes, not pixels");
        // A bare path is the same.
        let bare = open(&tree.path("").display().to_string(), &tree.options()).unwrap();
        assert_eq!(reds(&bare.train), reds(&data.train));
        assert!(bare.info.name.starts_with("folder:"));
    }

    #[test]
    fn each_defect_has_its_line() {
        let tree = Tree::new();
        fs::rename(tree.path("test"), tree.path("tost")).unwrap();
        assert!(tree.message().contains("found no test folder; expected PATH/train/CLASS/"));
        fs::create_dir(tree.path("test")).unwrap();
        assert!(tree.message().contains("test: found no class folders"));
        fs::create_dir(tree.path("test/c")).unwrap();
        assert!(tree.message().contains("test/c: found a class that train does not have; expected one of the 2 classes"));
        fs::rename(tree.path("test/c"), tree.path("test/a")).unwrap();
        assert!(tree.message().contains("test/a: found no images; expected files ending in"));
        fs::create_dir(tree.path("train/a/odd.jpg")).unwrap();
        assert!(tree.message().contains("train/a/odd.jpg: found a folder or special file"));
        fs::remove_dir_all(tree.path("train/a")).unwrap();
        assert!(tree.message().contains("train: found 1 class folders; expected 2 or more"));
        fs::remove_dir_all(tree.path("train")).unwrap();
        assert!(tree.message().contains("found no train folder"));
    }

    #[test]
    fn a_bad_image_is_named() {
        let tree = Tree::new();
        let file = tree.path("train/b/2.png");
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[45] ^= 0x55;
        for bytes in [&b""[..], b"GIF89a..", &whole[..whole.len() / 2], &flipped, b"no image at all"] {
            fs::write(&file, bytes).unwrap();
            let message = tree.message();
            assert!(message.contains("train/b/2.png: found") && message.ends_with("; repair the file or remove it"), "{message}");
        }
        // A header that promises more than any machine has.
        let mut huge = whole.clone();
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        fs::write(&file, huge).unwrap();
        assert!(tree.message().contains("train/b/2.png: found an image that cannot be decoded"));
        fs::write(&file, whole).unwrap();
        tree.png("test/b/z.png", 5, 4, 0);
        let message = tree.message();
        assert!(message.contains("test/b/z.png: found 5x4 pixels; expected 6x4, the size of the first image"), "{message}");
        assert!(message.ends_with("give --image-size N to crop and resize all images"), "{message}");
        assert!(tree.caches().is_empty());
    }

    #[test]
    fn a_cut_off_jpeg_is_noticed() {
        let tree = Tree::new();
        let file = tree.path("train/b/3.jpg");
        let noise = ImageBuffer::from_fn(64, 64, |x, y| Luma([(x * 37 + y * 91 + x * y) as u8]));
        DynamicImage::ImageLuma8(noise).save_with_format(&file, ImageFormat::Jpeg).unwrap();
        let whole = fs::read(&file).unwrap();
        assert!(load(&file).is_ok());
        for part in [3, 2] {
            fs::write(&file, &whole[..whole.len() * (part - 1) / part]).unwrap();
            assert!(load(&file).unwrap_err().to_string().contains("breaks off before its end marker"));
        }
    }

    proptest! {
        /// A damaged image file gives an image or an error that names it; never a panic.
        #[test]
        fn damaged_images(
            jpeg: bool, cut in proptest::option::of(any::<prop::sample::Index>()),
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        ) {
            let format = if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png };
            let mut bytes = Cursor::new(Vec::new());
            RgbImage::from_fn(24, 17, |x, y| Rgb([(x * 10) as u8, (y * 15) as u8, (x * y) as u8])).write_to(&mut bytes, format).unwrap();
            let mut bytes = bytes.into_inner();
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("image.jpg");
            fs::write(&path, bytes).unwrap();
            match load(&path) {
                Ok(image) => prop_assert!(image.width() > 0 && image.height() > 0),
                Err(error) => prop_assert!(error.to_string().contains("image.jpg: found") && !error.to_string().contains('\n')),
            }
        }
    }

    #[test]
    fn image_size_crops_the_centre_and_resizes() {
        let tree = Tree::new();
        // 8x4: black, but for a white central square.
        let image = RgbImage::from_fn(8, 4, |x, _| if (2..6).contains(&x) { Rgb([255; 3]) } else { Rgb([0; 3]) });
        image.save(tree.path("train/a/x.png")).unwrap();
        let data = tree.open_with(&OpenOptions { image_size: Some(2), ..tree.options() }).unwrap();
        assert_eq!(data.train.shape(), [3, 2, 2]);
        assert_eq!(data.train.image(0), [255; 12]);
        assert_eq!(data.train.image(1), [10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12]);
    }

    #[test]
    fn grey_on_demand() {
        let tree = Tree::new();
        let data = tree.open_with(&OpenOptions { channels: Channels::Grey, ..tree.options() }).unwrap();
        assert_eq!((data.train.shape(), data.info.channels), ([1, 4, 6], 1));
        assert!(data.train.image(0)[0].abs_diff(31) <= 1);
        // A grey file in an RGB set gives three equal planes.
        ImageBuffer::from_pixel(6, 4, Luma([77u8])).save(tree.path("train/a/x.png")).unwrap();
        let data = tree.open().unwrap();
        assert!(data.train.image(0).iter().all(|&v| v == 77));
    }

    #[test]
    fn the_cache_is_used_and_rebuilt_when_stale_or_damaged() {
        let tree = Tree::new();
        let fresh = reds(&tree.open().unwrap().train);
        let [cache] = &tree.caches()[..] else { panic!("one cache file") };
        // Pretend that the first image was decoded to 99s: seen if the cache is used.
        let counts = [5, 2];
        let key = Listing::read(&tree.path("")).unwrap().key(&tree.options());
        let mut forged = cache::load(cache, &key, counts).unwrap();
        forged.train[0] = 99;
        cache::save(cache, &key, counts, &forged).unwrap();
        assert_eq!(reds(&tree.open().unwrap().train)[0], 99);
        // A limit is served from it, too.
        let limited = tree.open_with(&OpenOptions { limit_train: Some(1), ..tree.options() }).unwrap();
        assert_eq!((reds(&limited.train), limited.test.len()), (vec![99], 2));
        // Not asked for, not used.
        assert_eq!(reds(&tree.open_with(&OpenOptions { cache: false, ..tree.options() }).unwrap().train), fresh);
        // Another image size has its own.
        tree.open_with(&OpenOptions { image_size: Some(4), ..tree.options() }).unwrap();
        assert_eq!(tree.caches().len(), 2);
        // Damaged: rebuilt.
        let mut bytes = fs::read(cache).unwrap();
        let last = bytes.len() - 6;
        bytes[last] ^= 1;
        fs::write(cache, bytes).unwrap();
        assert_eq!(reds(&tree.open().unwrap().train), fresh);
        assert!(cache::load(cache, &key, counts).is_ok(), "rebuilt on disk");
        // An image changed within the same length: its time tells.
        let file = fs::File::options().append(true).open(tree.path("train/a/x.png")).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
        assert!(cache::load(cache, &Listing::read(&tree.path("")).unwrap().key(&tree.options()), counts).is_err());
        // An image more: seen.
        tree.png("train/a/w.png", 6, 4, 90);
        assert_eq!(tree.open().unwrap().train.len(), 6);
        assert_eq!(tree.caches().len(), 2, "stale ones are replaced");
    }

    #[test]
    fn a_limit_decodes_no_more_than_it_needs() {
        let tree = Tree::new();
        fs::write(tree.path("train/b/2.png"), "broken, but fifth").unwrap();
        let limited = tree.open_with(&OpenOptions { limit_train: Some(4), ..tree.options() }).unwrap();
        assert_eq!(limited.train.len(), 4);
        assert!(tree.caches().is_empty(), "a part is not kept");
        assert!(tree.open().is_err());
    }

    #[test]
    fn an_unwritable_cache_is_no_error() {
        let tree = Tree::new();
        // A file where the data folder should be: no folder can be made there, whoever runs the test.
        fs::write(tree.dir.path().join("data"), "").unwrap();
        assert_eq!(tree.open().unwrap().train.len(), 5);
    }

    #[test]
    fn progress_ends_at_the_total() {
        let tree = Tree::new();
        let last = AtomicU64::new(0);
        let report = |done, total| {
            assert_eq!(total, 7);
            last.fetch_max(done, Ordering::Relaxed);
        };
        tree.open_with(&OpenOptions { progress: Some(&report), ..tree.options() }).unwrap();
        assert_eq!(last.into_inner(), 7);
    }
}
