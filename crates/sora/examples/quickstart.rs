//! Trains a small network on images drawn from a seed and measures it, in memory.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use sora::prelude::*;

fn main() -> Result<()> {
    let data = sora::data::open("synthetic", &Default::default())?;
    let run = Trainer::new("sora").model("preact-resnet18", 4).epochs(2).fit(&data)?;
    let found = Evaluation::of(&run.model).on(&data.test).suite(Suite::Quick).limit(200).run()?;
    for (attack, result) in &found.results.0 {
        println!("{attack:8} {:.3}", result.accuracy.accuracy);
    }
    found.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
