//! The identity of a split as a hash, by which a run, a checkpoint or a record recognises the same
//! data.

use std::collections::HashSet;
use std::sync::OnceLock;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::list::{Images, Split, Store};
use crate::error::Result;
use crate::picture::Fit;
use crate::text::one_line;

/// Raise it when the same data would get another hash.
const VERSION: &[u8] = b"sora split 1\0";

/// The content of a [`Split`]. Equal hashes mean the same images with the same labels in the same
/// order, under the same class names, brought to the same shape in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitIdentity {
    /// SHA-256 over the fields below, every image and every label, in lower-case hexadecimal.
    pub sha256: String,
    /// Number of images.
    pub images: usize,
    /// `[C, H, W]` of an image.
    pub shape: [usize; 3],
    /// Class names in label order; empty where the split has none.
    pub classes: Vec<String>,
}

impl SplitIdentity {
    /// Says how this split differs from `before`, in words for one line; `None` when both are the
    /// same.
    pub fn difference(&self, before: &Self) -> Option<String> {
        if self.sha256 == before.sha256 {
            return None;
        }
        if self.images != before.images {
            return Some(format!("{} images, {} before", self.images, before.images));
        }
        if self.shape != before.shape {
            let size = |[c, h, w]: [usize; 3]| format!("{c}x{h}x{w}");
            return Some(format!("images of {}, {} before", size(self.shape), size(before.shape)));
        }
        if self.classes.len() != before.classes.len() {
            return Some(format!(
                "{} classes, {} before",
                self.classes.len(),
                before.classes.len()
            ));
        }
        let names = self.classes.iter().zip(&before.classes).enumerate().find(|(_, (a, b))| a != b);
        Some(match names {
            Some((k, (now, then))) => {
                format!("class {k} is '{}', '{}' before", one_line(now), one_line(then))
            }
            None => "other images or labels than before".into(),
        })
    }
}

impl Split {
    /// This split without the images that one of `others` has, too: those with the same pixels.
    ///
    /// Where all are decoded on demand and fitted alike, the same files: nothing is decoded then.
    /// Where some are decoded and others in memory, each of the former is decoded once.
    ///
    /// # Errors
    /// Those of [`Split::image`].
    pub fn without(&self, others: &[&Self]) -> Result<Self> {
        let alike = others.iter().all(|other| other.store.storage() == self.store.storage());
        let digests = |split: &Self| if alike { split.digests() } else { split.pixel_digests() };
        let mut known = HashSet::new();
        for other in others {
            known.extend(digests(other)?);
        }
        let own = digests(self)?;
        let left = (0..self.len()).filter(|&i| !known.contains(&own[i]));
        self.subset(&left.collect::<Vec<_>>())
    }

    /// The digest of each image's pixels, however it is stored.
    fn pixel_digests(&self) -> Result<Vec<[u8; 32]>> {
        if matches!(self.store.images, Images::Memory(_)) {
            return self.digests();
        }
        let digest = |i| Ok(Sha256::digest(self.image(i)?).into());
        let digests = (0..self.len()).into_par_iter().map(digest);
        digests.collect::<Vec<Result<_>>>().into_iter().collect()
    }

    /// The digest of each image.
    fn digests(&self) -> Result<Vec<[u8; 32]>> {
        let digests = self.ids().par_iter().map(|&id| self.store.digest(id as usize));
        digests.collect::<Vec<Result<_>>>().into_iter().collect()
    }

    /// The content identity: a hash over every image, its label and place, the class names and the
    /// shape.
    ///
    /// Images in memory are hashed as pixels. Images decoded on demand are hashed as the bytes of
    /// their files, with the way they are decoded and fitted; this reads the whole set once, at
    /// about the speed of the disk. The digests of single images are kept and shared with other
    /// views of the same set, so the second call takes milliseconds.
    ///
    /// ```
    /// use sora_data::Split;
    /// let split = |label| Split::new(vec![0, 255], vec![0, label], [1, 1, 1], 2);
    /// let (one, other) = (split(0)?.identity()?, split(1)?.identity()?);
    /// assert_eq!(other.difference(&one).as_deref(), Some("other images or labels than before"));
    /// assert_eq!(split(1)?.identity()?.difference(&other), None);
    /// # Ok::<(), sora_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Split::image`].
    pub fn identity(&self) -> Result<SplitIdentity> {
        let digests = self.digests()?;
        let mut hash = Sha256::new();
        hash.update(VERSION);
        hash.update(self.store.storage());
        let mut number = |n: usize| hash.update((n as u64).to_le_bytes());
        self.shape().into_iter().for_each(&mut number);
        number(self.num_classes());
        number(self.class_names().len());
        for name in self.class_names() {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        for (i, digest) in digests.iter().enumerate() {
            hash.update(self.label(i).to_le_bytes());
            hash.update(digest);
        }
        Ok(SplitIdentity {
            sha256: hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
            images: self.len(),
            shape: self.shape(),
            classes: self.class_names().to_vec(),
        })
    }
}

impl Store {
    /// The digest of image `id`.
    fn digest(&self, id: usize) -> Result<[u8; 32]> {
        let all =
            self.digests.get_or_init(|| self.labels.iter().map(|_| OnceLock::new()).collect());
        if let Some(digest) = all[id].get() {
            return Ok(*digest);
        }
        let digest = match &self.images {
            Images::Memory(bytes) => {
                let pixels: usize = self.shape.iter().product();
                Sha256::digest(&bytes[id * pixels..][..pixels]).into()
            }
            Images::OnDemand { pictures, .. } => pictures.digest(id)?,
        };
        Ok(*all[id].get_or_init(|| digest))
    }

