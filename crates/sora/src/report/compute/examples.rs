//! Adversarial examples to look at.

use burn::tensor::{Tensor, activation::softmax};

use super::probe::{images, multi_step};
use crate::{
    data::Split, error::Result, model::Model, nn::to_vec, noise::Noise, plot::Picture,
    threat::Threat,
};

/// Steps of the attack.
pub const STEPS: u64 = 10;

/// An image, its perturbation and what becomes of it.
#[derive(Clone, Debug)]
pub struct Example {
    /// Image of the test split, from 0.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The image.
    pub clean: Picture,
    /// The perturbation, amplified: grey is none, the ends of the range are plus and minus
    /// `amplified` at full contrast.
    pub perturbation: Picture,
    /// Pixel change that is shown at full contrast, pixel units.
    pub amplified: f32,
    /// The image with its perturbation.
    pub adversarial: Picture,
    /// Predicted class of the image, with its probability.
    pub before: (usize, f32),
    /// Predicted class of the adversarial image, with its probability.
    pub after: (usize, f32),
}

/// The examples that pgd-10 finds for the images `indices` of `split`.
///
/// # Errors
/// An image that is not there, or a device that fails.
pub fn examples(
    model: &Model,
    split: &Split,
    threat: Threat,
    indices: &[usize],
    seed: u64,
) -> Result<Vec<Example>> {
    let device = model.device();
    let (x, labels) = images(split, indices, device)?;
    let ids = indices.iter().filter_map(|&i| split.ids().get(i).copied()).collect();
    let mut noise = Noise::evaluation(seed, 0, 0, ids, device);
    let delta = multi_step(model, threat, &x, &labels, STEPS, &mut noise);
    let adversarial = x.clone() + delta.clone();
    let (before, after) = (answers(model, x.clone())?, answers(model, adversarial.clone())?);
    let (labels, clean, change, changed) =
        (to_vec(&labels.float())?, to_vec(&x)?, to_vec(&delta)?, to_vec(&adversarial)?);
    let [channels, height, width] = split.shape();
    let size = channels * height * width;
    let mut all = Vec::new();
    for (i, &index) in indices.iter().enumerate() {
        let part =
            |values: &[f32]| values.get(i * size..(i + 1) * size).unwrap_or_default().to_vec();
        let change = part(&change);
        let amplified = change.iter().fold(0f32, |m, v| m.max(v.abs())).max(1e-6);
        let shown: Vec<f32> = change.iter().map(|v| 0.5 + 0.5 * v / amplified).collect();
        let picture = |values: &[f32]| to_picture(values, channels, height, width);
        all.push(Example {
            index,
            label: labels.get(i).map_or(0, |v| *v as usize),
            clean: picture(&part(&clean)),
            perturbation: picture(&shown),
            amplified,
            adversarial: picture(&part(&changed)),
            before: before.get(i).copied().unwrap_or_default(),
            after: after.get(i).copied().unwrap_or_default(),
        });
    }
    Ok(all)
}

/// Most probable class of each image, with its probability.
fn answers(model: &Model, x: Tensor<4>) -> Result<Vec<(usize, f32)>> {
    let probabilities = to_vec(&softmax(model.logits(x), 1))?;
    let best = |values: &[f32]| {
        values.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    };
    Ok(probabilities.chunks(model.config.shape.classes.max(1)).map(best).collect())
}

/// Pixels `[C, H, W]` in [0, 1] as a picture; of other than three channels the first, in grey.
fn to_picture(values: &[f32], channels: usize, height: usize, width: usize) -> Picture {
    let plane = height * width;
    let byte = |c: usize, i: usize| {
        (values.get(c * plane + i).copied().unwrap_or(0.0).clamp(0.0, 1.0) * 255.0).round() as u8
    };
    let rgb = (0..plane)
        .flat_map(|i| if channels == 3 { [0, 1, 2].map(|c| byte(c, i)) } else { [byte(0, i); 3] })
        .collect();
    Picture { width: width as u32, height: height as u32, rgb }
}

#[cfg(test)]
mod tests {
    use super::to_picture;

    #[test]
    fn planes_become_pixels() {
        assert_eq!(
            to_picture(&[0.0, 1.0, 0.2, 0.4, 2.0, -1.0], 3, 1, 2).rgb,
            [0, 51, 255, 255, 102, 0]
        );
        assert_eq!(to_picture(&[0.0, 1.0], 1, 2, 1).rgb, [0, 0, 0, 255, 255, 255]);
    }
}
