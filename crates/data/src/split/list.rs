//! A list of images with labels, in memory or decoded on demand, and the ways to take parts of it.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sora_rng::Stream;

use crate::augment::{Augment, AugmentDraw};
use crate::error::{DataError, Result};
use crate::picture::{Fit, Picture, Pictures};

/// A list of images with labels: a view into shared storage, cheap to take parts of.
#[derive(Clone, Debug)]
pub struct Split {
    pub(super) store: Arc<Store>,
    /// Positions in the store, in the split's order; they are the samples' ids.
    ids: Vec<u32>,
    /// Number of classes.
    classes: usize,
    /// Class names in label order; empty where there are none.
    names: Arc<[String]>,
    /// The class of each label of the store, where it is another.
    renumbered: Option<Arc<[u32]>>,
}

/// The digests of a store's images; each is computed on its first request.
type Digests = OnceLock<Box<[OnceLock<[u8; 32]>]>>;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) images: Images,
    pub(super) labels: Vec<u32>,
    pub(super) shape: [usize; 3],
    pub(super) digests: Digests,
}

#[derive(Debug)]
pub(super) enum Images {
    /// Bytes `[N, C, H, W]`.
    Memory(Vec<u8>),
    /// Pictures that are decoded at every request and fitted to the split's shape.
    OnDemand { pictures: Arc<dyn Pictures>, fit: Fit },
}

impl Split {
    /// A split of all the given images.
    ///
    /// # Shapes
    /// `images`: `[N, C, H, W]` bytes, 0..=255; `labels`: N class indices; `shape`: `[C, H, W]`.
    ///
    /// # Errors
    /// [`DataError::Value`] when the lengths do not fit together, a dimension is 0, a label is not
    /// below `classes`, or there are more than 2^32 - 1 images.
    pub fn new(
        images: Vec<u8>,
        labels: Vec<u32>,
        shape: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        let pixels = pixels_of(shape)?;
        if labels.len().checked_mul(pixels) != Some(images.len()) {
            return Err(DataError::value(
                "image bytes",
                images.len(),
                format!("{} images of {pixels} bytes", labels.len()),
            ));
        }
        Self::over(Images::Memory(images), labels, shape, classes)
    }

    /// A split of images that are decoded at every request and brought to `shape` by `fit`.
    ///
    /// Picture `i` has the class `labels[i]`; `shape`: `[C, H, W]`.
    ///
    /// # Errors
    /// [`DataError::Value`] in the cases of [`Split::new`].
    pub fn on_demand(
        pictures: Arc<dyn Pictures>,
        fit: Fit,
        labels: Vec<u32>,
        shape: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        pixels_of(shape)?;
        fit.check(shape)?;
        Self::over(Images::OnDemand { pictures, fit }, labels, shape, classes)
    }

    fn over(images: Images, labels: Vec<u32>, shape: [usize; 3], classes: usize) -> Result<Self> {
        let n = u32::try_from(labels.len()).map_err(|_| {
            DataError::value("number of images", labels.len(), "at most 4294967295")
        })?;
        if let Some((i, label)) = labels.iter().enumerate().find(|(_, l)| **l as usize >= classes) {
            return Err(DataError::value(
                format!("label of image {i}"),
                label,
                format!("below {classes}"),
            ));
        }
        Ok(Self {
            store: Arc::new(Store { images, labels, shape, digests: Digests::new() }),
            ids: (0..n).collect(),
            classes,
            names: Arc::new([]),
            renumbered: None,
        })
    }

    /// The same split under these class names, in label order.
    ///
    /// # Errors
    /// [`DataError::Value`] when their number differs from the number of classes.
    pub fn with_class_names(self, names: Vec<String>) -> Result<Self> {
        if names.len() != self.num_classes() && !names.is_empty() {
            return Err(DataError::value(
                "number of class names",
                names.len(),
                format!("{}, one for each class", self.num_classes()),
            ));
        }
        Ok(Self { names: names.into(), ..self })
    }

    /// The same images, with the labels that a set of the classes `names` gives them: a class is
    /// found by its name. Classes of `names` that no image has are allowed.
    ///
    /// # Errors
    /// [`DataError::Value`] for a class of this split that `names` lacks, or for classes without
    /// names.
    pub fn in_classes(self, names: &[String]) -> Result<Self> {
        if self.names.is_empty() {
            return Err(DataError::value("classes", "without names", "names to find them by"));
        }
        let label_of = |name: &String| match names.iter().position(|known| known == name) {
            Some(label) => Ok(label as u32),
            None => {
                let expected = format!("one of {}", names.join(", "));
                Err(DataError::value("class", format!("'{name}'"), expected))
            }
        };
        let now = self.names.iter().map(label_of).collect::<Result<Vec<u32>>>()?;
        let renumbered = match &self.renumbered {
            None => now,
            Some(before) => before.iter().map(|&label| now[label as usize]).collect(),
        };
        let renumbered = Some(renumbered.into());
        Ok(Self { classes: names.len(), names: names.into(), renumbered, ..self })
    }

