//! The random draws of attacks and methods.
//!
//! A draw is a pure function of (seed, epoch, step, sample, purpose), from a counter-based
//! generator. The order of work and the number of threads do not matter, and any step can be
//! replayed alone. Tests supply the draws instead.

use std::collections::BTreeMap;

#[cfg(feature = "gpu")]
use burn::tensor::Int;
use burn::tensor::{Device, Tensor, TensorData};
use sora_rng::{self as rng, Key, Purpose};

#[cfg(feature = "gpu")]
use crate::nn::{Backend, updates};
use crate::profile::{self, Stage};

/// The purpose of a draw. The numbers are part of the reproducibility of a run: append, never
/// renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Draw {
    /// Start of the perturbation, per element.
    Eta = 0,
    /// SORA's step factor, per pixel and channel.
    R = 1,
    /// SORA's step factor, per sample (ablation).
    RSample = 2,
    /// Direction of an l2 start.
    Dir = 3,
    /// Length of an l2 start.
    Radius = 4,
    /// Interpolation factor of ELLE, per sample.
    T = 5,
    /// A random sign, per element.
    Sign = 6,
    /// A small normal start, per element.
    Start = 7,
    /// An end of ELLE's interpolation, per element.
    Elle = 8,
    /// A perturbation kept for a training image, per element.
    Delta = 9,
    /// A proposal of the Square attack, per sample and query.
    Square = 10,
}

impl Draw {
    /// Name in golden files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eta => "eta",
            Self::R => "r",
            Self::RSample => "r_sample",
            Self::Dir => "dir",
            Self::Radius => "radius",
            Self::T => "t",
            Self::Sign => "sign",
            Self::Start => "start",
            Self::Elle => "elle",
            Self::Delta => "delta",
            Self::Square => "square",
        }
    }
}

/// Source of the draws of one step (or of one attack on one batch).
#[derive(Debug)]
pub struct Noise {
    source: Source,
    drawn: BTreeMap<Draw, u16>,
    device: Device,
}

#[derive(Debug)]
enum Source {
    Seeded { key: fn(u16) -> Purpose, seed: u64, epoch: u64, step: u64, ids: Vec<u32> },
    Given(BTreeMap<String, Vec<f32>>),
}

impl Noise {
    /// Draws of a training method for the samples `ids` at (`epoch`, `step`).
    pub fn training(seed: u64, epoch: u64, step: u64, ids: Vec<u32>, device: &Device) -> Self {
        Self::seeded(Purpose::Method, seed, epoch, step, ids, device)
    }

    /// Draws of an evaluation attack's `restart` for the samples `ids`; `attack` separates the
    /// attacks.
    pub fn evaluation(
        seed: u64,
        attack: u64,
        restart: u64,
        ids: Vec<u32>,
        device: &Device,
    ) -> Self {
        Self::seeded(Purpose::Attack, seed, attack, restart, ids, device)
    }

    fn seeded(
        key: fn(u16) -> Purpose,
        seed: u64,
        epoch: u64,
        step: u64,
        ids: Vec<u32>,
        device: &Device,
    ) -> Self {
        Self {
            source: Source::Seeded { key, seed, epoch, step, ids },
            drawn: BTreeMap::new(),
            device: device.clone(),
        }
    }

    /// Draws that are supplied by name (`eta`, or `eta.1` for the second one of a step): uniform
    /// ones in [0,1), normal ones standard.
    pub fn given(values: BTreeMap<String, Vec<f32>>, device: &Device) -> Self {
        Self { source: Source::Given(values), drawn: BTreeMap::new(), device: device.clone() }
    }

    /// Uniform in [low, high), with an independent draw for each element; the first dimension is
    /// the sample.
    pub fn uniform<const D: usize>(
        &mut self,
        draw: Draw,
        shape: [usize; D],
        low: f32,
        high: f32,
    ) -> Tensor<D> {
        let width = high - low;
        #[cfg(feature = "gpu")]
        if let Some((samples, key)) = self.on_device(draw, shape[0]) {
            return updates::uniform(samples, key, shape, [width, low]);
        }
        self.base(draw, shape, rng::fill_uniform, |v| v * width + low)
    }

    /// The numbers of the `n` samples, and the words of the next key of `draw`, for draws that are made
    /// on a GPU; `None` on the CPU, and for draws that are supplied.
    #[cfg(feature = "gpu")]
    fn on_device(&mut self, draw: Draw, n: usize) -> Option<(Tensor<1, Int>, [u32; 8])> {
        let Source::Seeded { key, seed, epoch, step, ids } = &self.source else { return None };
        if Backend::of(&self.device) == Backend::Engine || ids.len() != n {
            return None;
        }
        // Devices have no u32 tensors.
        let ids: Vec<i32> = ids.iter().map(|id| i32::try_from(*id).ok()).collect::<Option<_>>()?;
        let count = self.drawn.entry(draw).or_insert(0);
        let purpose = key(((draw as u16) << 8) | (*count & 0xff));
        *count += 1;
        let key = Key { seed: *seed, purpose, epoch: *epoch, step: *step };
        Some((Tensor::from_data(ids.as_slice(), &self.device), key.words()))
    }

    /// Standard normal, with an independent draw for each element; the first dimension is the
    /// sample.
    pub fn normal<const D: usize>(&mut self, draw: Draw, shape: [usize; D]) -> Tensor<D> {
        #[cfg(feature = "gpu")]
        if sora_devices::normal::is_possible(&self.device)
            && let Some((samples, key)) = self.on_device(draw, shape[0])
        {
            return updates::normal(samples, key, shape);
        }
        self.base(draw, shape, rng::fill_normal, |v| v)
    }

    /// +1 or -1 with equal probability, with an independent draw for each element.
    pub fn sign<const D: usize>(&mut self, draw: Draw, shape: [usize; D]) -> Tensor<D> {
        // The first sign is zero for u = 1/2; the second sign makes it +1.
        (self.uniform(draw, shape, -0.5, 0.5).sign() * 2.0 + 1.0).sign()
    }

    fn base<const D: usize>(
        &mut self,
        draw: Draw,
        shape: [usize; D],
        fill: fn(&mut [f32], Key, &[u32]),
        map: impl Fn(f32) -> f32,
    ) -> Tensor<D> {
        let count = self.drawn.entry(draw).or_insert(0);
        let k = *count;
        *count += 1;
        let len: usize = shape.iter().product();
        let mut data = match &self.source {
            Source::Seeded { key, seed, epoch, step, ids } => {
                let mut data = vec![0.0; len];
                let purpose = key(((draw as u16) << 8) | (k & 0xff));
                profile::time(Stage::Noise, || {
                    fill(&mut data, Key { seed: *seed, purpose, epoch: *epoch, step: *step }, ids)
                });
                data
            }
            Source::Given(values) => {
                let name =
                    if k == 0 { draw.name().to_owned() } else { format!("{}.{k}", draw.name()) };
                let data = values.get(&name).cloned().unwrap_or_default();
                assert_eq!(data.len(), len, "given draw '{name}' has the wrong number of elements");
                data
            }
        };
        data.iter_mut().for_each(|v| *v = map(*v));
        Tensor::from_data(TensorData::new(data, shape), &self.device)
    }
}
