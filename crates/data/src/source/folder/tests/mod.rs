mod kept;

use super::*;
use crate::options::Decoding;
use crate::{Channels, Dataset, open};
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    /// Two classes; train has 3 + 2 images, test 1 + 1, all 6x4 and of one colour each.
    fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        for (i, file) in [
            "train/b/1.png",
            "train/b/0.PNG",
            "train/b/2.png",
            "train/a/x.png",
            "train/a/y.png",
            "test/a/z.png",
            "test/b/z.png",
        ]
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
        RgbImage::from_pixel(width, height, Rgb([value, value + 1, value + 2]))
            .save_with_format(path, ImageFormat::Png)
            .unwrap();
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
        fs::read_dir(self.dir.path().join("data/cache"))
            .map(|dir| dir.map(|e| e.unwrap().path()).collect())
            .unwrap_or_default()
    }
}

fn reds(split: &Split) -> Vec<u8> {
    (0..split.len()).map(|i| split.image(i).unwrap()[0]).collect()
}

#[test]
fn classes_are_sorted_and_listed_in_turn() {
    let tree = Place::new();
    fs::write(tree.path("train/a/notes.txt"), "not an image").unwrap();
    fs::write(tree.path("train/a/.hidden.png"), "not looked at").unwrap();
    fs::create_dir(tree.path("train/.git")).unwrap();
    let data = tree.open().unwrap();
    assert_eq!(data.info.classes, ["a", "b"]);
    assert_eq!(
        (data.info.num_classes, data.info.channels, data.info.height, data.info.width),
        (2, 3, 4, 6)
    );
    // a/x, b/0, a/y, b/1, b/2
    assert_eq!(reds(&data.train), [30, 10, 40, 0, 20]);
    assert_eq!((0..5).map(|i| data.train.label(i)).collect::<Vec<_>>(), [0, 1, 0, 1, 1]);
    assert_eq!(reds(&data.test), [50, 60]);
    assert!(data.train.image(0).unwrap()[24..48].iter().all(|&v| v == 31), "planes, not pixels");
    // A bare path means the same folder.
    let bare = open(&tree.path("").display().to_string(), &tree.options()).unwrap();
    assert_eq!(reds(&bare.train), reds(&data.train));
    assert!(bare.info.name.starts_with("folder:"));
}

#[test]
fn each_defect_has_its_line() {
    let tree = Place::new();
    fs::rename(tree.path("test"), tree.path("tost")).unwrap();
    assert!(tree.message().contains("found no test folder; expected PATH/train/CLASS/"));
    let alone = OpenOptions { needs_test: false, ..tree.options() };
    let data = tree.open_with(&alone).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (5, 0));
    fs::create_dir(tree.path("test")).unwrap();
    assert!(tree.message().contains("test: found no class folders"));
    fs::create_dir(tree.path("test/c")).unwrap();
    assert!(
        tree.message().contains(
            "test/c: found a class that train does not have; expected one of the 2 classes"
        )
    );
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
    let tree = Place::new();
    let file = tree.path("train/b/2.png");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[45] ^= 0x55;
    for bytes in [&b""[..], b"GIF89a..", &whole[..whole.len() / 2], &flipped, b"no image at all"] {
        fs::write(&file, bytes).unwrap();
        let message = tree.message();
        assert!(
            message.contains("train/b/2.png: found")
                && message.ends_with("; repair the file or remove it"),
            "{message}"
        );
    }
    // A header that announces more images than any machine can hold.
    let mut huge = whole.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    fs::write(&file, huge).unwrap();
    assert!(tree.message().contains("train/b/2.png: found an image that cannot be decoded"));
    fs::write(&file, whole).unwrap();
    tree.png("test/b/z.png", 5, 4, 0);
    let message = tree.message();
    assert!(
        message
            .contains("test/b/z.png: found 5x4 pixels; expected 6x4, the size of the first image"),
        "{message}"
    );
    assert!(
        message.ends_with("choose an `image_size` to crop and resize all images to"),
        "{message}"
    );
    assert!(tree.caches().is_empty());
}

