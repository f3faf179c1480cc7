//! Programs and servers that answer, and those that do not answer as they should.

#![allow(clippy::unwrap_used, clippy::panic)]

mod http;
mod program;

use robustness::Shape;

/// What the models of these tests take.
const SHAPE: Shape = Shape { channels: 3, height: 2, width: 4, classes: 3 };

/// Logits: sums of every third value of an image.
fn logits(x: &[f32]) -> Vec<f32> {
    let of = |x: &[f32]| (0..3).map(|k| x.iter().skip(k).step_by(3).sum()).collect::<Vec<f32>>();
    x.chunks(SHAPE.pixels()).flat_map(of).collect()
}

/// Images, each another.
fn images(n: usize) -> Vec<f32> {
    (0..n * SHAPE.pixels()).map(|i| ((i * 37 + i / 24) % 101) as f32 / 100.0).collect()
}

/// The class of the largest logit.
fn labels(x: &[f32]) -> Vec<usize> {
    logits(x).chunks(3).map(robustness::predicted).collect()
}
