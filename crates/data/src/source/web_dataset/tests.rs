use std::fs;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::{Augment, Loader, LoaderOptions, OpenOptions, Share, open};

fn picture(shade: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = RgbImage::from_fn(10, 8, |x, _| Rgb([shade, x as u8 * 20, 0]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Names and contents of a tar file.
type Members = Vec<(String, Vec<u8>)>;

type Change = fn(&mut Members);

fn shard(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
}

/// A sample with its label in the image's red channel.
fn sample(key: &str, label: u8) -> Members {
    let (kind, format) = match label % 2 {
        0 => ("png", ImageFormat::Png),
        _ => ("JPG", ImageFormat::Jpeg),
    };
    vec![
        (format!("{key}.{kind}"), picture(60 * label, format)),
        (format!("{key}.json"), b"{}".to_vec()),
        (format!("{key}.cls"), format!("{label}\n").into_bytes()),
    ]
}

fn told(root: &Path) -> String {
    let options = OpenOptions { image_size: Some(8), cache: false, ..Default::default() };
    open(&format!("imagefolder:{}", root.display()), &options).unwrap_err().to_string()
}

#[test]
fn shards_are_one_set_with_every_image_at_its_label() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let plain = |range: std::ops::Range<u8>| {
        range.flat_map(|i| sample(&format!("b/{i:03}"), i % 3)).collect::<Vec<_>>()
    };
    shard(&at("train-000000.tar"), &plain(0..5));
    shard(&at("train-000001.tar"), &plain(5..9));
    shard(&at("val-000000.tar"), &plain(0..3));
    let options = OpenOptions { image_size: Some(8), cache: false, ..Default::default() };
    let set = open(&format!("imagefolder:{}", dir.path().display()), &options).unwrap();
    assert_eq!((set.train.len(), set.test.len(), set.train.num_classes()), (9, 3, 3));
    for i in 0..9 {
        assert_eq!(set.train.label(i), i as u32 % 3);
        let red = set.train.image(i).unwrap()[0];
        assert!(red.abs_diff(60 * (i as u8 % 3)) < 8, "image {i}: {red}");
    }
    let limited = OpenOptions { limit_train: Some(4), ..options.clone() };
    let some = open(&format!("imagefolder:{}", dir.path().display()), &limited).unwrap();
    assert_eq!((some.train.len(), some.train.label(3)), (4, 6 % 3));
    // Another image at the same place is another set.
    let before = set.train.identity().unwrap();
    let mut other = plain(0..5);
    other[0].1 = picture(5, ImageFormat::Png);
    shard(&at("train-000000.tar"), &other);
    let set = open(&format!("imagefolder:{}", dir.path().display()), &options).unwrap();
    assert!(set.train.identity().unwrap().difference(&before).is_some());
}

#[test]
fn ranks_read_the_batches_of_one_process_from_shards() {
    let dir = tempfile::tempdir().unwrap();
    for (number, range) in [(0, 0..5), (1, 5..12), (2, 12..21)] {
        let members: Members = range.flat_map(|i: u8| sample(&format!("{i:03}"), i % 4)).collect();
        shard(&dir.path().join(format!("train-{number:06}.tar")), &members);
    }
    shard(&dir.path().join("val-000000.tar"), &sample("0", 0));
    let options = OpenOptions { image_size: Some(8), cache: false, ..Default::default() };
    let set = open(&format!("imagefolder:{}", dir.path().display()), &options).unwrap();
    let epochs = |share: Share| {
        let options = LoaderOptions { share, ..LoaderOptions::train(8, 5, Augment::NONE) };
        let loader = Loader::new(set.train.clone(), options).unwrap();
        let of = |epoch| loader.epoch(epoch, 0).map(Result::unwrap).collect::<Vec<_>>();
        [of(0), of(1)].concat()
    };
    let whole = epochs(Share::ALL);
    assert_eq!(whole.len(), 4);
    assert_ne!(whole[0].ids, whole[2].ids, "another order in each epoch");
    for world in [2, 4, 8] {
        let parts: Vec<_> = (0..world).map(|rank| epochs(Share { rank, world })).collect();
        for (index, whole) in whole.iter().enumerate() {
            let ids: Vec<u32> = parts.iter().flat_map(|part| part[index].ids.clone()).collect();
            let images: Vec<f32> =
                parts.iter().flat_map(|part| part[index].images.clone()).collect();
            assert!(ids == whole.ids && images == whole.images, "{world} ranks, batch {index}");
        }
    }
}

#[test]
fn damaged_shards_are_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let train = dir.path().join("train-0.tar");
    shard(&dir.path().join("val-0.tar"), &sample("0", 0));
    let both = || [sample("0", 0), sample("1", 1)].concat();
    let changes: [(Change, &str); 6] = [
        (|m| drop(m.remove(2)), "0.cls"),
        (|m| drop(m.remove(0)), "0.jpg"),
        (|m| m[2].1 = b"dog".to_vec(), "'dog' in 0.cls"),
        (|m| m[2].1 = b"4294967295".to_vec(), "a label from 0 to"),
        (|m| m[5].0 = "0.cls".into(), "0.cls of 2 bytes"),
        (|m| m.retain(|(name, _)| name.ends_with("json")), "no sample"),
    ];
    for (change, part) in changes {
        let mut members = both();
        change(&mut members);
        shard(&train, &members);
        let text = told(dir.path());
        assert!(text.contains(part) && text.contains("train-0.tar"), "{part}: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
    let mut members = both();
    members[2].1 = b"99999".to_vec();
    shard(&train, &members);
    assert!(told(dir.path()).contains("100000 classes, as the largest label is 99999"));
    shard(&train, &both());
    let whole = fs::read(&train).unwrap();
    for cut in (0..whole.len() - 1).step_by(100) {
        fs::write(&train, &whole[..cut]).unwrap();
        assert!(told(dir.path()).contains("a whole tar file"), "{cut}");
    }
    fs::remove_file(dir.path().join("val-0.tar")).unwrap();
    fs::write(&train, &whole).unwrap();
    assert!(told(dir.path()).contains("val"));
    let options = OpenOptions { image_size: Some(8), needs_test: false, ..Default::default() };
    let set = open(&format!("imagefolder:{}", dir.path().display()), &options).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (2, 0));
}
