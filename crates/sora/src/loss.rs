//! Cross-entropy and other functions of the logits.

use burn::tensor::{Int, Tensor, activation::log_softmax};

use crate::compute;

/// Cross-entropy of each sample: logits `[N, K]`, labels `[N]` to `[N]`.
pub fn cross_entropy_per_sample(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    compute::of(&logits.device()).cross_entropy(logits, labels, 0.0)
}

/// Mean cross-entropy of the batch, as `[1]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    cross_entropy_per_sample(logits, labels).mean()
}

/// Mean cross-entropy with the target `(1 - smoothing) onehot(label) + smoothing / K` (Szegedy et
/// al. 2016, arXiv 1512.00567), as `[1]`.
pub fn smoothed_cross_entropy(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    smoothing: f32,
) -> Tensor<1> {
    compute::of(&logits.device()).cross_entropy(logits, labels, smoothing).mean()
}

/// KL(softmax(p) || softmax(q)) of each sample: logits `[N, K]` to `[N]`.
pub fn kl_divergence(p: Tensor<2>, q: Tensor<2>) -> Tensor<1> {
    let n = p.dims()[0];
    let log_p = log_softmax(p, 1);
    ((log_p.clone() - log_softmax(q, 1)) * log_p.exp()).sum_dim(1).reshape([n])
}

/// 1 where the largest logit is the label's, else 0, as floats `[N]`.
pub fn correct(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let n = logits.dims()[0];
    logits.argmax(1).reshape([n]).equal(labels).float()
}
