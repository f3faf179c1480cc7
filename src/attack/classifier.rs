//! What an attack needs from a network: logits, and gradients of functions of them.

use std::fmt::Debug;

use burn::tensor::{Tensor, TensorData};

use crate::{
    error::Result,
    gradient,
    model::{Model, Shape},
    nn::to_vec,
};

/// A function of the logits `[N, K]` that gives a cotangent of their shape.
pub type Cotangent<'a> = dyn FnMut(&[f32]) -> Vec<f32> + 'a;

/// A classifier under attack, in eval mode. Implement it to evaluate a network of your own; images are rows of pixels in [0, 1].
pub trait Classifier: Debug + Send + Sync {
    /// Size of the images and number of classes.
    fn shape(&self) -> Shape;

    /// Logits, N rows of K, of the images `x`, N rows of channels x height x width pixels. A row's logits depend on that row alone.
    ///
    /// # Errors
    /// A device that fails.
    fn logits(&self, x: &[f32]) -> Result<Vec<f32>>;

    /// Logits of `x` and, for each image, the product of its cotangent with the Jacobian of its logits: the gradient of `sum_k c_k z_k` for the
    /// pixels, c constant. `cotangent` is called once, with the logits.
    ///
    /// # Errors
    /// A device that fails.
    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack>;
}

/// Result of [`Classifier::pull_back`].
#[derive(Clone, Debug)]
pub struct PullBack {
    /// N rows of K logits.
    pub logits: Vec<f32>,
    /// N rows of pixels.
    pub grad: Vec<f32>,
}

impl Classifier for Model {
    fn shape(&self) -> Shape {
        self.config.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        to_vec(&Self::logits(self, images(self, x)))
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let mut host = Vec::new();
        let (_, grad) = gradient::pull_back(self, images(self, x), |logits| {
            host = to_vec(&logits)?;
            let shape = logits.dims();
            Ok(Tensor::from_data(TensorData::new(cotangent(&host), shape), self.device()))
        })?;
        Ok(PullBack { logits: host, grad: to_vec(&grad)? })
    }
}

/// Rows of pixels as a tensor `[N, C, H, W]` on the model's device.
fn images(model: &Model, x: &[f32]) -> Tensor<4> {
    let Shape { channels, height, width, .. } = model.config.shape;
    let n = x.len() / (channels * height * width);
    Tensor::from_data(TensorData::new(x.to_vec(), [n, channels, height, width]), model.device())
}

/// The class of the largest logit, the first of equals.
pub fn predicted(logits: &[f32]) -> usize {
    let mut best = 0;
    for (k, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = k;
        }
    }
    best
}

/// Whether the logits of an image name `label`; logits that are not numbers name nothing.
pub fn stands(logits: &[f32], label: usize) -> bool {
    predicted(logits) == label && logits.iter().all(|v| !v.is_nan())
}
