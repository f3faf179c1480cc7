//! `sora bench data`: images a second of the loader alone, as training uses it.

use std::time::Instant;

use serde_json::json;
use sora::{
    data::{self, Loader, LoaderOptions, OpenOptions},
    device,
    error::{Error, Result},
};

use super::print_json;
use crate::cli::DataBench;

/// Opens the data set, runs the loader for some batches and prints one JSON line.
pub fn data(args: DataBench) -> Result<()> {
    if args.batches == 0 {
        return Err(Error::input("bench data: --batches must be at least 1"));
    }
    let threads = device::set_threads(args.threads);
    let options = OpenOptions {
        data_dir: args.data_dir,
        image_size: args.image_size,
        limit_train: args.limit_train,
        ..Default::default()
    };
    let started = Instant::now();
    let dataset = data::open(&args.dataset, &options)?;
    let open_s = started.elapsed().as_secs_f64();
    let augment = args.augment.unwrap_or(dataset.info.augment);
    let options = LoaderOptions {
        workers: args.workers,
        prefetch: args.prefetch,
        ..LoaderOptions::train(args.batch, 0, augment)
    };
    let loader = Loader::new(dataset.train.clone(), options)?;
    let (mut batches, mut images) = (0, 0);
    let mut started = Instant::now();
    for batch in (0..).flat_map(|epoch| loader.epoch(epoch, 0)).take(args.batches + 1) {
        // The first batch fills the caches and starts the threads; the clock runs from its end.
        let batch = batch?;
        if batches == 0 {
            started = Instant::now();
        } else {
            images += batch.len();
        }
        batches += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    print_json(&json!({
        "dataset": args.dataset,
        "on_demand": dataset.train.is_on_demand(),
        "train": dataset.train.len(),
        "shape": dataset.train.shape(),
        "augment": augment,
        "batch": args.batch,
        "batches": args.batches,
        "prefetch": args.prefetch,
        "workers": args.workers,
        "threads": threads,
        "open_s": open_s,
        "seconds": seconds,
        "images_per_s": images as f64 / seconds.max(1e-9),
        "peak_rss_mib": device::peak_rss_mib(),
    }))
}
