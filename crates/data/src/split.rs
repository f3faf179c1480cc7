//! Images with labels, in memory or decoded on demand, and the ways to take parts of them.

use std::borrow::Cow;
use std::sync::Arc;

use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::augment::{Augment, AugmentDraw};
use crate::error::{DataError, Result};
use crate::info::Info;
use crate::picture::{Fit, Picture, Pictures};
use sora_rng::{Purpose, Stream, stream};

/// Images that the statistics of a split decoded on demand are taken from, at most.
const STATS_SAMPLE: usize = 20_000;

/// A data set opened for use.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Description, with `mean` and `std` filled in.
    pub info: Info,
    /// Training split.
    pub train: Arc<Split>,
    /// Test split.
    pub test: Arc<Split>,
}

/// A list of images with labels: a view into shared storage, cheap to take parts of.
#[derive(Clone, Debug)]
pub struct Split {
    store: Arc<Store>,
    /// Positions in the store, in the split's order; they are the samples' ids.
    ids: Vec<u32>,
}

#[derive(Debug)]
struct Store {
    images: Images,
    labels: Vec<u32>,
    shape: [usize; 3],
    classes: usize,
}

#[derive(Debug)]
enum Images {
    /// `[N, C, H, W]` bytes.
    Memory(Vec<u8>),
    /// Decoded anew each time, and brought to the split's shape.
    OnDemand { pictures: Arc<dyn Pictures>, fit: Fit },
}

impl Split {
    /// A split of all images given.
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

