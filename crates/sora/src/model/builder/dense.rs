//! Fully connected layers.

use super::{Builder, Id, Start};
use crate::{
    model::graph::Op,
    nn::{Dense, Linear},
};

impl Builder {
    /// Adds the classifier `NAME`, with PyTorch's default initialisation.
    pub(in crate::model) fn classifier(&mut self, x: Id, name: &str) -> Id {
        let (features, classes) = (self.features(x), self.shape.classes);
        let linear = Linear::new(&mut self.specs, name, [features, classes]);
        self.push(Op::Linear(linear), &[x], vec![classes])
    }

    /// Adds a fully connected layer.
    pub fn dense(&mut self, x: Id, name: &str, out: usize, start: Start) -> Id {
        self.fully_connected(x, name, out, start, true, &[])
    }

    /// Adds a fully connected layer that PyTorch stores as a 1x1 convolution.
    pub(in crate::model) fn dense_as_conv(
        &mut self,
        x: Id,
        name: &str,
        out: usize,
        start: Start,
    ) -> Id {
        self.fully_connected(x, name, out, start, true, &[1, 1])
    }

    pub(super) fn fully_connected(
        &mut self,
        x: Id,
        name: &str,
        out: usize,
        start: Start,
        bias: bool,
        ones: &[usize],
    ) -> Id {
        self.expect(x, "a fully connected layer", &[1, 2]);
        let features = self.features(x);
        let [weight, start_of_bias] = start.init(features, out);
        let dense = Dense::new(
            &mut self.specs,
            name,
            &[&[out, features], ones].concat(),
            weight,
            bias.then_some(start_of_bias),
        );
        let mut shape = self.dims(x).to_vec();
        shape.pop();
        shape.push(out);
        self.push(Op::Dense(dense), &[x], shape)
    }
}