#[test]
fn a_cut_off_jpeg_is_noticed() {
    let tree = Place::new();
    let file = tree.path("train/b/3.jpg");
    let noise = ImageBuffer::from_fn(64, 64, |x, y| Luma([(x * 37 + y * 91 + x * y) as u8]));
    DynamicImage::ImageLuma8(noise).save_with_format(&file, ImageFormat::Jpeg).unwrap();
    let whole = fs::read(&file).unwrap();
    assert!(load(&file, Decoding::PUBLISHED).is_ok());
    for part in [3, 2] {
        fs::write(&file, &whole[..whole.len() * (part - 1) / part]).unwrap();
        assert!(
            load(&file, Decoding::PUBLISHED)
                .unwrap_err()
                .to_string()
                .contains("breaks off before its end marker")
        );
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
        let pixel = |x, y| Rgb([(x * 10) as u8, (y * 15) as u8, (x * y) as u8]);
        RgbImage::from_fn(24, 17, pixel).write_to(&mut bytes, format).unwrap();
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
        match load(&path, Decoding::PUBLISHED) {
            Ok(image) => prop_assert!(image.width() > 0 && image.height() > 0),
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.contains("image.jpg: found") && !text.contains('\n'));
            }
        }
    }
}

#[test]
fn image_size_crops_the_centre_and_resizes() {
    let tree = Place::new();
    // An 8x4 image, black except for a white central square.
    let image =
        RgbImage::from_fn(
            8,
            4,
            |x, _| if (2..6).contains(&x) { Rgb([255; 3]) } else { Rgb([0; 3]) },
        );
    image.save(tree.path("train/a/x.png")).unwrap();
    let data = tree.open_with(&OpenOptions { image_size: Some(2), ..tree.options() }).unwrap();
    assert_eq!(data.train.shape(), [3, 2, 2]);
    assert_eq!(*data.train.image(0).unwrap(), [255; 12]);
    assert_eq!(*data.train.image(1).unwrap(), [10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12]);
}

#[test]
fn grey_on_demand() {
    let tree = Place::new();
    let data = tree.open_with(&OpenOptions { channels: Channels::Grey, ..tree.options() }).unwrap();
    assert_eq!((data.train.shape(), data.info.channels), ([1, 4, 6], 1));
    assert!(data.train.image(0).unwrap()[0].abs_diff(31) <= 1);
    // A grey file in an RGB set gives three equal planes.
    ImageBuffer::from_pixel(6, 4, Luma([77u8])).save(tree.path("train/a/x.png")).unwrap();
    let data = tree.open().unwrap();
    assert!(data.train.image(0).unwrap().iter().all(|&v| v == 77));
}

#[test]
fn progress_ends_at_the_total() {
    let tree = Place::new();
    let last = AtomicU64::new(0);
    let report = |done, total| {
        assert_eq!(total, 7);
        last.fetch_max(done, Ordering::Relaxed);
    };
    tree.open_with(&OpenOptions { progress: Some(&report), ..tree.options() }).unwrap();
    assert_eq!(last.into_inner(), 7);
}