    /// A split of images that are decoded each time they are asked for and brought to `shape` as
    /// `fit` says.
    ///
    /// Picture `i` has the class `labels[i]`; `shape`: `[C, H, W]`.
    ///
    /// # Errors
    /// [`DataError::Value`] as [`Split::new`].
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
            store: Arc::new(Store { images, labels, shape, classes }),
            ids: (0..n).collect(),
        })
    }

    /// Whether images are decoded each time they are asked for.
    pub fn is_on_demand(&self) -> bool {
        matches!(self.store.images, Images::OnDemand { .. })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        self.store.shape
    }

    /// Number of classes of the data set (not only those present here).
    pub fn num_classes(&self) -> usize {
        self.store.classes
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

    /// The images at these positions as `f32` in \[0, 1\], `[indices.len(), C, H, W]`, decoded in
    /// parallel.
    ///
    /// # Errors
    /// As [`Split::image`]; of several, the first in order.
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

    /// Writes image `i`, augmented with what `augment` draws from `rng`, to `out` (`[C, H, W]`,
    /// \[0, 1\]).
    ///
    /// The window of a resized crop is drawn in the picture as it is in its file; every other draw
    /// is in the image of the split's shape.
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

    /// Picture `i` as it is in its file, for splits decoded on demand.
    ///
    /// # Errors
    /// As [`Split::image`].
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
        self.store.labels[self.ids[i] as usize]
    }

    /// The sample ids: positions in the split as it was read, kept by [`Split::subset`] and
    /// [`Split::hold_out`], so that per-sample state and random streams follow a sample through
    /// every view.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Images per class.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.store.classes];
        for i in 0..self.len() {
            counts[self.label(i) as usize] += 1;
        }
        counts
    }

    /// The images at these positions, in this order; repeats are allowed. Shares the storage.
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
        Ok(Self { store: Arc::clone(&self.store), ids })
    }

    /// The first `n` images, or all when there are fewer.
    pub fn take(&self, n: usize) -> Self {
        Self { store: Arc::clone(&self.store), ids: self.ids.iter().take(n).copied().collect() }
    }

    /// Splits off `n` images as a validation split: `(train, validation)`, both in the original
    /// order.
    ///
    /// Stratified: each class gives its share of `n`, rounded by largest remainder, so that the
    /// classes' shares in the validation split differ from those in the whole by less than one
    /// image. Within a class the choice is drawn from `seed` alone.
    ///
    /// # Errors
    /// [`DataError::Value`] when `n` would leave no training image.
    pub fn hold_out(&self, n: usize, seed: u64) -> Result<(Self, Self)> {
        if n == 0 {
            return Ok((self.clone(), self.subset(&[])?));
        }
        if n >= self.len() {
            return Err(DataError::value(
                "validation size",
                n,
                format!("less than the {} training images", self.len()),
            ));
        }
        let mut members = vec![Vec::new(); self.store.classes];
        for i in 0..self.len() {
            members[self.label(i) as usize].push(i);
        }
        let quotas = largest_remainder(n, &members.iter().map(Vec::len).collect::<Vec<_>>());
        let mut held = vec![false; self.len()];
        for (class, (list, quota)) in members.iter_mut().zip(quotas).enumerate() {
            list.shuffle(&mut stream(seed, Purpose::Split, 0, 0, class as u64));
            for &i in list.iter().take(quota) {
                held[i] = true;
            }
        }
        let part = |wanted: bool| Self {
            store: Arc::clone(&self.store),
            ids: self
                .ids
                .iter()
                .zip(&held)
                .filter(|(_, h)| **h == wanted)
                .map(|(id, _)| *id)
                .collect(),
        };
        Ok((part(false), part(true)))
    }

    /// Per-channel mean and standard deviation (population) of the images in \[0,1\], exact sums in
    /// integers.
    ///
    /// Of a split decoded on demand at most 20,000 images are taken, evenly spaced. A channel that
    /// never varies gets a standard deviation of 1/255, so that dividing by it stays finite. `([0;
    /// C], [1; C])` for an empty split.
    ///
    /// # Errors
    /// As [`Split::image`].
    pub fn channel_stats(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let [channels, height, width] = self.shape();
        if self.is_empty() {
            return Ok((vec![0.0; channels], vec![1.0; channels]));
        }
        let zero = || vec![(0u64, 0u64); channels];
        let n = if self.is_on_demand() { self.len().min(STATS_SAMPLE) } else { self.len() };
        let sums = (0..n)
            .into_par_iter()
            .try_fold(zero, |mut sums, k| {
                let image = self.image(k * self.len() / n)?;
                for (sum, plane) in sums.iter_mut().zip(image.chunks(height * width)) {
                    for &value in plane {
                        sum.0 += u64::from(value);
                        sum.1 += u64::from(value) * u64::from(value);
                    }
                }
                Ok(sums)
            })
            .try_reduce(zero, |a, b| {
                Ok(a.iter().zip(&b).map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect())
            })?;
        let count = (n * height * width) as f64;
        Ok(sums
            .iter()
            .map(|&(sum, squares)| {
                let mean = sum as f64 / count;
                let variance = (squares as f64 / count - mean * mean).max(0.0);
                (mean / 255.0, (variance.sqrt() / 255.0).max(1.0 / 255.0))
            })
            .unzip())
    }

    fn pixels(&self) -> usize {
        self.store.shape.iter().product()
    }
}

/// Pixels of an image of this shape.
fn pixels_of(shape: [usize; 3]) -> Result<usize> {
    shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b)).filter(|&p| p > 0).ok_or_else(|| {
        DataError::value(
            "image shape",
            format!("{shape:?}"),
            "[channels, height, width], all positive",
        )
    })
}

