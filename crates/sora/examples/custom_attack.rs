//! An attack from outside the crate, judged by the evaluator beside those of the registry.
//!
//! Random points of the ball's surface: what an opponent without gradients and without patience
//! would try. In l-inf every pixel moves by epsilon up or down.
//!
//! ```text
//! cargo run --release --example custom_attack -- runs/sora
//! ```

use std::path::PathBuf;

use sora::{
    attack::{self, Attack, AttackContext, Batch, Entry, rows, stands},
    device,
    error::{Error, Result},
    evaluate::{EvalConfig, Evaluator, Ledger},
    noise::Draw,
    run::{self, Subject},
    threat::Threat,
};

/// Tries `points` random corners of the ball.
#[derive(Debug)]
struct Corners {
    points: usize,
}

impl Attack for Corners {
    fn run(&self, cx: &mut AttackContext<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let (width, classes, epsilon) = (cx.pixels(), cx.classes(), cx.threat.epsilon);
        let mut best = batch.x.to_vec();
        let mut fooled = vec![false; batch.len()];
        for k in 0..self.points {
            // Draws are keyed by sample and try: the batch size changes nothing.
            let mut points = vec![0.0; batch.x.len()];
            cx.fill_uniform_at(Draw::Sign, k, &mut points, batch.ids);
            points
                .iter_mut()
                .zip(batch.x)
                .for_each(|(v, x)| *v = x + if *v < 0.5 { -epsilon } else { epsilon });
            rows::for_each(&mut points, width, |i, point| {
                rows::project(cx.threat, rows::row(batch.x, width, i), point)
            });
            let logits = cx.model.logits(&points)?;
            for (i, fooled) in fooled.iter_mut().enumerate() {
                if !*fooled && !stands(rows::row(&logits, classes, i), batch.labels[i]) {
                    *fooled = true;
                    rows::row_mut(&mut best, width, i)
                        .copy_from_slice(rows::row(&points, width, i));
                }
            }
            cx.tick(k + 1, self.points, fooled.iter().filter(|fooled| **fooled).count());
        }
        Ok(best)
    }
}

fn main() -> Result<()> {
    let path = PathBuf::from(
        std::env::args().nth(1).ok_or_else(|| Error::input("usage: custom_attack RUN"))?,
    );
    let subject = Subject::load(&path, &device::device("cpu")?)?;
    let Some((_, config)) = &subject.run else {
        return Err(Error::input(format!("{}: expected a run folder", path.display())));
    };
    let split = run::open_dataset(config)?.test.take(500);
    let threat = Threat { norm: subject.norm, epsilon: subject.epsilon.value() };
    let settings = EvalConfig { attacks: Vec::new(), threat, seed: 0, batch: 256, progress: true };
    let entries = [
        attack::entry("clean", threat.norm)?,
        Entry::custom("corners", Box::new(Corners { points: 50 })),
        attack::entry("pgd-10", threat.norm)?,
    ];
    let outcome =
        Evaluator::new(&subject.model, &split, settings, Ledger::in_memory())?.run(&entries)?;
    for (name, result) in &outcome.results.0 {
        println!("{name:10} {:.4}", result.accuracy.accuracy);
    }
    outcome.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
