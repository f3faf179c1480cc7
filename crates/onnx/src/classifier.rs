//! Networks under attack: implements the classifier of `robustness`.

use robustness::{Classifier, Cotangent, Error, PullBack, Result, Shape};

use crate::network::Network;

impl Classifier for Network {
    fn shape(&self) -> Shape {
        Network::shape(self)
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Network::logits(self, x).map_err(Error::classifier)
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let (logits, grad) = Network::pull_back(self, x, cotangent).map_err(Error::classifier)?;
        Ok(PullBack { logits, grad })
    }
}
