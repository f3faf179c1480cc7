//! Corruptions against `scripts/golden/corruptions.py`, which computes them with the libraries that
//! the published images were made with.

#![allow(clippy::panic, clippy::unwrap_used)]

use robustness::{
    Shape,
    corruption::{Corruption, Draws, PlanarImage, Severity},
};
use safetensors::SafeTensors;

const SHAPE: Shape = Shape { channels: 3, height: 32, width: 32, classes: 10 };

/// The generator that the script has too.
struct Congruential(u64);

impl Draws for Congruential {
    fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1u32 << 24)
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * (1.0 - a).ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    }
}

/// How far the bytes may be from the libraries': the share that differs, in percent, and by how much.
fn allowed(corruption: Corruption) -> (f64, u8) {
    match corruption {
        // Pillow's integer transforms against exact ones.
        Corruption::JpegCompression => (6.0, 4),
        // They are made in single precision.
        Corruption::ZoomBlur | Corruption::DefocusBlur => (0.6, 1),
        _ => (0.0, 0),
    }
}

#[test]
fn corruptions_are_those_of_the_published_images() {
    let path = format!("{}/tests/golden/corruptions.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let row: Vec<f32> =
        file.tensor("picture").unwrap().data().iter().map(|&v| f32::from(v) / 255.0).collect();
    let picture = PlanarImage::from_row(SHAPE, &row);
    let mut wrong = Vec::new();
    for (number, corruption) in Corruption::ALL.into_iter().enumerate() {
        for severity in Severity::ALL {
            let k = severity.number();
            let mut draws = Congruential(1000 * number as u64 + u64::from(k) - 1);
            let found = match corruption {
                // The script has no texture: noise stands for it on both sides.
                Corruption::Frost => {
                    let mut ice = picture.clone();
                    ice.values.iter_mut().for_each(|v| *v = draws.uniform());
                    picture.frosted(&ice, severity)
                }
                _ => corruption.apply(severity, &picture, &mut draws),
            };
            let name = format!("{corruption}-{k}");
            let want = file.tensor(&name).unwrap();
            let levels = found.values.iter().map(|v| (v * 255.0).round() as u8);
            let off: Vec<u8> =
                levels.zip(want.data()).map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
            let share = 100.0 * off.len() as f64 / want.data().len() as f64;
            let most = off.iter().copied().max().unwrap_or(0);
            let (share_allowed, most_allowed) = allowed(corruption);
            println!("{name}: {share:.2} % of the bytes differ, at most by {most}");
            if share > share_allowed || most > most_allowed {
                wrong.push(format!("{name}: {share:.2} % differ, by up to {most}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
