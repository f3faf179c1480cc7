//! A network as a classifier for attacks: logits and gradients of rows of pixels, on all threads.

use std::{
    any::Any,
    sync::{Mutex, PoisonError},
};

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use robustness::{Classifier, Cotangent, Incremental, PullBack, Result, Shape};

use super::{IncrementalImage, IncrementalPass, Model};
use crate::{
    gradient,
    nn::{self, Backend, to_vec},
};

impl Classifier for Model {
    fn shape(&self) -> Shape {
        self.config.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let groups = groups(self, x).collect();
        Ok(each(groups, |x| Ok(to_vec(&Self::logits(self, images(self, x)))?))?.concat())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let cotangent = Mutex::new(cotangent);
        let mut first = 0;
        let groups = groups(self, x).map(|x| {
            let group = (first, x);
            first += x.len() / row(self);
            group
        });
        let pulled = each(groups.collect(), |(first, x)| {
            let pass = gradient::record(self, images(self, x));
            let logits = pass.logits();
            let (shape, logits) = (logits.dims(), to_vec(&logits)?);
            let cotangent =
                cotangent.lock().unwrap_or_else(PoisonError::into_inner)(first, &logits);
            let grad = to_vec(
                &pass
                    .pull_back(Tensor::from_data(TensorData::new(cotangent, shape), self.device())),
            )?;
            Ok((logits, grad))
        })?;
        let (logits, grad): (Vec<_>, Vec<_>) = pulled.into_iter().unzip();
        Ok(PullBack { logits: logits.concat(), grad: grad.concat() })
    }

    fn incremental(&self, x: &[f32]) -> Result<Option<Box<dyn Incremental + '_>>> {
        let Some(pass) = IncrementalPass::new(self, x.len() / row(self))? else { return Ok(None) };
        let images = each(x.chunks(row(self)).collect(), |x| Ok(pass.image(x)))?;
        Ok(Some(Box::new(IncrementalModel { pass, images })))
    }

    fn lanes(&self) -> usize {
        match self.backend() {
            Backend::Engine => 1,
            Backend::Burn => 2,
        }
    }

    fn session(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(nn::shrinking()))
    }
}

/// Images, with the maps of a network's first layers.
struct IncrementalModel<'a> {
    pass: IncrementalPass<'a>,
    images: Vec<IncrementalImage>,
}

impl Incremental for IncrementalModel<'_> {
    fn step(&mut self, points: &[f32], rows: &[usize]) -> Result<Vec<f32>> {
        let Self { pass, images } = self;
        let points = points.chunks(pass.row());
        let mut moves = Vec::with_capacity(rows.len());
        let mut wanted = rows.iter().peekable();
        for (index, image) in images.iter_mut().zip(points).enumerate() {
            if wanted.next_if(|row| **row == index).is_some() {
                moves.push(image);
            }
        }
        let group = group_size(pass.model(), moves.len());
        let mut groups = Vec::new();
        while !moves.is_empty() {
            groups.push(moves.drain(..group.min(moves.len())).collect());
        }
        Ok(each(groups, |moves| Ok(pass.step(moves)?))?.concat())
    }

    fn back(&mut self, rows: &[usize]) {
        for &row in rows {
            if let Some(image) = self.images.get_mut(row) {
                image.back();
            }
        }
    }
}

/// Number of values of an image, over all channels.
fn row(model: &Model) -> usize {
    let Shape { channels, height, width, .. } = model.config.shape;
    (channels * height * width).max(1)
}

/// Number of pixels of the largest group of images that the CPU engine takes at once: the feature
/// maps of 32 images of 32x32 stay in a core's cache.
const PIXELS: usize = 32 * 32 * 32;

/// Least number of images of a group, so that many threads do not each stream all weights for one
/// image.
const LEAST: usize = 4;

/// Number of images of a group when there are `n` images. On the CPU engine there are as many
/// groups as threads, or a multiple, because one group per thread costs less than all threads on
/// one small batch. An image's results do not depend on its group.
fn group_size(model: &Model, n: usize) -> usize {
    let Shape { height, width, .. } = model.config.shape;
    let size = match model.backend() {
        Backend::Engine => {
            let (threads, most) =
                (rayon::current_num_threads().max(1), (PIXELS / (height * width).max(1)).max(1));
            n.div_ceil(threads * n.div_ceil(threads * most).max(1)).max(LEAST.min(n.div_ceil(2)))
        }
        Backend::Burn => n,
    };
    size.max(1)
}

/// Splits the rows `x` into groups of about the same size.
fn groups<'a>(model: &Model, x: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
    x.chunks(group_size(model, x.len() / row(model)) * row(model))
}

/// Runs `work` on each group, in parallel, inside the thread pool, because a kernel that is called
/// from outside of the pool waits each time for a thread to wake up.
fn each<T: Send, R: Send>(
    groups: Vec<T>,
    work: impl Fn(T) -> Result<R> + Send + Sync,
) -> Result<Vec<R>> {
    rayon::scope(|_| groups.into_par_iter().with_max_len(1).map(work).collect())
}

/// Rows of pixels as a tensor `[N, C, H, W]` on the model's device.
fn images(model: &Model, x: &[f32]) -> Tensor<4> {
    let Shape { channels, height, width, .. } = model.config.shape;
    let n = x.len() / row(model);
    Tensor::from_data(TensorData::new(x.to_vec(), [n, channels, height, width]), model.device())
}
