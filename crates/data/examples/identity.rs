//! Opens a data set and prints its content identity: `cargo run --release -p sora-robust-data
//! --example identity -- fashion-mnist`.

use std::time::Instant;

use sora_data::{OpenOptions, Result, open};

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "synthetic".into());
    let start = Instant::now();
    let data = open(&name, &OpenOptions::default())?;
    println!("opened in {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let identity = data.identity()?;
    let first = start.elapsed().as_secs_f64();
    let start = Instant::now();
    data.identity()?;
    println!("hashed in {first:.3} s, a second time in {:.4} s", start.elapsed().as_secs_f64());
    for (split, identity) in [("train", identity.train), ("test", identity.test)] {
        println!("{split}: {} images, {}", identity.images, identity.sha256);
    }
    Ok(())
}