    /// Whether images are decoded at every request.
    pub fn is_on_demand(&self) -> bool {
        matches!(self.store.images, Images::OnDemand { .. })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the split has no images.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Shape `[C, H, W]` of an image.
    pub fn shape(&self) -> [usize; 3] {
        self.store.shape
    }

    /// Number of classes of the data set, which may exceed the number of classes in this split.
    pub fn num_classes(&self) -> usize {
        self.classes
    }

    /// Names of the classes in label order; empty for a split that has none.
    pub fn class_names(&self) -> &[String] {
        &self.names
    }

    /// The bytes of image `i`, `[C, H, W]`, 0..=255.
    ///
    /// # Errors
    /// For images decoded on demand: [`DataError::Bad`] or [`DataError::Io`] of the file.
    ///
    /// # Panics
    /// If `i` is not below [`Split::len`].
    pub fn image(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        let id = self.ids[i] as usize;
        match &self.store.images {
            Images::Memory(bytes) => {
                let pixels = self.pixels();
                Ok(Cow::Borrowed(&bytes[id * pixels..][..pixels]))
            }
            Images::OnDemand { pictures, fit } => {
                Ok(Cow::Owned(fit.apply(&pictures.picture(id)?, self.shape())?))
            }
        }
    }

    /// The images at these positions as `f32` in \[0, 1\], `[indices.len(), C, H, W]`. Images are
    /// decoded in parallel.
    ///
    /// # Errors
    /// Those of [`Split::image`]; of several errors, the first in order.
    ///
    /// # Panics
    /// If an index is not below [`Split::len`].
    pub fn unit_pixels(&self, indices: &[usize]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; indices.len() * self.pixels()];
        out.par_chunks_exact_mut(self.pixels())
            .zip(indices)
            .map(|(out, &i)| {
                let image = self.image(i)?;
                out.iter_mut()
                    .zip(image.iter())
                    .for_each(|(out, &byte)| *out = f32::from(byte) / 255.0);
                Ok(())
            })
            .collect::<Vec<Result<()>>>()
            .into_iter()
            .collect::<Result<()>>()?;
        Ok(out)
    }

    /// Writes image `i`, augmented with the draws of `augment` from `rng`, to `out` (`[C, H, W]`,
    /// \[0, 1\]).
    ///
    /// The window of a resized crop is drawn in the picture at the size of its file; every other
    /// draw is in the image at the split's shape.
    pub(crate) fn augmented(
        &self,
        i: usize,
        augment: &Augment,
        rng: impl FnOnce() -> Stream,
        out: &mut [f32],
    ) -> Result<AugmentDraw> {
        let shape = self.shape();
        let [_, height, width] = shape;
        if let Images::OnDemand { pictures, fit } = &self.store.images
            && augment.resizes()
            && *fit != Fit::Exact
        {
            let picture = pictures.picture(self.ids[i] as usize)?;
            let draw =
                augment.draw_in(&mut rng(), [picture.height(), picture.width()], [height, width]);
            draw.render_picture(&picture, out, shape)?;
            return Ok(draw);
        }
        let image = self.image(i)?;
        let draw = if *augment == Augment::NONE {
            AugmentDraw::IDENTITY
        } else {
            augment.draw(&mut rng(), height, width)
        };
        draw.render(&image, out, shape);
        Ok(draw)
    }

    /// Picture `i` at the size of its file; `None` for splits in memory.
    ///
    /// # Errors
    /// Those of [`Split::image`].
    ///
    /// # Panics
    /// If `i` is not below [`Split::len`].
    pub fn picture(&self, i: usize) -> Option<Result<Picture>> {
        match &self.store.images {
            Images::Memory(_) => None,
            Images::OnDemand { pictures, .. } => Some(pictures.picture(self.ids[i] as usize)),
        }
    }

    /// The class of image `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Split::len`].
    pub fn label(&self, i: usize) -> u32 {
        let label = self.store.labels[self.ids[i] as usize];
        self.renumbered.as_ref().map_or(label, |classes| classes[label as usize])
    }

    /// The sample ids: positions in the split as it was first read. [`Split::subset`] and
    /// [`Split::hold_out`] keep them, so that per-sample state and random streams follow a sample
    /// through every view.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// A number above the ids of every view of these images.
    pub(crate) fn end_of_ids(&self) -> usize {
        self.store.labels.len()
    }

    /// Number of images of each class.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        for i in 0..self.len() {
            counts[self.label(i) as usize] += 1;
        }
        counts
    }

    /// A view of the images at these positions, in this order; repeats are allowed. It shares the
    /// storage.
    ///
    /// # Errors
    /// [`DataError::Value`] when a position is not below [`Split::len`].
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        let ids = indices
            .iter()
            .map(|&i| {
                self.ids.get(i).copied().ok_or_else(|| {
                    DataError::value("image index", i, format!("below {}", self.len()))
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { ids, ..self.clone_empty() })
    }

    /// The first `n` images, or all when there are fewer.
    pub fn take(&self, n: usize) -> Self {
        Self { ids: self.ids.iter().take(n).copied().collect(), ..self.clone_empty() }
    }

    /// A view of none of the images.
    fn clone_empty(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            ids: vec![],
            classes: self.classes,
            names: Arc::clone(&self.names),
            renumbered: self.renumbered.clone(),
        }
    }

    fn pixels(&self) -> usize {
        self.store.shape.iter().product()
    }
}

/// Number of values of an image of this shape.
fn pixels_of(shape: [usize; 3]) -> Result<usize> {
    shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b)).filter(|&p| p > 0).ok_or_else(|| {
        DataError::value(
            "image shape",
            format!("{shape:?}"),
            "[channels, height, width], all positive",
        )
    })
}
