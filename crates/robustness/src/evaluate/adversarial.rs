//! Adversarial examples as files: an npz archive for PyTorch and NumPy, and a grid of images for
//! the eye.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use image::{ImageFormat, Rgb, RgbImage};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Evaluator, evaluator::CLEAN};
use crate::{
    attack::Entry,
    classifier::{Classifier, Shape, predicted},
    error::{Error, Result},
    files::NewFile,
    rows::Rows,
    threat::{Norm, Threat},
};

/// Columns of the grid.
const COLUMNS: usize = 8;
/// Smallest side of an image in the grid, in pixels.
const SIDE: usize = 96;
const GAP: usize = 4;

/// Files that were written.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The archive.
    pub npz: PathBuf,
    /// The grid; `None` if no image fell.
    pub png: Option<PathBuf>,
}

impl<'a> Evaluator<'a> {
    /// Lets [`save`](Self::save) write down the classes that `network` predicts. The classifier under
    /// attack may be another view of it, such as [`Toward`](crate::Toward), which has two classes.
    #[must_use]
    pub fn predict_by(self, network: &'a dyn Classifier) -> Self {
        Self { predicts: Some(network), ..self }
    }

    /// Writes the adversarial examples of `entry` to `STEM.npz` and a grid of the first of them to
    /// `STEM.png`. The ledger must have been opened to keep them, and [`run`](Self::run) must have
    /// been called with `entry`.
    ///
    /// The archive holds, for all images in order: `x` and `x_adv` `[N, C, H, W]` f32 in [0, 1]
    /// (`x_adv` equals `x` where no example was found), `y` and `pred` `[N]` i64 (the class of the
    /// image, and that which the network, or [`predict_by`](Self::predict_by)'s, predicts for
    /// `x_adv`), `fallen` `[N]` bool, `id` `[N]` i64 (position in the split). The accuracy on `x_adv`
    /// is the reported one; of attacks [towards a class](crate::Toward) that is the share of
    /// predictions that are not this class. The grid's rows: the image, the change (grey is none,
    /// full colour is epsilon in l-inf, the largest change in l2), the example.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read or written.
    pub fn save(&mut self, entry: &Entry, stem: &Path) -> Result<Saved> {
        let Shape { channels, height, width, .. } = self.model.shape();
        let npz = with_suffix(stem, "npz");
        let cannot = |e: io::Error| Error::io("write", &npz)(e);
        let file = NewFile::create(&npz).map_err(cannot)?;
        let mut archive = Archive::new(file.writer().map_err(cannot)?);
        let n = self.samples.len();
        let dims = [n, channels, height, width];
        let all: Vec<usize> = (0..n).collect();
        let batch = self.config.batch.max(1);

        archive.begin("x", "<f4", &dims).map_err(cannot)?;
        for chunk in all.chunks(batch) {
            archive.floats(&self.pixels(chunk)?).map_err(cannot)?;
        }
        archive.begin("x_adv", "<f4", &dims).map_err(cannot)?;
        let mut found = Found::default();
        for chunk in all.chunks(batch) {
            let x_adv = self.examples(entry, chunk, &mut found)?;
            archive.floats(&x_adv).map_err(cannot)?;
        }
        let ids: Vec<i64> = all.iter().map(|&i| i64::from(self.id(i))).collect();
        archive
            .integers("y", &found.labels)
            .and_then(|()| archive.integers("pred", &found.predictions))
            .and_then(|()| archive.integers("id", &ids))
            .and_then(|()| archive.begin("fallen", "|b1", &[n]))
            .and_then(|()| archive.zip.write_all(&found.fallen))
            .and_then(|()| archive.finish())
            .and_then(|()| file.keep())
            .map_err(cannot)?;

        let png = (!found.grid.is_empty()).then(|| with_suffix(stem, "png"));
        if let Some(png) = &png {
            let picture = draw(&found.grid, [channels, height, width], self.config.threat);
            save_picture(&picture, png).map_err(Error::io("write", png))?;
        }
        Ok(Saved { npz, png })
    }

    /// The images `chunk`, with the adversarial example in place of each image that fell under
    /// `entry`.
    fn examples(&mut self, entry: &Entry, chunk: &[usize], found: &mut Found) -> Result<Rows> {
        let x = self.pixels(chunk)?;
        let mut x_adv = x.clone();
        for (k, &i) in chunk.iter().enumerate() {
            if let Some(example) = self.example(entry, i)? {
                x_adv.row_mut(k).copy_from_slice(&example);
                if found.grid.len() < COLUMNS {
                    found.grid.push((x.row(k).to_vec(), example));
                }
                found.fallen.push(1);
            } else {
                found.fallen.push(u8::from(!self.ledger.survived(CLEAN, self.id(i), 1)));
            }
        }
        let network = self.predicts.unwrap_or(self.model);
        let logits = Rows::new(network.logits(&x_adv)?, network.shape().classes);
        for (k, &i) in chunk.iter().enumerate() {
            found.labels.push(self.samples.class(i) as i64);
            found.predictions.push(predicted(logits.row(k)) as i64);
        }
        Ok(x_adv)
    }

