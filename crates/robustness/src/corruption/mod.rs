//! Common corruptions in the manner of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv 1903.12261):
//! the 15 published ones at severities 1 to 5, made as they are asked for, for images of any size.
//!
//! Constants are those of CIFAR-10-C, which are meant for 32x32 pixels. At other sizes, lengths in
//! pixels (radii and spreads of blurs, shifts of pixels) grow with the shorter side over 32, so that
//! a severity means the same to the eye; what is relative to the image (zoom, pixelation, elastic
//! shifts) or has no length (noise, colours, JPEG quality) stays. An image of one channel is treated
//! as grey, one of another number than 3 as that many grey ones.
//!
//! As in the published files, an image begins and ends as eight bits a value; the end is truncated,
//! not rounded. Draws are a function of seed, corruption, severity and the image's id alone.
//!
//! Departures: the published frost is one of five photographs, which are not part of this library:
//! here a drawn texture of the same brightness and spread takes their place.

mod blur;
mod digital;
mod draws;
mod frost;
mod jpeg;
mod motion;
mod noise;
mod picture;
mod plasma;
mod weather;

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

pub use draws::{Draws, Seeded};
pub use picture::PlanarImage;

use crate::{
    classifier::Shape,
    error::{Error, Result},
};

/// A corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Corruption {
    /// Normal noise on every value.
    GaussianNoise,
    /// Poisson noise, as of few photons.
    ShotNoise,
    /// Values set to black or white.
    ImpulseNoise,
    /// A lens out of focus.
    DefocusBlur,
    /// Neighbouring pixels exchanged, as behind frosted glass.
    GlassBlur,
    /// A moving camera.
    MotionBlur,
    /// A camera that moves towards the object.
    ZoomBlur,
    /// Falling snow.
    Snow,
    /// Ice on the lens.
    Frost,
    /// Fog of a random height map.
    Fog,
    /// More light.
    Brightness,
    /// Less contrast.
    Contrast,
    /// Small regions stretched or contracted.
    ElasticTransform,
    /// Larger pixels.
    Pixelate,
    /// JPEG compression.
    JpegCompression,
}

/// The four kinds of corruptions in the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Gaussian, shot and impulse noise.
    Noise,
    /// Defocus, glass, motion and zoom.
    Blur,
    /// Snow, frost, fog and brightness.
    Weather,
    /// Contrast, elastic transforms, pixelation, JPEG.
    Digital,
}

impl Family {
    /// All of them, in the order of the paper.
    pub const ALL: [Self; 4] = [Self::Noise, Self::Blur, Self::Weather, Self::Digital];

    /// The name in lists and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Weather => "weather",
            Self::Digital => "digital",
        }
    }
}

/// How strong a corruption is, from 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(u8);

impl Severity {
    /// All of them, weak first.
    pub const ALL: [Self; 5] = [Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// The number, from 1.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The value for this severity of a list of five.
    fn of<T: Copy>(self, values: [T; 5]) -> T {
        values[usize::from(self.0 - 1)]
    }
}

impl Corruption {
    /// All of them, in the order of the paper.
    pub const ALL: [Self; 15] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// The name of the published file, with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian-noise",
            Self::ShotNoise => "shot-noise",
            Self::ImpulseNoise => "impulse-noise",
            Self::DefocusBlur => "defocus-blur",
            Self::GlassBlur => "glass-blur",
            Self::MotionBlur => "motion-blur",
            Self::ZoomBlur => "zoom-blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic-transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg-compression",
        }
    }

    /// Its kind.
    pub fn family(self) -> Family {
        match self {
            Self::GaussianNoise | Self::ShotNoise | Self::ImpulseNoise => Family::Noise,
            Self::DefocusBlur | Self::GlassBlur | Self::MotionBlur | Self::ZoomBlur => Family::Blur,
            Self::Snow | Self::Frost | Self::Fog | Self::Brightness => Family::Weather,
            Self::Contrast | Self::ElasticTransform | Self::Pixelate | Self::JpegCompression => {
                Family::Digital
            }
        }
    }

    /// Reads `all`, or a list of names of corruptions and families; each corruption once, in the
    /// order of the paper.
    ///
    /// # Errors
    /// A name that is none, or no name at all.
    pub fn list<S: AsRef<str>>(names: &[S]) -> Result<Vec<Self>> {
        let mut wanted = [false; Self::ALL.len()];
        for name in names.iter().map(|name| name.as_ref().trim()) {
            let mut found = false;
            for (wanted, corruption) in wanted.iter_mut().zip(Self::ALL) {
                if [corruption.name(), corruption.family().name(), "all"].contains(&name) {
                    (*wanted, found) = (true, true);
                }
            }
            if !found {
                return Err(Error::UnknownCorruption(name.to_owned()));
            }
        }
        let list: Vec<_> = Self::ALL
            .into_iter()
            .zip(wanted)
            .filter_map(|(c, wanted)| wanted.then_some(c))
            .collect();
        if list.is_empty() { Err(Error::UnknownCorruption(String::new())) } else { Ok(list) }
    }

    /// What is made of `picture`; the random numbers come from `draws`.
    pub fn apply(
        self,
        severity: Severity,
        picture: &PlanarImage,
        draws: &mut dyn Draws,
    ) -> PlanarImage {
        let mut out = picture.clone();
        let x = &mut out;
        match self {
            Self::GaussianNoise => noise::gaussian(x, severity, draws),
            Self::ShotNoise => noise::shot(x, severity, draws),
            Self::ImpulseNoise => noise::impulse(x, severity, draws),
            Self::DefocusBlur => blur::defocus(x, severity),
            Self::GlassBlur => blur::glass(x, severity, draws),
            Self::MotionBlur => blur::motion(x, severity, draws),
            Self::ZoomBlur => blur::zoom(x, severity),
            Self::Snow => weather::snow(x, severity, draws),
            Self::Frost => weather::frost(x, severity, draws),
            Self::Fog => weather::fog(x, severity, draws),
            Self::Brightness => weather::brightness(x, severity),
            Self::Contrast => digital::contrast(x, severity),
            Self::ElasticTransform => digital::elastic(x, severity, draws),
            Self::Pixelate => digital::pixelate(x, severity),
            Self::JpegCompression => jpeg::compress(x, severity),
        }
        x.truncate();
        out
    }

    /// `row`, the pixels of an image of `shape` in [0, 1], corrupted, with the draws of `seed` and
    /// `id`.
    pub fn of_row(
        self,
        severity: Severity,
        shape: Shape,
        row: &[f32],
        seed: u64,
        id: u32,
    ) -> Vec<f32> {
        let mut draws = Seeded::new(seed, self, severity, id);
        self.apply(severity, &PlanarImage::from_row(shape, row), &mut draws).to_row()
    }
}

