use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{GrayImage, ImageFormat, Rgb, RgbImage};

use super::*;

const RGB: Decoding = Decoding { channels: Channels::Rgb, orientation: Orientation::AsStored };

fn run(bytes: &[u8]) -> Result<Picture> {
    run_as(bytes, RGB)
}

fn run_as(bytes: &[u8], decoding: Decoding) -> Result<Picture> {
    decode(bytes, decoding, |found| DataError::bad("x", found, "an image", "repair it"))
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(20, 10, |x, y| Rgb([(10 * x) as u8, (20 * y) as u8, 7]))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], &body, &crc32fast::hash(&body).to_be_bytes()].concat()
}

/// A PNG of one bit a pixel, all black.
fn blank_png(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let mut data = ZlibEncoder::new(Vec::new(), Compression::best());
    let row = vec![0; 1 + width.div_ceil(8) as usize];
    (0..height).for_each(|_| data.write_all(&row).unwrap());
    let data = data.finish().unwrap();
    let parts = [chunk(b"IHDR", &header), chunk(b"IDAT", &data), chunk(b"IEND", b"")].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &parts].concat()
}

#[test]
fn what_lies_behind_a_jpeg_does_not_matter() {
    let alone = encoded(ImageFormat::Jpeg);
    let want = run(&alone).unwrap();
    for behind in [&[0u8; 9][..], b"\xff\xda", &alone, &alone[..alone.len() / 2], b"\xff\xd8\xff"] {
        assert_eq!(run(&[&alone[..], behind].concat()).unwrap(), want);
    }
    let cut = run(&alone[..alone.len() - 2]).unwrap_err().to_string();
    assert!(cut.contains("breaks off before its end marker"), "{cut}");
}

/// 16,384 x 16,384 pixels of one bit in 32 KB took 2.4 GB a thread.
#[test]
fn few_bytes_cannot_claim_much_memory() {
    let bomb = blank_png(16_384, 16_384);
    assert!(bomb.len() < 40_000, "{}", bomb.len());
    let error = run(&bomb).unwrap_err().to_string();
    assert!(error.contains("16384x16384 pixels in") && error.contains("MiB to decode"), "{error}");
    // A blank page of 4,000 x 4,000 pixels is accepted.
    let page = run(&blank_png(4000, 4000)).unwrap();
    assert_eq!((page.height(), page.width()), (4000, 4000));
    // A large picture is accepted when the file has the bytes for it.
    let noise = GrayImage::from_fn(5000, 5000, |x, y| {
        image::Luma([((x * 2_654_435_761u32) ^ (y * 40_503)).rotate_left(7) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    noise.write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(run(bytes.get_ref()).unwrap().width(), 5000);
}

#[test]
fn a_side_that_is_too_long_is_refused() {
    let error = run(&blank_png(20_000, 1)).unwrap_err().to_string();
    assert!(error.contains("cannot be decoded"), "{error}");
}

/// A JPEG with the tag Orientation (0x112) in its EXIF segment.
fn turned(orientation: u8) -> Vec<u8> {
    let tiff = [
        &b"MM\0*\0\0\0\x08\0\x01"[..],
        &[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0],
        &[0, 0, 0, 0],
    ]
    .concat();
    let exif = [&b"Exif\0\0"[..], &tiff].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let plain = encoded(ImageFormat::Jpeg);
    [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat()
}

#[test]
fn orientation_is_applied_when_asked_for() {
    let exif = Decoding { orientation: Orientation::Exif, ..RGB };
    let plain = run(&encoded(ImageFormat::Jpeg)).unwrap();
    // Tag 6: the file's rows are the picture's columns, from right to left.
    for (tag, rows, columns) in [(1, 10, 20), (3, 10, 20), (6, 20, 10), (8, 20, 10)] {
        assert_eq!(run(&turned(tag)).unwrap(), plain, "not by default");
        let picture = run_as(&turned(tag), exif).unwrap();
        assert_eq!((picture.height(), picture.width()), (rows, columns));
    }
    let pixel =
        |p: &Picture, y: usize, x: usize| p.pixels()[(y * p.width() + x) * 3..][..3].to_vec();
    let quarter = run_as(&turned(6), exif).unwrap();
    let half = run_as(&turned(3), exif).unwrap();
    for (y, x) in [(0, 0), (3, 15), (9, 2)] {
        assert_eq!(pixel(&quarter, x, 9 - y), pixel(&plain, y, x));
        assert_eq!(pixel(&half, 9 - y, 19 - x), pixel(&plain, y, x));
    }
    // A file without the tag, and one whose tag has no meaning, are not turned.
    assert_eq!(run_as(&encoded(ImageFormat::Jpeg), exif).unwrap(), plain);
    assert_eq!(run_as(&turned(99), exif).unwrap(), plain);
}

#[test]
fn another_format_is_named() {
    for (bytes, wanted) in [
        (&b"GIF89a\x01\0\x01\0"[..], "an image in Gif format"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "an image in WebP format"),
        (b"nothing", "no image format that is known"),
        (b"", "no image format that is known"),
    ] {
        let error = run(bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