    /// The adversarial example that broke image `i` under `entry`, from the first attack that did.
    fn example(&mut self, entry: &Entry, i: usize) -> Result<Option<Vec<f32>>> {
        let (id, classes) = (self.id(i), self.model.shape().classes);
        for part in &entry.parts {
            if let Some(example) =
                self.ledger.example(&part.key, id, part.attack.rounds(classes))?
            {
                return Ok(Some(example));
            }
        }
        Ok(None)
    }
}

/// The saved values of each image.
#[derive(Default)]
struct Found {
    labels: Vec<i64>,
    predictions: Vec<i64>,
    fallen: Vec<u8>,
    /// The first pairs of an image and its adversarial example.
    grid: Vec<(Vec<f32>, Vec<f32>)>,
}

/// `stem.suffix`, without taking a dot in the stem for the start of an extension.
fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// An npz archive being written: stored npy files, one after another.
struct Archive {
    zip: ZipWriter<BufWriter<File>>,
}

impl Archive {
    fn new(file: File) -> Self {
        Self { zip: ZipWriter::new(BufWriter::new(file)) }
    }

    /// Starts the array `name`: numpy's format 1.0, row-major.
    fn begin(&mut self, name: &str, dtype: &str, dims: &[usize]) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(true);
        self.zip.start_file(format!("{name}.npy"), options)?;
        let dims: Vec<_> = dims.iter().map(usize::to_string).collect();
        let tuple = if dims.len() == 1 {
            format!("({},)", dims[0])
        } else {
            format!("({})", dims.join(", "))
        };
        let mut header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple}, }}");
        let padding = 63 - (10 + header.len()) % 64;
        header += &" ".repeat(padding);
        header.push('\n');
        self.zip.write_all(b"\x93NUMPY\x01\x00")?;
        self.zip.write_all(&(header.len() as u16).to_le_bytes())?;
        self.zip.write_all(header.as_bytes())
    }

    fn floats(&mut self, values: &[f32]) -> io::Result<()> {
        self.zip.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> io::Result<()> {
        self.begin(name, "<i8", &[values.len()])?;
        self.zip.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    fn finish(self) -> io::Result<()> {
        self.zip.finish()?.flush()
    }
}

/// Writes `picture` to `path`, completely or not at all.
fn save_picture(picture: &RgbImage, path: &Path) -> io::Result<()> {
    let file = NewFile::create(path)?;
    let mut writer = BufWriter::new(file.writer()?);
    picture.write_to(&mut writer, ImageFormat::Png).map_err(io::Error::other)?;
    writer.flush()?;
    file.keep()
}

/// Three rows of images: clean, change, adversarial.
fn draw(
    pairs: &[(Vec<f32>, Vec<f32>)],
    [channels, height, width]: [usize; 3],
    threat: Threat,
) -> RgbImage {
    let zoom = SIDE.div_ceil(height.max(width)).max(1);
    let (cell_width, cell_height) = (width * zoom + GAP, height * zoom + GAP);
    let mut picture = RgbImage::from_pixel(
        (pairs.len() * cell_width + GAP) as u32,
        (3 * cell_height + GAP) as u32,
        Rgb([255; 3]),
    );
    for (column, (x, example)) in pairs.iter().enumerate() {
        let largest = match threat.norm {
            Norm::Linf => threat.epsilon,
            Norm::L2 | Norm::L1 => {
                x.iter().zip(example).fold(0f32, |most, (a, b)| most.max((a - b).abs()))
            }
        };
        let change: Vec<f32> = x
            .iter()
            .zip(example)
            .map(|(a, b)| 0.5 + (b - a) / (2.0 * largest.max(f32::MIN_POSITIVE)))
            .collect();
        for (row, values) in [x, &change, example].into_iter().enumerate() {
            for r in 0..height * zoom {
                for c in 0..width * zoom {
                    // One channel is grey; of more than three the first three are shown.
                    let at = |channel: usize| {
                        let value = values
                            [(channel.min(channels - 1) * height + r / zoom) * width + c / zoom];
                        (value.clamp(0.0, 1.0) * 255.0).round() as u8
                    };
                    let (px, py) = (column * cell_width + GAP + c, row * cell_height + GAP + r);
                    picture.put_pixel(px as u32, py as u32, Rgb([at(0), at(1), at(2)]));
                }
            }
        }
    }
    picture
}
