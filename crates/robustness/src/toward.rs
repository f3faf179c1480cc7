//! A classifier as an opponent sees it who wants one class to be named.

use std::any::Any;

use crate::{
    classifier::{Access, Classifier, Cotangent, Incremental, PullBack, Shape},
    error::{Error, Result},
    samples::Samples,
};

/// The two classes "not the target", whose logit is the largest of all others, and "the target". An
/// image of another class, labelled 0, falls if and only if the network names the target: every
/// attack becomes a targeted one.
#[derive(Clone, Copy, Debug)]
pub struct Toward<'a> {
    network: &'a dyn Classifier,
    target: usize,
}

impl<'a> Toward<'a> {
    /// `network`, attacked towards the class `target`.
    ///
    /// # Errors
    /// A class that it does not have, or a network of a single class.
    pub fn new(network: &'a dyn Classifier, target: usize) -> Result<Self> {
        let classes = network.shape().classes;
        if target >= classes || classes < 2 {
            return Err(Error::Target { target, classes });
        }
        Ok(Self { network, target })
    }

    /// The class that stands for all others in the logits `z`.
    fn rival(&self, z: &[f32]) -> usize {
        let others = (0..z.len()).filter(|&k| k != self.target);
        others.reduce(|best, k| if z[k] > z[best] { k } else { best }).unwrap_or(0)
    }

    fn two(&self, logits: &[f32]) -> Vec<f32> {
        let rows = logits.chunks(self.network.shape().classes);
        // Logits that are not numbers stay so, whichever they are of.
        let poison = |z: &[f32]| if z.iter().any(|v| v.is_nan()) { f32::NAN } else { 0.0 };
        rows.flat_map(|z| [z[self.rival(z)] + poison(z), z[self.target]]).collect()
    }
}

impl Classifier for Toward<'_> {
    fn shape(&self) -> Shape {
        Shape { classes: 2, ..self.network.shape() }
    }

    fn access(&self) -> Access {
        self.network.access()
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(self.two(&self.network.logits(x)?))
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let classes = self.network.shape().classes;
        let back = self.network.pull_back(x, &mut |first, logits| {
            let two = cotangent(first, &self.two(logits));
            let mut c = vec![0.0; logits.len()];
            let rows = c.chunks_mut(classes).zip(logits.chunks(classes));
            for ((c, z), two) in rows.zip(two.chunks(2)) {
                c[self.rival(z)] = two[0];
                c[self.target] = two[1];
            }
            c
        })?;
        Ok(PullBack { logits: self.two(&back.logits), grad: back.grad })
    }

    fn incremental(&self, x: &[f32]) -> Result<Option<Box<dyn Incremental + '_>>> {
        let inner = self.network.incremental(x)?;
        Ok(inner.map(|inner| Box::new(TwoClasses { of: self, inner }) as Box<dyn Incremental>))
    }

    fn session(&self) -> Option<Box<dyn Any>> {
        self.network.session()
    }
}

struct TwoClasses<'a> {
    of: &'a Toward<'a>,
    inner: Box<dyn Incremental + 'a>,
}

impl Incremental for TwoClasses<'_> {
    fn step(&mut self, points: &[f32], rows: &[usize]) -> Result<Vec<f32>> {
        Ok(self.of.two(&self.inner.step(points, rows)?))
    }

    fn back(&mut self, rows: &[usize]) {
        self.inner.back(rows);
    }
}

/// The images that are not of the target class, for [`Toward`]: their label is 0, and an image
/// stands while the network does not name the target.
#[derive(Debug)]
pub struct NotOf<'a> {
    samples: &'a dyn Samples,
    positions: Vec<usize>,
}

impl<'a> NotOf<'a> {
    /// Those of `samples` that are not of the class `target`.
    pub fn new(samples: &'a dyn Samples, target: usize) -> Self {
        let positions =
            (0..samples.len()).filter(|&position| samples.label(position) != target).collect();
        Self { samples, positions }
    }
}

impl Samples for NotOf<'_> {
    fn len(&self) -> usize {
        self.positions.len()
    }

    fn shape(&self) -> Shape {
        Shape { classes: 2, ..self.samples.shape() }
    }

    fn label(&self, _position: usize) -> usize {
        0
    }

    fn id(&self, position: usize) -> u32 {
        self.samples.id(self.positions[position])
    }

    fn pixels(&self, positions: &[usize]) -> Result<Vec<f32>> {
        let positions: Vec<usize> = positions.iter().map(|&i| self.positions[i]).collect();
        self.samples.pixels(&positions)
    }
}
