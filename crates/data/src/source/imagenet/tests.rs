use super::*;
use crate::{Augment, DataError, Loader, LoaderOptions, open};
use image::{Rgb, RgbImage};
use std::fs;

/// Writes three classes with pictures of different sizes; the red value identifies the picture.
fn make(root: &Path, val: &str) {
    for (k, class) in ["n00000002", "n00000001", "n00000003"].iter().enumerate() {
        for (split, n) in [("train", 4), (val, 2)] {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let value = (80 * k + 10 * i + usize::from(split == val) * 5) as u8;
                let size = (30 + 7 * i as u32, 40 - 3 * k as u32);
                RgbImage::from_pixel(size.0, size.1, Rgb([value, 9, 9]))
                    .save(folder.join(format!("{i}.png")))
                    .unwrap();
            }
        }
    }
}

fn sized() -> OpenOptions<'static> {
    OpenOptions { image_size: Some(16), ..Default::default() }
}

#[test]
fn class_folders_are_read_on_demand() {
    for val in TEST {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), val);
        let data = open(&format!("imagefolder:{}", dir.path().display()), &sized()).unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.train.shape()), (12, 6, [3, 16, 16]));
        assert!(data.train.is_on_demand());
        assert_eq!(data.info.classes, ["n00000001", "n00000002", "n00000003"]);
        assert_eq!(
            (0..4)
                .map(|i| (data.train.label(i), data.train.image(i).unwrap()[0]))
                .collect::<Vec<_>>(),
            [(0, 80), (1, 0), (2, 160), (0, 90)]
        );
        assert_eq!(data.test.image(1).unwrap()[0], 5);
    }
}

#[test]
fn registered_sets_look_in_their_folder_and_count_classes() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { data_dir: Some(dir.path().into()), ..sized() };
    let message = |name: &str| open(name, &options).unwrap_err().to_string();
    assert!(
        message("imagenet100").contains("train/CLASS/*.JPEG (or train-*.parquet) is in none of")
    );
    make(&dir.path().join("imagenet100"), "val");
    assert!(message("imagenet100").contains("found 3 classes; expected 100"));
}

#[test]
fn unsorted_validation_images_are_told() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "val");
    fs::remove_dir_all(dir.path().join("val")).unwrap();
    fs::create_dir(dir.path().join("val")).unwrap();
    fs::copy(dir.path().join("train/n00000001/0.png"), dir.path().join("val/0.png")).unwrap();
    let error =
        open(&format!("imagefolder:{}", dir.path().display()), &sized()).unwrap_err().to_string();
    assert!(error.contains("val: found images outside class folders"), "{error}");
}

#[test]
fn batches_do_not_depend_on_workers_and_a_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "val");
    let name = format!("imagefolder:{}", dir.path().display());
    let data = open(&name, &sized()).unwrap();
    let augment: Augment = "resized-crop:0.2,flip".parse().unwrap();
    let batches = |workers, prefetch, start| -> Result<Vec<_>> {
        let options = LoaderOptions { workers, prefetch, ..LoaderOptions::train(5, 3, augment) };
        Loader::new(Arc::clone(&data.train), options)?.epoch(1, start).collect()
    };
    let want = batches(0, 0, 0).unwrap();
    assert_eq!(want.len(), 2);
    // The window is drawn in the picture, not in the image.
    assert!(
        want.iter()
            .flat_map(|b| &b.draws)
            .any(|d| d.window.is_some_and(|w| w.width > 16 || w.height > 16))
    );
    for (workers, prefetch) in [(1, 1), (3, 2), (0, 4)] {
        assert_eq!(batches(workers, prefetch, 0).unwrap(), want);
        assert_eq!(batches(workers, prefetch, 1).unwrap(), want[1..]);
    }
    for file in ["n00000001/1.png", "n00000002/3.png"] {
        fs::write(dir.path().join("train").join(file), b"broken").unwrap();
    }
    let errors: Vec<String> = [(0, 0), (3, 1), (2, 4)]
        .iter()
        .map(|&(w, p)| batches(w, p, 0).unwrap_err().to_string())
        .collect();
    assert!(errors[0].contains(".png: found no image format"), "{}", errors[0]);
    assert!(errors.iter().all(|e| *e == errors[0]), "{errors:?}");
    assert!(matches!(batches(2, 2, 0), Err(DataError::Bad { .. })));
}
