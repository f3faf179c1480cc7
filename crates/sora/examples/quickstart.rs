//! Trains a small network on images drawn from a seed and measures it, in memory.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use sora::{
    evaluate::{EvalConfig, evaluate},
    prelude::*,
};

fn main() -> Result<()> {
    let data = sora::data::open("synthetic", &Default::default())?;
    let run = Trainer::new("sora").model("preact-resnet18", 4).epochs(2).fit(&data)?;
    let threat = Threat { norm: Norm::Linf, epsilon: 8.0 / 255.0 };
    let settings = EvalConfig { threat, seed: 0, batch: 256 };
    let found = evaluate(&run.model, &data.test.take(200), &["clean", "pgd-10"], settings)?;
    for (attack, result) in &found.results.0 {
        println!("{attack:8} {:.3}", result.accuracy.accuracy);
    }
    found.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
