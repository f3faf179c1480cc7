//! Cross-entropy and what is read off the logits.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Cross-entropy of each sample: logits `[N, K]`, labels `[N]` to `[N]`.
pub fn cross_entropy_per_sample(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let n = logits.dims()[0];
    log_softmax(logits, 1).gather(1, labels.reshape([n, 1])).reshape([n]).neg()
}

/// Mean cross-entropy of the batch, as `[1]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    cross_entropy_per_sample(logits, labels).mean()
}

/// 1 where the largest logit is the label's, else 0, as floats `[N]`.
pub fn correct(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let n = logits.dims()[0];
    logits.argmax(1).reshape([n]).equal(labels).float()
}
