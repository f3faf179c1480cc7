//! A classifier of your own, judged with AutoAttack: a network of one hidden layer that is trained
//! here on two-dimensional "images" of three classes. It uses no other code of this project.
//!
//! ```text
//! cargo run --release -p sora-robustness --example own_classifier
//! ```

use robustness::{
    Classifier, Cotangent, EvalConfig, Evaluator, InMemory, Ledger, Norm, PullBack, Result, Shape,
    Threat, attack, sanity,
};

const HIDDEN: usize = 16;
const SHAPE: Shape = Shape { channels: 1, height: 1, width: 2, classes: 3 };

/// z = V tanh(W x + b).
#[derive(Clone, Debug)]
struct Network {
    w: [[f32; 2]; HIDDEN],
    b: [f32; HIDDEN],
    v: [[f32; HIDDEN]; 3],
}

impl Network {
    fn hidden(&self, x: &[f32]) -> [f32; HIDDEN] {
        std::array::from_fn(|j| (self.w[j][0] * x[0] + self.w[j][1] * x[1] + self.b[j]).tanh())
    }

    fn scores(&self, hidden: &[f32; HIDDEN]) -> [f32; 3] {
        std::array::from_fn(|k| self.v[k].iter().zip(hidden).map(|(v, h)| v * h).sum())
    }

    /// The gradient of `sum_k c_k z_k` by the inputs of the hidden units.
    fn back(&self, hidden: &[f32; HIDDEN], c: &[f32]) -> [f32; HIDDEN] {
        std::array::from_fn(|j| {
            let sum: f32 = (0..3).map(|k| c[k] * self.v[k][j]).sum();
            sum * (1.0 - hidden[j] * hidden[j])
        })
    }

    /// A step of gradient descent on the cross-entropy of one image.
    fn learn(&mut self, x: &[f32], label: usize, rate: f32) {
        let hidden = self.hidden(x);
        let z = self.scores(&hidden);
        let sum: f32 = z.iter().map(|z| z.exp()).sum();
        let c: [f32; 3] =
            std::array::from_fn(|k| z[k].exp() / sum - if k == label { 1.0 } else { 0.0 });
        let back = self.back(&hidden, &c);
        for j in 0..HIDDEN {
            (0..3).for_each(|k| self.v[k][j] -= rate * c[k] * hidden[j]);
            (0..2).for_each(|p| self.w[j][p] -= rate * back[j] * x[p]);
            self.b[j] -= rate * back[j];
        }
    }
}

/// The interface that an evaluation needs.
impl Classifier for Network {
    fn shape(&self) -> Shape {
        SHAPE
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        Ok(x.chunks(2).flat_map(|x| self.scores(&self.hidden(x))).collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let logits = self.logits(x)?;
        let cotangents = cotangent(0, &logits);
        let mut grad = Vec::with_capacity(x.len());
        for (x, c) in x.chunks(2).zip(cotangents.chunks(3)) {
            let back = self.back(&self.hidden(x), c);
            grad.extend((0..2).map(|p| (0..HIDDEN).map(|j| back[j] * self.w[j][p]).sum::<f32>()));
        }
        Ok(PullBack { logits, grad })
    }
}

/// A point of the square, and the third of the square, by angle, in which it lies.
fn sample(k: usize) -> ([f32; 2], usize) {
    let x = [(k as f32 * 0.754_877_7).fract(), (k as f32 * 0.569_840_3).fract()];
    let angle = (x[1] - 0.5).atan2(x[0] - 0.5) / std::f32::consts::TAU + 0.5;
    (x, ((angle * 3.0) as usize).min(2))
}

fn main() -> Result<()> {
    let small = |k: usize| (k as f32 * 0.618_034).fract() - 0.5;
    let mut network = Network {
        w: std::array::from_fn(|j| [4.0 * small(2 * j), 4.0 * small(2 * j + 1)]),
        b: std::array::from_fn(|j| 2.0 * small(7 * j + 3)),
        v: std::array::from_fn(|k| std::array::from_fn(|j| small(k * HIDDEN + j))),
    };
    for step in 0..60_000 {
        let (x, label) = sample(step % 2000);
        network.learn(&x, label, 0.05);
    }

    let (pixels, labels): (Vec<_>, Vec<_>) = (5000..5500).map(sample).unzip();
    let (pixels, threat) = (pixels.concat(), Threat { norm: Norm::Linf, epsilon: 0.03 });
    for warning in sanity::probe(&network, &pixels[..128], &labels[..64], threat.norm, 0)? {
        println!("warning: {warning}");
    }
    let images = InMemory::new(SHAPE, pixels, labels)?;
    let entries = attack::entries(&["clean", "fgsm", "pgd-50", "autoattack"], threat.norm)?;
    let settings = EvalConfig::under(threat);
    let outcome =
        Evaluator::new(&network, &images, settings, Ledger::in_memory())?.run(&entries)?;
    for (name, result) in &outcome.results.0 {
        let [low, high] = result.accuracy.ci95;
        println!("{name:12} {:.3} ({low:.3} to {high:.3})", result.accuracy.accuracy);
    }
    outcome.notes.iter().for_each(|note| println!("note: {note}"));
    outcome.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