#[test]
fn the_identity_tells_what_changed() {
    for max_memory in [1 << 30, 0] {
        let tree = Place::new();
        let options = OpenOptions { max_memory, ..tree.options() };
        let identity = || tree.open_with(&options).unwrap().identity().unwrap();
        let before = identity();
        assert_eq!(identity(), before);
        let differs = |words: &str| {
            let found = identity().difference(&before).unwrap();
            assert!(found.starts_with(words), "{found}");
        };
        // Another image of the same length in the same place.
        tree.png("train/b/1.png", 6, 4, 77);
        differs("training set: other images or labels than before");
        tree.png("train/b/1.png", 6, 4, 0);
        assert_eq!(identity(), before);
        tree.png("train/a/w.png", 6, 4, 90);
        differs("training set: 6 images, 5 before");
        fs::remove_file(tree.path("train/a/w.png")).unwrap();
        // Two images change places within their class.
        tree.png("train/a/x.png", 6, 4, 40);
        tree.png("train/a/y.png", 6, 4, 30);
        differs("training set: other images");
        tree.png("train/a/x.png", 6, 4, 30);
        tree.png("train/a/y.png", 6, 4, 40);
        tree.png("test/a/z.png", 6, 4, 51);
        differs("test set: other images");
        tree.png("test/a/z.png", 6, 4, 50);
        assert_eq!(identity(), before);
        // The classes change places.
        for split in ["train", "test"] {
            fs::rename(tree.path(split).join("a"), tree.path(split).join("z")).unwrap();
        }
        differs("training set: class 0 is 'b', 'a' before");
        for split in ["train", "test"] {
            fs::rename(tree.path(split).join("z"), tree.path(split).join("a")).unwrap();
        }
        let other = |options| tree.open_with(&options).unwrap().identity().unwrap();
        for options in [
            OpenOptions { image_size: Some(4), max_memory, ..tree.options() },
            OpenOptions { channels: Channels::Grey, max_memory, ..tree.options() },
            OpenOptions { limit_train: Some(4), max_memory, ..tree.options() },
        ] {
            assert!(other(options).difference(&before).is_some());
        }
    }
}

#[test]
fn what_is_left_out_is_counted() {
    let tree = Place::new();
    for file in ["b/00.webp", "b/01.BMP", "b/02.bmp", "b/more/3.png", "b/more/yet/4.tif", "5.gif"] {
        let path = tree.path("train").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::write(tree.path("train/b/.hidden.webp"), "").unwrap();
    fs::write(tree.path("train/b/notes.txt"), "").unwrap();
    fs::write(tree.path("test/a/photo.jfif"), "").unwrap();
    let (data, log) = logged(|| tree.open().unwrap());
    assert_eq!((data.train.len(), data.test.len()), (5, 2));
    let line = log.lines().find(|line| line.contains("left out")).unwrap();
    assert!(
        line.contains(
            "7 image files are left out: 2 .bmp, 1 .jfif, 1 .webp, 2 in folders within class \
             folders, 1 outside class folders"
        ),
        "{line}"
    );
    // A class without any readable image gives an error that says so.
    fs::create_dir(tree.path("train/c")).unwrap();
    fs::write(tree.path("train/c/0.tif"), "").unwrap();
    assert!(tree.message().contains("found no images but 1 that are not read (1 .tif)"));
    // Nothing is logged where every file is read.
    let (_, log) = logged(|| Place::new().open().unwrap());
    assert!(!log.contains("left out"), "{log}");
}

/// The lines that `work` logs.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(log, work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

#[test]
fn a_class_is_the_same_whichever_way_its_name_is_written() {
    let tree = Place::new();
    // The same name in composed form (Linux, Windows) and decomposed form (macOS).
    fs::rename(tree.path("train/b"), tree.path("train/caf\u{e9}")).unwrap();
    fs::rename(tree.path("test/b"), tree.path("test/cafe\u{301}")).unwrap();
    let data = tree.open().unwrap();
    assert_eq!(data.info.classes, ["a", "caf\u{e9}"]);
    assert_eq!(reds(&data.test), [50, 60]);
    fs::create_dir(tree.path("train/cafe\u{301}")).unwrap();
    assert!(tree.message().contains("found a second folder of the same name"));
}

#[test]
fn names_cannot_steer_a_terminal() {
    let tree = Place::new();
    for split in ["train", "test"] {
        fs::rename(tree.path(split).join("b"), tree.path(split).join("b\x1b[2J\u{202e}")).unwrap();
    }
    let data = tree.open().unwrap();
    assert_eq!(data.info.classes, ["a", "b\\u{1b}[2J\\u{202e}"]);
}
