//! `sora bench data`: images a second of the loader alone, with the settings of a training.

use std::{path::PathBuf, time::Instant};

use serde_json::json;
use sora::{
    data::{self, Augment, Loader, LoaderOptions, OpenOptions},
    device,
};

use crate::{
    commands::shared::start_threads,
    complete,
    console::print_json,
    error::{Failure, Result},
};

/// Which set, and how it is loaded.
#[derive(Debug, clap::Args)]
pub struct DataBench {
    /// Data set: a name of `sora data list`, folder:PATH or imagefolder:PATH
    #[arg(long, value_name = "NAME|PATH", add = complete::datasets())]
    pub dataset: String,
    /// Where data sets are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Height and width of the images, where the set allows a choice
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Augmentation [default: the data set's]
    #[arg(long)]
    pub augment: Option<Augment>,
    /// Images of a batch
    #[arg(long, visible_alias = "batch-size", default_value_t = 128)]
    pub batch: usize,
    /// Batches to time, after one that is not
    #[arg(long, default_value_t = 40)]
    pub batches: usize,
    /// Batches prepared ahead
    #[arg(long, default_value_t = 4)]
    pub prefetch: usize,
    /// Threads of the loader's own; 0: those of the program
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Only the first N training images
    #[arg(long, value_name = "N")]
    pub limit_train: Option<usize>,
}

/// Opens the data set, runs the loader for some batches and prints one JSON line.
pub fn run(args: DataBench) -> Result<()> {
    if args.batches == 0 {
        return Err(Failure::input("bench data: --batches must be at least 1"));
    }
    let threads = start_threads(args.threads)?;
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
    let (images, seconds) = time(&loader, args.batches)?;
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

/// Number of images of `batches` batches, and the seconds that they took.
fn time(loader: &Loader, batches: usize) -> Result<(usize, f64)> {
    let mut images = 0;
    let mut started = None;
    for batch in (0..).flat_map(|epoch| loader.epoch(epoch, 0)).take(batches + 1) {
        // The first batch fills the caches and starts the threads, so the clock starts at its end.
        let batch = batch?;
        match started {
            None => started = Some(Instant::now()),
            Some(_) => images += batch.len(),
        }
    }
    Ok((images, started.map_or(0.0, |started| started.elapsed().as_secs_f64())))
}
