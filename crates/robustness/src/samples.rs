//! Labelled images to evaluate on.

use std::fmt::Debug;

use crate::{
    classifier::Shape,
    error::{Error, Result},
    identity::{DataIdentity, Images},
    rows::Rows,
};

/// Number of images that are read at a time for their hash.
const HASHED: usize = 256;

/// Labelled images. Implement this trait for a data set of your own; [`InMemory`] holds rows of
/// pixels.
pub trait Samples: Debug + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the images, and number of classes of the labels.
    fn shape(&self) -> Shape;

    /// Class of the image at `position`, which is below [`len`](Self::len).
    fn label(&self, position: usize) -> usize;

    /// Class of the image at `position` in reports and archives. It is the
    /// [`label`](Self::label), except where a label says something else of the image, as that of
    /// [`NotOf`](crate::NotOf) does.
    fn class(&self, position: usize) -> usize {
        self.label(position)
    }

    /// Number of classes in reports, see [`class`](Self::class).
    fn classes(&self) -> usize {
        self.shape().classes
    }

    /// A number that identifies the image at `position`, whichever part of a set is taken. Random
    /// draws are keyed by it.
    fn id(&self, position: usize) -> u32 {
        position as u32
    }

    /// A hash over every image and every label in their order. Equal hashes mean equal images and
    /// labels.
    ///
    /// # Errors
    /// [`Error::Samples`] when an image cannot be read.
    fn sha256(&self) -> Result<String> {
        let positions: Vec<usize> = (0..self.len()).collect();
        let mut images = Images::default();
        for chunk in positions.chunks(HASHED) {
            let pixels = self.pixels(chunk)?;
            for (&position, row) in chunk.iter().zip(pixels.chunks(self.shape().pixels().max(1))) {
                images.add(self.label(position), row);
            }
        }
        Ok(images.finish())
    }

    /// Class names in the order of the labels; empty where the classes have no names.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// The [`Identity`](crate::Identity)'s description of these images, as the `split` of the set
    /// `name`.
    ///
    /// # Errors
    /// [`Error::Samples`] when an image cannot be read.
    fn identity(&self, name: &str, split: &str) -> Result<DataIdentity> {
        Ok(DataIdentity {
            name: name.into(),
            split: split.into(),
            sha256: self.sha256()?,
            images: self.len(),
            classes: self.class_names().to_vec(),
        })
    }

    /// Rows of channels x height x width pixels in [0, 1], one for each of `positions`.
    ///
    /// # Errors
    /// [`Error::Samples`] when an image cannot be read.
    fn pixels(&self, positions: &[usize]) -> Result<Vec<f32>>;
}

/// Labelled images in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    shape: Shape,
    pixels: Rows,
    labels: Vec<usize>,
}

impl InMemory {
    /// Holds `pixels`, one row of channels x height x width values in [0, 1] for each of `labels`.
    ///
    /// # Errors
    /// [`Error`] for rows that do not fill `shape`, a value outside [0, 1], or a label that is not
    /// a class.
    pub fn new(shape: Shape, pixels: Vec<f32>, labels: Vec<usize>) -> Result<Self> {
        let expected = labels.len() * shape.pixels();
        if pixels.len() != expected {
            return Err(Error::Length { what: "pixels".into(), found: pixels.len(), expected });
        }
        if let Some(value) = pixels.iter().find(|v| !(0.0..=1.0).contains(*v)) {
            return Err(Error::samples(format!("a pixel of {value}: expected 0 to 1")));
        }
        if let Some(label) = labels.iter().find(|label| **label >= shape.classes) {
            let classes = shape.classes;
            return Err(Error::samples(format!("a label of {label}: there are {classes} classes")));
        }
        Ok(Self { shape, pixels: Rows::new(pixels, shape.pixels()), labels })
    }
}

impl Samples for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn label(&self, position: usize) -> usize {
        self.labels[position]
    }

    fn pixels(&self, positions: &[usize]) -> Result<Vec<f32>> {
        Ok(self.pixels.select(positions).into_values())
    }
}