/// Shares `n` over groups in proportion to `sizes` by largest remainder (ties: the lower index).
/// Sum of the result is `n`; requires `n <= sum(sizes)`.
fn largest_remainder(n: usize, sizes: &[usize]) -> Vec<usize> {
    let total: u128 = sizes.iter().map(|&s| s as u128).sum();
    if total == 0 {
        return vec![0; sizes.len()];
    }
    let exact = |s: usize| n as u128 * s as u128;
    let mut quotas: Vec<usize> = sizes.iter().map(|&s| (exact(s) / total) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&k| std::cmp::Reverse(exact(sizes[k]) % total));
    let missing = n - quotas.iter().sum::<usize>();
    for &k in order.iter().take(missing) {
        quotas[k] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// One-pixel images whose value is the index.
    fn tiny(labels: &[u32]) -> Split {
        Split::new((0..labels.len()).map(|i| i as u8).collect(), labels.to_vec(), [1, 1, 1], 4)
            .unwrap()
    }

    #[test]
    fn sizes_must_fit() {
        assert!(Split::new(vec![0; 6], vec![0, 1], [1, 1, 3], 2).is_ok());
        assert!(Split::new(vec![0; 5], vec![0, 1], [1, 1, 3], 2).is_err());
        assert!(Split::new(vec![], vec![], [0, 1, 3], 2).is_err());
        assert!(Split::new(vec![], vec![0], [usize::MAX, 2, 3], 2).is_err());
        let error = Split::new(vec![0; 2], vec![0, 2], [1, 1, 1], 2).unwrap_err();
        assert_eq!(error.to_string(), "wrong label of image 1: 2; expected below 2");
    }

    #[test]
    fn subsets_keep_ids() {
        let all = tiny(&[0, 1, 2, 3]);
        let part = all.subset(&[3, 1]).unwrap();
        assert_eq!(
            (part.ids(), part.label(0), &*part.image(1).unwrap()),
            (&[3, 1][..], 3, &[1][..])
        );
        let again = part.subset(&[1]).unwrap();
        assert_eq!((again.ids(), again.len()), (&[1][..], 1));
        assert!(all.subset(&[4]).is_err());
        assert_eq!(all.take(2).ids(), [0, 1]);
        assert_eq!(all.take(9).len(), 4);
    }

    #[test]
    fn statistics_by_hand() {
        // Channel 0: 0, 255, 255, 0 -> mean 1/2, std 1/2. Channel 1: constant 51 = 0.2 -> std at
        // its floor.
        let split =
            Split::new(vec![0, 255, 51, 51, 255, 0, 51, 51], vec![0, 0], [2, 1, 2], 1).unwrap();
        let (mean, std) = split.channel_stats().unwrap();
        assert!((mean[0] - 0.5).abs() < 1e-12 && (mean[1] - 0.2).abs() < 1e-12);
        assert!((std[0] - 0.5).abs() < 1e-12 && (std[1] - 1.0 / 255.0).abs() < 1e-12);
        assert_eq!(split.take(0).channel_stats().unwrap(), (vec![0.0; 2], vec![1.0; 2]));
    }

    #[test]
    fn hold_out_is_seeded() {
        let all = tiny(&(0..200).map(|i| i % 4).collect::<Vec<_>>());
        let ids = |seed| all.hold_out(40, seed).unwrap().1.ids().to_vec();
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        assert!(
            all.hold_out(200, 0)
                .unwrap_err()
                .to_string()
                .contains("less than the 200 training images")
        );
        let (train, val) = all.hold_out(0, 0).unwrap();
        assert_eq!((train.len(), val.len()), (200, 0));
    }

    proptest! {
        #[test]
        fn hold_out_is_a_stratified_partition(labels in proptest::collection::vec(0u32..4, 2..120), part in 0.0f64..1.0, seed: u64) {
            let all = tiny(&labels);
            let n = ((labels.len() as f64 * part) as usize).min(labels.len() - 1);
            let (train, val) = all.hold_out(n, seed).unwrap();
            prop_assert_eq!(val.len(), n);
            let union: BTreeSet<u32> = train.ids().iter().chain(val.ids()).copied().collect();
            prop_assert_eq!(union.len(), labels.len());
            prop_assert_eq!(train.len() + val.len(), labels.len());
            prop_assert!(train.ids().is_sorted() && val.ids().is_sorted());
            for (have, all) in val.class_counts().iter().zip(all.class_counts()) {
                let share = n as f64 * all as f64 / labels.len() as f64;
                prop_assert!((*have as f64 - share).abs() < 1.0, "{} of {}", have, share);
            }
        }
    }
}
