//! Classifiers whose answers are known, or that defend themselves in ways that an evaluation must
//! notice.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use robustness::{Classifier, Cotangent, Error, PullBack, Result, Rows, Shape};

/// Row `i` of rows `width` wide.
fn row(values: &[f32], width: usize, i: usize) -> &[f32] {
    &values[i * width..(i + 1) * width]
}

/// z = W x + b.
#[derive(Clone, Debug)]
pub struct Linear {
    pub shape: Shape,
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Linear {
    /// Weights that look random, the same for the same `seed`.
    pub fn new(shape: Shape, seed: u32) -> Self {
        let width = pixels(shape);
        let value = |k: u32| {
            let mixed = (k ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            ((mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35) >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let weights = (0..shape.classes * width).map(|k| value(k as u32 + 1)).collect();
        Self {
            shape,
            weights,
            bias: (0..shape.classes).map(|k| value(k as u32 + 100_003) / 4.0).collect(),
        }
    }

    /// w_k - w_y.
    pub fn difference(&self, k: usize, y: usize) -> Vec<f64> {
        let width = pixels(self.shape);
        let (a, b) = (row(&self.weights, width, k), row(&self.weights, width, y));
        a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
    }
}

pub fn pixels(shape: Shape) -> usize {
    shape.pixels()
}

impl Classifier for Linear {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let width = pixels(self.shape);
        let dot = |w: &[f32], x: &[f32]| {
            w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
        };
        Ok(x.chunks(width)
            .flat_map(|x| {
                (0..self.shape.classes).map(move |k| {
                    (dot(row(&self.weights, width, k), x) + f64::from(self.bias[k])) as f32
                })
            })
            .collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let (width, classes) = (pixels(self.shape), self.shape.classes);
        let logits = self.logits(x)?;
        let cotangents = cotangent(0, &logits);
        let mut grad = vec![0.0; x.len()];
        for (grad, c) in grad.chunks_mut(width).zip(cotangents.chunks(classes)) {
            for (k, c) in c.iter().enumerate() {
                grad.iter_mut().zip(row(&self.weights, width, k)).for_each(|(g, w)| *g += c * w);
            }
        }
        Ok(PullBack { logits, grad })
    }
}

/// Logits as rows.
pub trait Scores {
    fn scores(&self, x: &[f32]) -> Rows;
}

impl<C: Classifier + ?Sized> Scores for C {
    fn scores(&self, x: &[f32]) -> Rows {
        Rows::new(self.logits(x).unwrap(), self.shape().classes)
    }
}

/// Images around 1/2 that `model` gives different classes, with those classes.
pub fn images(model: &dyn Classifier, n: usize, contrast: f32) -> (Rows, Vec<usize>) {
    let width = pixels(model.shape());
    let x: Vec<f32> = (0..n * width)
        .map(|k| {
            let mixed = (k as u32 + 7).wrapping_mul(0x9e37_79b9);
            0.5 + contrast
                * ((mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b) as f32 / u32::MAX as f32 - 0.5)
        })
        .collect();
    let logits = model.logits(&x).unwrap();
    let labels = logits.chunks(model.shape().classes).map(robustness::predicted).collect();
    (Rows::new(x, width), labels)
}

/// Rounds pixels to few levels: a defence that has no gradient.
#[derive(Debug)]
pub struct Quantised(pub Linear);

impl Classifier for Quantised {
    fn shape(&self) -> Shape {
        self.0.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.0.logits(&x.iter().map(|v| (v * 8.0).round() / 8.0).collect::<Vec<_>>())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let logits = self.logits(x)?;
        cotangent(0, &logits);
        Ok(PullBack { logits, grad: vec![0.0; x.len()] })
    }
}

/// Adds another noise at every pass.
#[derive(Debug)]
pub struct Random {
    pub inner: Linear,
    pub size: f32,
    pub passes: AtomicUsize,
}

impl Classifier for Random {
    fn shape(&self) -> Shape {
        self.inner.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed) as u32;
        let noise = |k: usize| {
            let mixed = (k as u32).wrapping_add(pass.wrapping_mul(7919)).wrapping_mul(0x9e37_79b9);
            self.size
                * ((mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b) as f32 / u32::MAX as f32 - 0.5)
        };
        Ok(self.inner.logits(x)?.into_iter().enumerate().map(|(k, z)| z + noise(k)).collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let logits = self.logits(x)?;
        let PullBack { grad, .. } = self.inner.pull_back(x, &mut |_, _| cotangent(0, &logits))?;
        Ok(PullBack { logits, grad })
    }
}

/// Gives probabilities where logits are expected.
#[derive(Debug)]
pub struct Softmax(pub Linear);

impl Softmax {
    fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        logits
            .chunks(self.0.shape.classes)
            .flat_map(|z| {
                let top = z.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = z.iter().map(|z| (z - top).exp()).sum();
                z.iter().map(move |z| (z - top).exp() / sum)
            })
            .collect()
    }
}

impl Classifier for Softmax {
    fn shape(&self) -> Shape {
        self.0.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(self.probabilities(&self.0.logits(x)?))
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let logits = self.logits(x)?;
        let c = cotangent(0, &logits);
        let classes = self.0.shape.classes;
        let PullBack { grad, .. } = self.0.pull_back(x, &mut |_, _| {
            let rows = logits.chunks(classes).zip(c.chunks(classes));
            rows.flat_map(|(p, c)| {
                let mean: f32 = p.iter().zip(c).map(|(p, c)| p * c).sum();
                p.iter().zip(c).map(move |(p, c)| p * (c - mean)).collect::<Vec<_>>()
            })
            .collect()
        })?;
        Ok(PullBack { logits, grad })
    }
}

/// Logits so far apart that cross-entropy rounds to zero.
pub fn saturated(mut model: Linear) -> Linear {
    model.weights.iter_mut().chain(&mut model.bias).for_each(|v| *v *= 1000.0);
    model
}

/// Counts images that pass, and breaks down after a number of calls.
#[derive(Debug)]
pub struct Counting<'a> {
    pub inner: &'a dyn Classifier,
    pub images: AtomicUsize,
    pub calls: AtomicUsize,
    pub break_after: usize,
    /// Whether it tells, as a model whose answers cost.
    pub tells: bool,
}

impl<'a> Counting<'a> {
    pub fn new(inner: &'a dyn Classifier, break_after: usize) -> Self {
        let (images, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { inner, images, calls, break_after, tells: false }
    }

    pub fn images(&self) -> usize {
        self.images.load(Ordering::Relaxed)
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self, x: &[f32]) -> Result<()> {
        self.images.fetch_add(x.len() / pixels(self.shape()), Ordering::Relaxed);
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.break_after {
            Err(Error::classifier("the power went off"))
        } else {
            Ok(())
        }
    }
}

impl Classifier for Counting<'_> {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn queries(&self) -> Option<u64> {
        self.tells.then(|| self.images() as u64)
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.count(x)?;
        self.inner.logits(x)
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        self.count(x)?;
        self.inner.pull_back(x, cotangent)
    }
}

/// Counts the calls for logits alone, and those for gradients.
#[derive(Debug)]
pub struct Tally<'a> {
    inner: &'a dyn Classifier,
    forward: AtomicUsize,
    gradient: AtomicUsize,
}

