//! Layers that change the size of a map.

use super::{Builder, Id, Window};
use crate::{model::graph::Op, nn::PoolInput};

impl Builder {
    /// Adds the maxima of windows.
    pub fn max_pool(&mut self, x: Id, window: Window) -> Id {
        let [h, w] = self.windows(x, window);
        let (channels, Window { kernel, stride, padding }) = (self.features(x), window);
        self.push(Op::MaxPool { kernel, stride, padding }, &[x], vec![channels, h, w])
    }

    /// Adds the means of `side` by `side` regions.
    pub fn adaptive_pool(&mut self, x: Id, side: usize) -> Id {
        self.expect(x, "a pool", &[3]);
        let channels = self.features(x);
        self.push(Op::AdaptivePool { side }, &[x], vec![channels, side, side])
    }

    /// Adds rows and columns of zeros below and to the right of a map. With a window of stride 2
    /// this is the padding that other frameworks call "same".
    pub fn pad_end(&mut self, x: Id, pixels: usize) -> Id {
        self.expect(x, "padding", &[3]);
        let mut shape = self.dims(x).to_vec();
        shape.iter_mut().skip(1).for_each(|side| *side += pixels);
        self.push(Op::PadEnd { pixels }, &[x], shape)
    }

    /// Adds the mean of each map.
    pub fn global_pool(&mut self, x: Id) -> Id {
        self.mean(x, PoolInput::Alone)
    }

    /// Adds the mean of each map, from which the factor of a [`gate`](Self::gate) on `x` is to
    /// follow, the only other reader of `x`.
    pub(in crate::model) fn squeeze(&mut self, x: Id) -> Id {
        self.mean(x, PoolInput::Gated)
    }

    fn mean(&mut self, x: Id, input: PoolInput) -> Id {
        self.expect(x, "a pool", &[3]);
        let channels = self.features(x);
        self.push(Op::GlobalPool(input), &[x], vec![channels])
    }

    /// Adds a conversion of a map to a vector, in PyTorch's order.
    pub fn flatten(&mut self, x: Id) -> Id {
        self.expect(x, "flatten", &[3]);
        let len = self.dims(x).iter().product();
        self.push(Op::Flatten, &[x], vec![len])
    }
}
