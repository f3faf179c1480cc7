//! Against torchvision's results on the same draws (`tests/make_fixtures.py` made
//! `tests/fixtures/augment.txt`).

use super::AugmentDraw;
use crate::picture::{Fit, Picture, Placement, planes, resize};
use crate::window::CropWindow;

const CASES: &str = include_str!("../../tests/fixtures/augment.txt");

/// The image of the script: see `picture` there.
fn picture(height: usize, width: usize) -> Picture {
    let value = |y: usize, x: usize, c: usize| {
        (7 * y * y + 13 * x * (c + 1) + 31 * ((x / 5 + y / 3) % 2) * (c + 2)) as u8
    };
    let pixels = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(y, x, c))))
        .collect();
    Picture::new(height, width, 3, pixels).unwrap()
}

/// Name, draws and results of each case.
fn cases() -> impl Iterator<Item = (&'static str, Vec<f32>, Vec<f32>)> {
    CASES.lines().map(|line| {
        let (case, results) = line.split_once(" : ").unwrap();
        let (name, draws) = case.split_once(' ').unwrap();
        let numbers = |text: &str| text.split(' ').map(|n| n.parse().unwrap()).collect();
        (name, numbers(draws), numbers(results))
    })
}

/// CRC-32 of the results of the bytes cases, which `f32` cannot hold.
fn checksum(draws: &[f32], name: &str) -> u32 {
    let head = format!(
        "{name} {} : ",
        draws.iter().map(|d| (*d as usize).to_string()).collect::<Vec<_>>().join(" ")
    );
    let line = CASES.lines().find_map(|line| line.strip_prefix(&head)).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

fn check_bytes(found: &[u8], draws: &[f32], name: &str, size: usize, wanted: &[f32]) {
    let first: Vec<f32> =
        [0, 1].iter().flat_map(|y| &found[y * size * 3..][..12]).map(|&v| f32::from(v)).collect();
    assert_eq!(first, wanted[1..], "{name} {draws:?}");
    assert_eq!(crc32fast::hash(found), checksum(draws, name), "{name} {draws:?}");
}

fn check_values(draw: &AugmentDraw, wanted: &[f32], name: &str) {
    let mut out = vec![0.0; 3 * 14 * 14];
    draw.render(&planes(picture(14, 14).pixels(), 3), &mut out, [3, 14, 14]);
    let found: Vec<f32> = out.into_iter().step_by(11).collect();
    assert_eq!(found.len(), wanted.len());
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        // torchvision computes angles and sampling places in f32.
        assert!((a - b).abs() < 2e-5, "{name} {draw:?}: value {i} is {a}, torchvision's {b}");
    }
}

#[test]
fn the_same_numbers_as_torchvision() {
    let mut seen = 0;
    for (name, draws, wanted) in cases() {
        let d: Vec<usize> = draws.iter().map(|v| v.max(0.0) as usize).collect();
        let window = |at: usize| CropWindow {
            top: d[at],
            left: d[at + 1],
            height: d[at + 2],
            width: d[at + 3],
        };
        let id = AugmentDraw::IDENTITY;
        match name {
            "fit" => {
                let found = Fit::ShortSide(d[2])
                    .interleaved(&picture(d[0], d[1]), [3, d[3], d[3]])
                    .unwrap();
                check_bytes(&found, &draws, name, d[3], &wanted);
            }
            "window" => {
                let found =
                    resize(&picture(d[0], d[1]), &Placement::whole(window(2), [d[6], d[6]]));
                check_bytes(&found, &draws, name, d[6], &wanted);
            }
            "crop" => check_values(
                &AugmentDraw {
                    dy: draws[0] as i32,
                    dx: draws[1] as i32,
                    flip: draws[2] > 0.0,
                    ..id
                },
                &wanted,
                name,
            ),
            "inner" => check_values(
                &AugmentDraw { window: Some(window(0)), flip: draws[4] > 0.0, ..id },
                &wanted,
                name,
            ),
            "rotate" => check_values(&AugmentDraw { angle: draws[0], ..id }, &wanted, name),
            "cutout" => check_values(&AugmentDraw { cutout: Some(window(0)), ..id }, &wanted, name),
            other => panic!("unknown case {other}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 26);
}

/// A picture is rendered as its window resized, flipped and blackened.
#[test]
fn a_picture_is_rendered_as_drawn() {
    let picture = picture(30, 22);
    let window = CropWindow { top: 3, left: 2, height: 20, width: 18 };
    let hole = CropWindow { top: 1, left: 0, height: 2, width: 3 };
    let draw = AugmentDraw {
        window: Some(window),
        flip: true,
        cutout: Some(hole),
        ..AugmentDraw::IDENTITY
    };
    let mut out = vec![0.0; 3 * 8 * 8];
    draw.render_picture(&picture, &mut out, [3, 8, 8]).unwrap();
    let plain = resize(&picture, &Placement::whole(window, [8, 8]));
    for (at, value) in out.iter().enumerate() {
        let (c, y, x) = (at / 64, at / 8 % 8, at % 8);
        let want = if (1..3).contains(&y) && x < 3 {
            0.0
        } else {
            f32::from(plain[(y * 8 + 7 - x) * 3 + c]) / 255.0
        };
        assert_eq!(*value, want);
    }
}