impl<'a> Tally<'a> {
    pub fn new(inner: &'a dyn Classifier) -> Self {
        Self { inner, forward: AtomicUsize::new(0), gradient: AtomicUsize::new(0) }
    }

    /// The calls since the last look, those for logits alone first.
    pub fn take(&self) -> [usize; 2] {
        [&self.forward, &self.gradient].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

impl Classifier for Tally<'_> {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.forward.fetch_add(1, Ordering::Relaxed);
        self.inner.logits(x)
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        self.gradient.fetch_add(1, Ordering::Relaxed);
        self.inner.pull_back(x, cotangent)
    }
}

/// Two batches at a time, and the most calls that it has answered at the same time.
#[derive(Debug)]
pub struct TwoLanes<'a> {
    pub inner: &'a dyn Classifier,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl<'a> TwoLanes<'a> {
    pub fn new(inner: &'a dyn Classifier) -> Self {
        Self { inner, inside: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Classifier for TwoLanes<'_> {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.inner.logits(x)
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        // The first call waits for the other lane's.
        let started = Instant::now();
        while self.most() < 2 && started.elapsed() < Duration::from_secs(10) {
            thread::yield_now();
        }
        let back = self.inner.pull_back(x, cotangent);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        back
    }

    fn lanes(&self) -> usize {
        2
    }
}

/// z = b2 + W2 tanh(b1 + W1 x), of the golden file.
#[derive(Debug)]
pub struct Perceptron {
    pub shape: Shape,
    pub w1: Vec<f32>,
    pub b1: Vec<f32>,
    pub w2: Vec<f32>,
    pub b2: Vec<f32>,
}

impl Perceptron {
    fn hidden(&self, x: &[f32]) -> Vec<f64> {
        let width = x.len();
        let sum = |j: usize| {
            row(&self.w1, width, j)
                .iter()
                .zip(x)
                .map(|(w, x)| f64::from(*w) * f64::from(*x))
                .sum::<f64>()
        };
        (0..self.b1.len()).map(|j| (sum(j) + f64::from(self.b1[j])).tanh()).collect()
    }
}

impl Classifier for Perceptron {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let hidden = self.b1.len();
        Ok(x.chunks(pixels(self.shape))
            .flat_map(|x| {
                let h = self.hidden(x);
                (0..self.shape.classes)
                    .map(|k| {
                        let sum: f64 = row(&self.w2, hidden, k)
                            .iter()
                            .zip(&h)
                            .map(|(w, h)| f64::from(*w) * h)
                            .sum();
                        (sum + f64::from(self.b2[k])) as f32
                    })
                    .collect::<Vec<_>>()
            })
            .collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let (width, hidden) = (pixels(self.shape), self.b1.len());
        let logits = self.logits(x)?;
        let c = cotangent(0, &logits);
        let mut grad = Vec::with_capacity(x.len());
        for (x, c) in x.chunks(width).zip(c.chunks(self.shape.classes)) {
            let mut sum = vec![0f64; width];
            for (j, h) in self.hidden(x).into_iter().enumerate() {
                let back: f64 = c
                    .iter()
                    .enumerate()
                    .map(|(k, c)| f64::from(*c) * f64::from(self.w2[k * hidden + j]))
                    .sum();
                let back = back * (1.0 - h * h);
                sum.iter_mut()
                    .zip(row(&self.w1, width, j))
                    .for_each(|(s, w)| *s += back * f64::from(*w));
            }
            grad.extend(sum.into_iter().map(|v| v as f32));
        }
        Ok(PullBack { logits, grad })
    }
}
