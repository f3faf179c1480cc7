//! Values kept for each training image from epoch to epoch, in the coordinates of the image before
//! augmentation.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use super::{DataInfo, TrainBatch, no_state};
use crate::{
    data::Crop,
    error::{Error, Result},
    nn::{HostTensor, to_vec},
    ranks::share,
};

/// One tensor `[C, H, W]` for each image seen so far, on the host.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleStore {
    slots: BTreeMap<u32, usize>,
    shape: [usize; 3],
    values: Vec<f32>,
}

impl SampleStore {
    /// Number of bytes for all training images.
    ///
    /// # Errors
    /// [`Error`] for an augmentation that cannot be undone.
    pub(super) fn memory(method: &str, data: &DataInfo) -> Result<u64> {
        if matches!(data.augment.crop, Crop::Resized { .. }) || data.augment.rotate > 0.0 {
            return Err(Error::setting(
                "augment",
                data.augment,
                format!(
                    "method {method} keeps a perturbation for each image and must map it to and \
                     fro, which only crop and flip allow; choose for example crop:4,flip"
                ),
            ));
        }
        Ok((data.images * data.shape.iter().product::<usize>() * size_of::<f32>()) as u64)
    }

    /// Returns the images' tensors, augmented like the images. `new`, which is not augmented,
    /// provides the tensors of images that were not seen before.
    pub(super) fn gather(
        &mut self,
        batch: &TrainBatch,
        new: impl FnOnce() -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        let [n, c, h, w] = batch.x.dims();
        let (shape, len) = ([c, h, w], c * h * w);
        if self.shape != shape {
            *self = Self { shape, ..Self::default() };
        }
        if batch.ids.iter().any(|id| !self.slots.contains_key(id)) {
            let new = to_vec(&new())?;
            for (&id, values) in batch.ids.iter().zip(new.chunks_exact(len)) {
                let next = self.slots.len();
                if *self.slots.entry(id).or_insert(next) == next {
                    self.values.extend_from_slice(values);
                }
            }
        }
        let mut out = vec![0.0; n * len];
        for ((id, draw), out) in batch.ids.iter().zip(&batch.draws).zip(out.chunks_exact_mut(len)) {
            let stored = self
                .slots
                .get(id)
                .and_then(|slot| self.values.get(slot * len..(slot + 1) * len))
                .ok_or_else(|| Self::lost(*id))?;
            draw.apply(stored, out, shape)?;
        }
        Ok(Tensor::from_data(TensorData::new(out, [n, c, h, w]), &batch.x.device()))
    }

    /// Writes augmented tensors back; elements outside the crop keep their values.
    pub(super) fn scatter(&mut self, batch: &TrainBatch, augmented: &Tensor<4>) -> Result<()> {
        let len = self.shape.iter().product();
        let values = to_vec(augmented)?;
        for ((id, draw), new) in batch.ids.iter().zip(&batch.draws).zip(values.chunks_exact(len)) {
            let slot = *self.slots.get(id).ok_or_else(|| Self::lost(*id))?;
            let stored =
                self.values.get_mut(slot * len..(slot + 1) * len).ok_or_else(|| Self::lost(*id))?;
            draw.unapply(new, stored, self.shape)?;
        }
        self.share(&batch.ids)
    }

    /// Gives the values of the images `ids` to the other ranks of a training that several share,
    /// and takes theirs: every rank keeps those of all images, since the next epoch deals the images
    /// out anew.
    fn share(&mut self, ids: &[u32]) -> Result<()> {
        let len: usize = self.shape.iter().product();
        let of = |id: &u32| self.slots.get(id).map(|slot| &self.values[slot * len..][..len]);
        let Some(others) = share::by_image(ids, len, of) else { return Ok(()) };
        for (id, new) in others {
            let next = self.slots.len();
            let slot = *self.slots.entry(id).or_insert(next);
            if slot == next {
                self.values.extend_from_slice(&new);
            } else if let Some(stored) = self.values.get_mut(slot * len..(slot + 1) * len) {
                stored.copy_from_slice(&new);
            }
        }
        Ok(())
    }

    /// Forgets every image.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn lost(id: u32) -> Error {
        Error::unfit(
            "checkpoint",
            format!(
                "nothing is kept for training image {id}: the method's checkpoint does not belong \
                 to this data set"
            ),
        )
    }

    /// The tensors `NAME.ids` and `NAME.values` for a checkpoint.
    pub(super) fn state(&self, name: &str) -> Vec<HostTensor> {
        let mut ids = vec![0.0; self.slots.len()];
        for (&id, &slot) in &self.slots {
            if let Some(place) = ids.get_mut(slot) {
                // The bits of the id are stored, because f32 counts exactly only up to 2^24.
                *place = f32::from_bits(id);
            }
        }
        let [c, h, w] = self.shape;
        vec![
            HostTensor { name: format!("{name}.ids"), shape: vec![ids.len()], data: ids },
            HostTensor {
                name: format!("{name}.values"),
                shape: vec![self.slots.len(), c, h, w],
                data: self.values.clone(),
            },
        ]
    }

    /// Restores the tensors that [`state`](Self::state) returned.
    pub(super) fn load(
        state: &BTreeMap<String, HostTensor>,
        name: &str,
        method: &str,
    ) -> Result<Self> {
        let found = state.get(&format!("{name}.ids")).zip(state.get(&format!("{name}.values")));
        match found {
            Some((ids, values)) => match *values.shape.as_slice() {
                [images, c, h, w]
                    if images == ids.data.len() && values.data.len() == images * c * h * w =>
                {
                    Ok(Self {
                        slots: ids
                            .data
                            .iter()
                            .enumerate()
                            .map(|(slot, id)| (id.to_bits(), slot))
                            .collect(),
                        shape: [c, h, w],
                        values: values.data.clone(),
                    })
                }
                _ => Err(no_state(method, name)),
            },
            None => Err(no_state(method, name)),
        }
    }
}
