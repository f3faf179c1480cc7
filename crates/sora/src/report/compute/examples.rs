//! Adversarial examples for a figure.

use robustness::Classifier;

use super::{
    Opened,
    passes::{self, Images},
    weights::{Choice, load},
};
use crate::{
    error::{Error, Result},
    evaluate::OnSplit,
    plot::Raster,
    report::caption::Setting,
    threat::Threat,
};

/// An image, its perturbation, and the result.
#[derive(Clone, Debug)]
pub struct Example {
    /// Index of the image in the test split, from 0.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The image.
    pub clean: Raster,
    /// The perturbation, amplified: grey is no change, and the ends of the range are plus and minus
    /// `amplified`.
    pub perturbation: Raster,
    /// Change of a pixel that is shown at full contrast, in pixel units.
    pub amplified: f32,
    /// The image with its perturbation.
    pub adversarial: Raster,
    /// Predicted class of the image, with its probability.
    pub before: (usize, f32),
    /// Predicted class of the adversarial image, with its probability.
    pub after: (usize, f32),
}

/// Adversarial examples of a run.
#[derive(Clone, Debug)]
pub struct ExampleSet {
    /// The name of the run.
    pub name: String,
    /// Data set, network, threat model and seed, for the caption.
    pub about: Setting,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Seed of the random starts.
    pub seed: u64,
    /// The examples.
    pub examples: Vec<Example>,
}

/// The examples that ten steps of epsilon/4 find for `images`, whose indices are `indices`.
///
/// # Errors
/// [`Error`] when a device fails.
pub fn examples(
    model: &dyn Classifier,
    images: &Images,
    threat: Threat,
    indices: &[usize],
    seed: u64,
) -> Result<Vec<Example>> {
    let adversarial = passes::multi_step(model, threat, images, seed)?;
    let (before, after) = (answers(model, &images.x)?, answers(model, &adversarial)?);
    let shape = model.shape();
    let size = [shape.channels, shape.height, shape.width];
    let rows = images.x.chunks(images.width()).zip(adversarial.chunks(images.width()));
    let each = rows.enumerate().map(|(i, (x, changed))| {
        let change: Vec<f32> = changed.iter().zip(x).map(|(a, b)| a - b).collect();
        let amplified = change.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-6);
        let shown: Vec<f32> = change.iter().map(|v| 0.5 + 0.5 * v / amplified).collect();
        Example {
            index: indices.get(i).copied().unwrap_or(i),
            label: images.labels[i],
            clean: to_picture(x, size),
            perturbation: to_picture(&shown, size),
            amplified,
            adversarial: to_picture(changed, size),
            before: before[i],
            after: after[i],
        }
    });
    Ok(each.collect())
}

/// Most probable class of each image, with its probability.
fn answers(model: &dyn Classifier, x: &[f32]) -> Result<Vec<(usize, f32)>> {
    let classes = model.shape().classes;
    let best = |logits: &[f32]| {
        let all = passes::softmax(logits).into_iter().map(|v| v as f32).enumerate();
        all.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    };
    Ok(model.logits(x)?.chunks(classes).map(best).collect())
}

impl Opened<'_> {
    /// Adversarial examples for the first `count` test images, with the newest weights.
    ///
    /// # Errors
    /// [`Error`] for an image that does not exist, or when a device fails.
    pub fn examples(&mut self, first: usize, count: usize) -> Result<ExampleSet> {
        if let Some(newest) = self.weights(&Choice::Newest, 1)?.first() {
            load(&mut self.subject.model, newest)?;
        }
        let split = &self.dataset.test;
        if first >= split.len() {
            let problem = format!("the test split has {} images, counted from 0", split.len());
            return Err(Error::setting("index", first, problem));
        }
        let indices: Vec<usize> = (first..split.len()).take(count.clamp(1, 64)).collect();
        let images = Images::of(&OnSplit(split.as_ref().clone()), &indices)?;
        let (threat, seed) = (self.settings().threat(), self.options.seed);
        Ok(ExampleSet {
            name: self.run.name.clone(),
            about: self.about(),
            classes: self.classes(),
            seed,
            examples: examples(&self.subject.model, &images, threat, &indices, seed)?,
        })
    }
}

/// Pixels `[C, H, W]` in [0, 1] as a picture; with other than three channels, the first one in
/// grey.
fn to_picture(values: &[f32], [channels, height, width]: [usize; 3]) -> Raster {
    let plane = height * width;
    let byte = |c: usize, i: usize| {
        (values.get(c * plane + i).copied().unwrap_or(0.0).clamp(0.0, 1.0) * 255.0).round() as u8
    };
    let rgb = (0..plane)
        .flat_map(|i| if channels == 3 { [0, 1, 2].map(|c| byte(c, i)) } else { [byte(0, i); 3] })
        .collect();
    Raster { width: width as u32, height: height as u32, rgb }
}

#[cfg(test)]
mod tests {
    use super::to_picture;

    #[test]
    fn planes_become_pixels() {
        assert_eq!(
            to_picture(&[0.0, 1.0, 0.2, 0.4, 2.0, -1.0], [3, 1, 2]).rgb,
            [0, 51, 255, 255, 102, 0]
        );
        assert_eq!(to_picture(&[0.0, 1.0], [1, 2, 1]).rgb, [0, 0, 0, 255, 255, 255]);
    }
}
