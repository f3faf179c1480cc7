//! The passes of a network with given weights: logits, records and gradients.

use rayon::prelude::*;

use super::{Role, Trainable, Values};
use crate::{
    error::{Error, Result},
    graph::{GRADIENT, Pass},
    network::PIXELS,
    value::{Array, Value, to_vec},
};

/// Largest number of groups of images that are computed at the same time. Each has its own gradient
/// of all weights.
pub(super) const GROUPS: usize = 8;

/// The gradients that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those by the pixels.
    Input,
    /// Those by the trained weights.
    Weights,
    /// All.
    Both,
}

/// Gradients of `sum cotangent * logits`. What was not asked for is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// By the pixels, in the images' form.
    pub input: Vec<f32>,
    /// By the trained weights, one after the other in the order of [`Trainable::weights`], each
    /// row-major.
    pub weights: Vec<f32>,
}

/// A forward pass, recorded for [`Trainable::pull_back`].
#[derive(Clone, Debug)]
pub struct Tape(Vec<Group>);

/// A group of images: the values of its pass, and its output.
#[derive(Clone, Debug)]
struct Group {
    pass: Pass,
    output: Array<f32>,
    pixels: usize,
}

impl Trainable {
    /// Computes the logits, rows of [`Shape::classes`](robustness::Shape::classes), of the images
    /// `x`, in [0, 1] or as the graph expects them.
    ///
    /// # Errors
    /// Those of [`Network::logits`](crate::Network::logits), and values that are not those of the weights.
    pub fn logits(&self, values: &[Values], x: &[f32]) -> Result<Vec<f32>> {
        let given = self.given(values);
        let logits: Result<Vec<_>> = self.each(self.groups(x)?, |x| {
            let rows = x.len() / self.network.row();
            let output = self.network.run(&self.network.filled(x), &given)?;
            let output = output.float().map_err(|e| self.network.fault(e.into()))?;
            Ok(self.network.to_logits(output, rows))
        });
        Ok(logits?.concat())
    }

    /// Does what [`logits`](Self::logits) does, and records the pass.
    ///
    /// # Errors
    /// Those of [`logits`](Self::logits).
    pub fn record(&self, values: &[Values], x: &[f32]) -> Result<(Vec<f32>, Tape)> {
        let (given, network) = (self.given(values), &self.network);
        let done: Result<Vec<_>> = self.each(self.groups(x)?, |x| {
            let filled = network.filled(x);
            let images = network.images(&filled).map_err(|fault| network.fault(fault))?;
            let recorded = network.graph.record(images, &given, network.room(&filled, GRADIENT));
            let (output, pass) = recorded.map_err(|fault| network.fault(fault))?;
            let output = output.float().map_err(|e| network.fault(e.into()))?.clone();
            let logits = network.to_logits(&output, x.len() / network.row());
            Ok((logits, Group { pass, output, pixels: x.len() }))
        });
        let (logits, groups): (Vec<_>, Vec<_>) = done?.into_iter().unzip();
        Ok((logits.concat(), Tape(groups)))
    }

    /// Computes the gradients of `sum cotangent * logits`; `cotangent` has the logits' form. The
    /// result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`Error::Node`] when a node fails.
    pub fn pull_back(&self, tape: Tape, cotangent: &[f32], wanted: Wanted) -> Result<Gradients> {
        let classes = self.network.shape.classes.max(1);
        let mut rest = cotangent;
        let mut groups = Vec::with_capacity(tape.0.len());
        for group in tape.0 {
            let count = (group.pixels / self.network.row() * classes).min(rest.len());
            let (own, others) = rest.split_at(count);
            groups.push((group, own));
            rest = others;
        }
        let pulled: Result<Vec<_>> =
            self.each(groups, |(group, own)| self.group_gradients(group, own, wanted));
        let mut all = Gradients::default();
        for Gradients { input, weights } in pulled? {
            all.input.extend(input);
            match all.weights.is_empty() {
                true => all.weights = weights,
                false => all.weights.iter_mut().zip(weights).for_each(|(sum, one)| *sum += one),
            }
        }
        Ok(all)
    }

    fn group_gradients(&self, group: Group, own: &[f32], wanted: Wanted) -> Result<Gradients> {
        let network = &self.network;
        let Group { pass, output, pixels } = group;
        let back = network.back_of(&output, own.to_vec())?;
        if wanted == Wanted::Input {
            let gradient = network.graph.pull_back(pass, back);
            let gradient = gradient.map_err(|fault| network.fault(fault))?;
            let mut input = network.pixels(gradient)?;
            input.truncate(pixels);
            return Ok(Gradients { input, weights: Vec::new() });
        }
        let (mut targets, [of_weights, of_both]) = (self.trained(), &self.smooth);
        let smooth = if wanted == Wanted::Both { of_both } else { of_weights };
        if wanted == Wanted::Both {
            targets.push(network.graph.input());
        }
        let found = network.graph.back(pass, back, smooth, &targets);
        let mut found = found.map_err(|fault| network.fault(fault))?;
        let input = match wanted {
            Wanted::Both => found.pop().flatten(),
            _ => None,
        };
        let input = input.map(|gradient| network.pixels(gradient)).transpose()?;
        let mut input = input.unwrap_or_default();
        if wanted == Wanted::Both {
            input.resize(pixels, 0.0);
        }
        let mut weights = Vec::new();
        let trained = self.weights.iter().filter(|weight| weight.role == Role::Trained);
        for (gradient, weight) in found.into_iter().zip(trained) {
            match gradient {
                Some(gradient) => weights.extend(to_vec(&gradient)),
                None => weights.resize(weights.len() + weight.shape.iter().product::<usize>(), 0.0),
            }
        }
        Ok(Gradients { input, weights })
    }

    fn given(&self, values: &[Values]) -> Vec<Value> {
        values.iter().map(|values| values.0.clone()).collect()
    }

    /// Splits the images into groups, the same ones for any number of threads.
    fn groups<'a>(&self, x: &'a [f32]) -> Result<Vec<&'a [f32]>> {
        let row = self.network.row();
        if !x.len().is_multiple_of(row) {
            return Err(Error::Pixels { found: x.len(), expected: row });
        }
        let least = (PIXELS * 3 / 4 / row).max(1);
        let size = self.network.batch.unwrap_or((x.len() / row).div_ceil(GROUPS).max(least));
        Ok(x.chunks(size * row).collect())
    }

    fn each<T: Send, R: Send>(
        &self,
        groups: Vec<T>,
        work: impl Fn(T) -> Result<R> + Send + Sync,
    ) -> Result<Vec<R>> {
        rayon::scope(|_| groups.into_par_iter().with_max_len(1).map(work).collect())
    }
}