impl PlanarImage {
    /// This image behind `ice`, an image of the same shape, as the published frost is blended.
    #[must_use]
    pub fn frosted(&self, ice: &Self, severity: Severity) -> Self {
        let mut out = self.clone();
        weather::blend(&mut out, ice, severity);
        out.truncate();
        out
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Corruption {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|corruption| corruption.name() == name);
        found.ok_or_else(|| Error::UnknownCorruption(name.to_owned()))
    }
}

impl Serialize for Corruption {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_each_corruption_once_in_the_papers_order() {
        assert_eq!(Corruption::list(&["all"]).unwrap(), Corruption::ALL);
        let some = Corruption::list(&["fog", "noise", "shot-noise"]).unwrap();
        let want = [
            Corruption::GaussianNoise,
            Corruption::ShotNoise,
            Corruption::ImpulseNoise,
            Corruption::Fog,
        ];
        assert_eq!(some, want);
        for wrong in ["", "frogs", "gaussian_noise"] {
            let error = Corruption::list(&[wrong]).unwrap_err();
            assert!(error.is_input() && error.to_string().contains("gaussian-noise"), "{error}");
        }
        assert!(Corruption::list::<&str>(&[]).is_err());
        for corruption in Corruption::ALL {
            assert_eq!(corruption.name().parse::<Corruption>().unwrap(), corruption);
        }
    }

    #[test]
    fn every_corruption_takes_every_size_and_is_a_function_of_seed_and_image() {
        for [channels, height, width] in
            [[3, 32, 32], [1, 28, 28], [3, 1, 1], [3, 7, 20], [4, 2, 3], [3, 64, 48]]
        {
            let shape = Shape { channels, height, width, classes: 2 };
            let row: Vec<f32> = (0..shape.pixels())
                .map(|i| ((i * 37 + i / width * 11) % 256) as f32 / 255.0)
                .collect();
            for corruption in Corruption::ALL {
                for severity in Severity::ALL {
                    let of = |seed, id| corruption.of_row(severity, shape, &row, seed, id);
                    let found = of(0, 5);
                    assert_eq!(found, of(0, 5), "{corruption}");
                    let levels = |v: &f32| (v * 255.0 - (v * 255.0).round()).abs() < 1e-3;
                    assert!(
                        found.len() == row.len()
                            && found.iter().all(|v| (0.0..=1.0).contains(v) && levels(v)),
                        "{corruption} {severity:?} {shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn noise_depends_on_seed_image_and_severity() {
        let shape = Shape { channels: 3, height: 8, width: 8, classes: 2 };
        let row = vec![0.5; shape.pixels()];
        let of = |seed, id, k: usize| {
            Corruption::GaussianNoise.of_row(Severity::ALL[k], shape, &row, seed, id)
        };
        assert!(of(0, 1, 0) != of(0, 2, 0) && of(0, 1, 0) != of(1, 1, 0));
    }
}