    /// Bytes that differ between pixels and files, and between the ways of fitting files.
    fn storage(&self) -> [u8; 9] {
        let (kind, side) = match &self.images {
            Images::Memory(_) => (0, 0),
            Images::OnDemand { fit: Fit::Exact, .. } => (1, 0),
            Images::OnDemand { fit: Fit::Square, .. } => (2, 0),
            Images::OnDemand { fit: Fit::ShortSide(side), .. } => (3, *side),
        };
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&(side as u64).to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DataError;
    use crate::picture::{Picture, Pictures};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn split(images: &[u8], labels: &[u32], names: &[&str]) -> Split {
        Split::new(images.to_vec(), labels.to_vec(), [1, 1, images.len() / labels.len()], 3)
            .unwrap()
            .with_class_names(names.iter().map(|n| (*n).to_owned()).collect())
            .unwrap()
    }

    fn base() -> Split {
        split(&[1, 2, 3, 4, 5, 6], &[0, 1, 2], &["a", "b", "c"])
    }

    /// Computed independently in Python with hashlib. The hash is fixed for good, because records
    /// rely on it.
    #[test]
    fn golden_hash() {
        assert_eq!(base().identity().unwrap().sha256, GOLDEN);
    }
    const GOLDEN: &str = "17e072eeb39c96ddaffc4966b9774e0b8b78edcb52afd1b2de84065c6ba3da68";

    #[test]
    fn each_ingredient_counts() {
        let before = base().identity().unwrap();
        assert_eq!(base().identity().unwrap(), before);
        for (other, words) in [
            (split(&[1, 2, 3, 4, 5, 7], &[0, 1, 2], &["a", "b", "c"]), "other images or labels"),
            (split(&[1, 2, 3, 4, 5, 6], &[0, 1, 1], &["a", "b", "c"]), "other images or labels"),
            (base().subset(&[0, 2, 1]).unwrap(), "other images or labels"),
            (base().subset(&[0, 1]).unwrap(), "2 images, 3 before"),
            (base().subset(&[0, 1, 2, 2]).unwrap(), "4 images, 3 before"),
            (
                split(&[1, 2, 3, 4, 5, 6], &[0, 1, 2], &["a", "z", "c"]),
                "class 1 is 'z', 'b' before",
            ),
            (split(&[1, 2, 3, 4, 5, 6], &[0, 1, 2], &[]), "0 classes, 3 before"),
            (split(&[1, 2, 3], &[0, 1, 2], &["a", "b", "c"]), "images of 1x1x1, 1x1x2 before"),
        ] {
            let found = other.identity().unwrap().difference(&before).unwrap();
            assert!(found.starts_with(words), "{found}");
        }
        // A view with the same images in the same order has the same identity.
        let view = base().subset(&[2, 1, 0]).unwrap().subset(&[2, 1, 0]).unwrap();
        assert_eq!(view.identity().unwrap().difference(&before), None);
    }

    #[derive(Debug)]
    struct Counted(AtomicUsize);

    impl Pictures for Counted {
        fn picture(&self, i: usize) -> Result<Picture> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if i == 9 {
                return Err(DataError::value("image index", i, "below 9"));
            }
            Picture::new(2, 2, 1, vec![i as u8; 4])
        }
    }

    #[test]
    fn images_decoded_on_demand_are_read_once_and_only_those_of_the_view() {
        let pictures = Arc::new(Counted(AtomicUsize::new(0)));
        let on_demand =
            |fit| Split::on_demand(pictures.clone(), fit, vec![0; 10], [1, 2, 2], 1).unwrap();
        let all = on_demand(Fit::Exact);
        let some = all.take(5);
        let first = some.identity().unwrap();
        assert_eq!(some.identity().unwrap(), first);
        assert_eq!(pictures.0.load(Ordering::Relaxed), 5);
        all.take(7).identity().unwrap();
        assert_eq!(pictures.0.load(Ordering::Relaxed), 7);
        assert!(all.identity().is_err(), "a picture that cannot be read");
        // Another way of fitting gives other pixels.
        assert!(on_demand(Fit::Square).take(5).identity().unwrap().difference(&first).is_some());
    }

    proptest! {
        #[test]
        fn any_changed_byte_changes_it(at in 0usize..6, flip in 1u8..) {
            let mut images = [1, 2, 3, 4, 5, 6];
            images[at] ^= flip;
            let other = split(&images, &[0, 1, 2], &["a", "b", "c"]).identity().unwrap();
            prop_assert!(other.difference(&base().identity().unwrap()).is_some());
        }
    }
}
