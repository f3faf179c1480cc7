//! An attack from outside the crate, judged by the evaluator beside those of the registry.
//!
//! The attack tries random corners of the ball, as an opponent without gradients would. In l-inf
//! every pixel moves by epsilon up or down.
//!
//! ```text
//! cargo run --release -p sora-robustness --example custom_attack
//! ```

use robustness::{
    Attack, AttackContext, Classifier, Cotangent, Entry, EvalConfig, Evaluator, InMemory, Ledger,
    Norm, PullBack, Result, Rows, Shape, Threat,
    attack::{AttackBatch, AttackDraw},
    entry, predicted, rows, stands,
};

/// Tries `points` random corners of the ball.
#[derive(Debug)]
struct Corners {
    points: usize,
}

impl Attack for Corners {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &AttackBatch<'_>) -> Result<Rows> {
        let epsilon = cx.threat.epsilon;
        let mut best = batch.x.clone();
        let mut fooled = vec![false; batch.len()];
        for k in 0..self.points {
            // Draws are keyed by row and try, so the batch size changes nothing.
            let mut points = Rows::zeros(batch.len(), cx.pixels());
            cx.fill_uniform_at(AttackDraw::Sign, k, &mut points, batch.keys);
            points
                .iter_mut()
                .zip(batch.x.iter())
                .for_each(|(v, x)| *v = x + if *v < 0.5 { -epsilon } else { epsilon });
            points.for_each(|i, point| rows::project(cx.threat, batch.x.row(i), point));
            let logits = cx.logits(&points)?;
            for (i, fooled) in fooled.iter_mut().enumerate() {
                if !*fooled && !stands(logits.row(i), batch.labels[i]) {
                    *fooled = true;
                    best.row_mut(i).copy_from_slice(points.row(i));
                }
            }
            cx.tick(k + 1, self.points, fooled.iter().filter(|fooled| **fooled).count());
        }
        Ok(best)
    }
}

/// A network under attack: z_k = sum_p w_kp x_p, from made-up weights.
#[derive(Debug)]
struct Linear {
    weights: Vec<f32>,
}

const SHAPE: Shape = Shape { channels: 1, height: 8, width: 8, classes: 3 };

impl Classifier for Linear {
    fn shape(&self) -> Shape {
        SHAPE
    }

    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum();
        let images = x.chunks(SHAPE.pixels());
        Ok(images.flat_map(|x| self.weights.chunks(x.len()).map(move |w| dot(w, x))).collect())
    }

    fn pull_back(&self, x: &[f32], cotangent: &mut Cotangent<'_>) -> Result<PullBack> {
        let logits = self.logits(x)?;
        let mut grad = vec![0.0; x.len()];
        let images = grad.chunks_mut(SHAPE.pixels());
        for (grad, c) in images.zip(cotangent(0, &logits).chunks(SHAPE.classes)) {
            for (w, c) in self.weights.chunks(grad.len()).zip(c) {
                grad.iter_mut().zip(w).for_each(|(g, w)| *g += c * w);
            }
        }
        Ok(PullBack { logits, grad })
    }
}

fn main() -> Result<()> {
    let noise = |k: usize| (k as f32 * 0.754_877_7).fract();
    let model =
        Linear { weights: (0..SHAPE.classes * SHAPE.pixels()).map(|k| noise(k) - 0.5).collect() };
    // 200 images, labelled with the network's own predictions.
    let pixels: Vec<f32> = (0..200 * SHAPE.pixels()).map(|k| noise(k * k + 11)).collect();
    let labels = model.logits(&pixels)?.chunks(SHAPE.classes).map(predicted).collect();
    let images = InMemory::new(SHAPE, pixels, labels)?;

    let threat = Threat { norm: Norm::Linf, epsilon: 0.05 };
    let settings = EvalConfig { batch: 64, ..EvalConfig::under(threat) };
    let entries = [
        entry("clean", threat.norm)?,
        Entry::custom("corners", Box::new(Corners { points: 50 })),
        entry("pgd-10", threat.norm)?,
    ];
    let outcome = Evaluator::new(&model, &images, settings, Ledger::in_memory())?.run(&entries)?;
    for (name, result) in &outcome.results.0 {
        println!("{name:10} {:.4}", result.accuracy.accuracy);
    }
    outcome.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
