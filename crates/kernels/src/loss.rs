//! Softmax cross-entropy.

use crate::parallel::prelude::*;

use crate::error::{ShapeError, elements, expect_len, parameter};

/// Samples that one task computes.
const ROWS: usize = 64;

/// Cross-entropy of `logits`, `[N][classes]`, against class indices, with the gradient of its
/// weighted sum.
///
/// With `s = label_smoothing` in `[0, 1]` and `K` classes, sample `i` has loss `-(1 - s) log
/// p[label] - s / K sum_k log p[k]` (as `torch.nn.functional.cross_entropy`), written to `loss[i]`,
/// and `gradient[i] = gradient_scale * (p - target)`; pass `1 / N` for the gradient of the mean.
/// A logit of -inf is a class of probability 0, as in PyTorch; NaN and +inf give NaN.
///
/// # Errors
/// [`ShapeError`] when a length does not fit, a label is not below `classes`, or the smoothing is
/// outside `[0, 1]`.
pub fn softmax_cross_entropy(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    label_smoothing: f32,
    loss: &mut [f32],
    gradient: Option<(&mut [f32], f32)>,
) -> Result<(), ShapeError> {
    let n = labels.len();
    if classes == 0 {
        return Err(parameter("classes", "must be at least 1"));
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return Err(parameter("label smoothing", format!("{label_smoothing} is outside [0, 1]")));
    }
    expect_len("logits", logits.len(), elements("logits", &[n, classes])?)?;
    expect_len("loss", loss.len(), n)?;
    if let Some((i, label)) =
        labels.iter().enumerate().find(|(_, label)| **label as usize >= classes)
    {
        return Err(parameter(
            "labels",
            format!("label {label} of sample {i} is not below {classes} classes"),
        ));
    }
    let rule = Rule { smoothing: label_smoothing, smooth: label_smoothing / classes as f32 };
    match gradient {
        None => loss
            .par_iter_mut()
            .with_min_len(ROWS)
            .zip(logits.par_chunks_exact(classes))
            .zip(labels)
            .for_each(|((loss, x), &label)| rule.row(x, label, loss, None)),
        Some((gradient, scale)) => {
            expect_len("logits gradient", gradient.len(), logits.len())?;
            loss.par_iter_mut()
                .with_min_len(ROWS)
                .zip(logits.par_chunks_exact(classes))
                .zip(labels)
                .zip(gradient.par_chunks_exact_mut(classes))
                .for_each(|(((loss, x), &label), g)| rule.row(x, label, loss, Some((g, scale))));
        }
    }
    Ok(())
}

/// The share of the label's class in the target, and the share that every class gets.
#[derive(Clone, Copy)]
struct Rule {
    smoothing: f32,
    smooth: f32,
}

impl Rule {
    /// Computes the loss and the scaled gradient of one sample's logits.
    fn row(&self, x: &[f32], label: u32, loss: &mut f32, gradient: Option<(&mut [f32], f32)>) {
        let label = label as usize;
        let max = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        // The sum is accumulated in f64: with thousands of classes f32 would lose digits, and the
        // exponential costs far more than the addition.
        let total: f64 = x.iter().map(|&v| f64::from((v - max).exp())).sum();
        let log_total = total.ln() as f32;
        let mut value = (1.0 - self.smoothing) * (log_total - (x[label] - max));
        if self.smoothing > 0.0 {
            value += x.iter().map(|&v| self.smooth * (log_total - (v - max))).sum::<f32>();
        }
        *loss = value;
        if let Some((gradient, scale)) = gradient {
            for (k, (g, &v)) in gradient.iter_mut().zip(x).enumerate() {
                let target = self.smooth + if k == label { 1.0 - self.smoothing } else { 0.0 };
                *g = scale * ((v - max - log_total).exp() - target);
            }
        }
    }
}
