//! The configuration of a network's structure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Network, NetworkOptions, OnnxGraph, Shape, Structure, imported::Imported, network};
use crate::{
    error::{Error, Result},
    nn::SpecBuilder,
};

/// All values that decide a network's structure and its normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Registry name.
    pub name: String,
    /// Channels of the first stage.
    pub width: usize,
    /// Shape of the images, and number of classes.
    pub shape: Shape,
    /// Mean of each channel in pixel space, in [0, 1].
    pub mean: Vec<f32>,
    /// Standard deviation of each channel in pixel space.
    pub std: Vec<f32>,
    /// The network's options, apart from its width; files that were written before there were
    /// options lack them.
    #[serde(default)]
    pub options: NetworkOptions,
    /// The structure of a network that was read from an ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnx: Option<OnnxGraph>,
}

impl ModelConfig {
    /// Names, shapes and initial values of the network's parameters and buffers.
    ///
    /// # Errors
    /// [`Error`] for an unknown network or an impossible configuration.
    pub fn specs(&self) -> Result<SpecBuilder> {
        Ok(self.network()?.1)
    }

    /// The network, and its parameters and buffers.
    ///
    /// # Errors
    /// [`Error`] for an unknown network or an impossible configuration.
    pub(super) fn network(&self) -> Result<(Arc<dyn Network>, SpecBuilder)> {
        self.check()?;
        if self.is_imported() {
            return Imported::open(self);
        }
        let info = network(&self.name)?;
        info.check(self.options)?;
        let Structure { graph, specs } = info.structure(self.width, self.shape, self.options)?;
        Ok((Arc::new(graph), specs))
    }

    pub(super) fn check(&self) -> Result<()> {
        let Shape { channels, height, width, classes } = self.shape;
        if self.width == 0 || self.width > 4096 {
            return Err(Error::setting("width", self.width, "expected 1 to 4096"));
        }
        if [channels, height, width, classes].iter().any(|size| !(1..=1 << 16).contains(size)) {
            return Err(Error::unfit(
                "model",
                format!(
                    "images of {channels}x{height}x{width} in {classes} classes; expected 1 to 65536 of each"
                ),
            ));
        }
        if self.mean.len() != channels || self.std.len() != channels {
            return Err(Error::unfit(
                "model",
                format!(
                    "normalisation has {} means and {} standard deviations; expected one of each \
                     for the {channels} channels",
                    self.mean.len(),
                    self.std.len()
                ),
            ));
        }
        if !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_finite() && *s > 0.0)
        {
            return Err(Error::unfit(
                "model",
                "normalisation values must be finite and the standard deviations above 0",
            ));
        }
        Ok(())
    }
}
