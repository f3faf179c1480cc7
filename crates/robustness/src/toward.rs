//! A classifier as seen by an opponent who wants the network to predict one class.

use std::any::Any;

use crate::{
    classifier::{Access, Classifier, Cotangent, Incremental, PullBack, Shape},
    error::{Error, Result},
    samples::Samples,
};

/// A classifier of two classes. The logit of "not the target" is the largest logit of all other
/// classes; the second class is "the target". An image of another class has the label 0 and falls
/// if and only if the network predicts the target, so every attack becomes a targeted one.
#[derive(Clone, Copy, Debug)]
pub struct Toward<'a> {
    network: &'a dyn Classifier,
    target: usize,
}

impl<'a> Toward<'a> {
    /// Wraps `network` for attacks towards the class `target`.
    ///
    /// # Errors
    /// [`Error`] when the network has no such class, or only one class.
    pub fn new(network: &'a dyn Classifier, target: usize) -> Result<Self> {
        let classes = network.shape().classes;
        if target >= classes || classes < 2 {
            return Err(Error::Target { target, classes });
        }
        Ok(Self { network, target })
    }

    /// The class with the largest logit in `z` among those that are not the target.
    fn rival(&self, z: &[f32]) -> usize {
        let others = (0..z.len()).filter(|&k| k != self.target);
        others.reduce(|best, k| if z[k] > z[best] { k } else { best }).unwrap_or(0)
    }

    fn two(&self, logits: &[f32]) -> Vec<f32> {
        let rows = logits.chunks(self.network.shape().classes);
        let other = |z: &[f32]| {
            let rival = self.rival(z);
            if z.iter().any(|v| v.is_nan()) {
                // One NaN logit makes all logits NaN, whichever class it belongs to.
                f32::NAN
            } else if z[rival] == z[self.target] && self.target < rival {
                // Of equal logits the network predicts the first.
                z[rival].next_down()
            } else {
                z[rival]
            }
        };
        rows.flat_map(|z| [other(z), z[self.target]]).collect()
    }
}

impl Classifier for Toward<'_> {
    fn shape(&self) -> Shape {
        Shape { classes: 2, ..self.network.shape() }
    }

    fn access(&self) -> Access {
        self.network.access()
    }

    fn queries(&self) -> Option<u64> {
        self.network.queries()
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

    fn lanes(&self) -> usize {
        self.network.lanes()
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

/// The images that do not have the target class, for [`Toward`]. Their label is 0, and an image
/// stands while the network does not predict the target. Reports and archives name the class that it
/// has.
#[derive(Debug)]
pub struct NotOf<'a> {
    samples: &'a dyn Samples,
    positions: Vec<usize>,
}

impl<'a> NotOf<'a> {
    /// The images of `samples` that do not have the class `target`.
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

    fn class(&self, position: usize) -> usize {
        self.samples.class(self.positions[position])
    }

    fn classes(&self) -> usize {
        self.samples.classes()
    }

    fn id(&self, position: usize) -> u32 {
        self.samples.id(self.positions[position])
    }

    fn pixels(&self, positions: &[usize]) -> Result<Vec<f32>> {
        let positions: Vec<usize> = positions.iter().map(|&i| self.positions[i]).collect();
        self.samples.pixels(&positions)
    }
}
