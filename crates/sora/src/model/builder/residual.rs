//! What the residual networks share: their stages, and the beginning of a pre-activation block.

use super::{Builder, Id};
use crate::nn::NormInput;

/// The place of a block in a residual network.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Block {
    /// Its stage, from 0.
    pub(in crate::model) stage: usize,
    /// Its index in the stage.
    pub(in crate::model) index: usize,
    /// Channels of the stage.
    pub(in crate::model) channels: usize,
    /// Stride of the block.
    pub(in crate::model) stride: usize,
}

impl Builder {
    /// Adds a stage of blocks for each of `depths`. Every stage has twice the channels of the one
    /// before, and every stage but the first begins with stride 2.
    pub(in crate::model) fn stages(
        &mut self,
        mut x: Id,
        depths: &[usize],
        block: impl Fn(&mut Self, Id, Block) -> Id,
    ) -> Id {
        for (stage, &depth) in depths.iter().enumerate() {
            for index in 0..depth {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let channels = self.width() << stage;
                x = block(self, x, Block { stage, index, channels, stride });
            }
        }
        x
    }

    /// Adds the batch norm and activation at the beginning of a pre-activation block of `stride`
    /// that gives `cout` channels. Also tells whether the block needs a projection; without one, its
    /// only use of `x` must be a later [`conv_add`](Self::conv_add) or [`add`](Self::add).
    pub(in crate::model) fn preactivate(
        &mut self,
        x: Id,
        name: &str,
        cout: usize,
        stride: usize,
    ) -> (Id, bool) {
        let projected = stride != 1 || self.features(x) != cout;
        let input = if projected { NormInput::Alone } else { NormInput::Shortcut };
        (self.norm(x, name, Some(self.activation), input), projected)
    }
}
