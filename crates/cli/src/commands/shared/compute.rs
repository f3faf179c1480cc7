//! Arguments for the machine, and for computing data that a run's records do not hold.

use std::path::PathBuf;

use sora::{device, report::compute::ComputeOptions};

use crate::error::Result;

/// Device and threads.
#[derive(Clone, Debug, clap::Args)]
pub struct Machine {
    /// Where to compute: cpu, `cuda[:N]`, `rocm[:N]`, wgpu, vulkan or metal
    #[arg(long, default_value = "cpu", help_heading = "Machine")]
    pub device: String,
    /// CPU threads; 0: one a core
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Machine")]
    pub threads: usize,
}

impl Machine {
    /// Starts the threads and returns their number.
    ///
    /// # Errors
    /// Too many threads, or more than the system allows.
    pub fn start_threads(&self) -> Result<usize> {
        start_threads(self.threads)
    }
}

/// Starts `threads` threads, like [`Machine::start_threads`].
///
/// # Errors
/// Those of [`Machine::start_threads`].
pub fn start_threads(threads: usize) -> Result<usize> {
    Ok(device::set_threads(threads)?)
}

/// How to compute what a run's records do not hold.
#[derive(Clone, Debug, clap::Args)]
pub struct ComputeArgs {
    /// Test images of an accuracy
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Data")]
    pub limit: usize,
    /// Where data sets are kept [default: where the run found them]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Seed of random starts and directions
    #[arg(long, default_value_t = 0, help_heading = "Data")]
    pub seed: u64,
    #[command(flatten)]
    pub machine: Machine,
}

impl ComputeArgs {
    /// The options in the library's type; this starts the threads.
    ///
    /// # Errors
    /// Those of [`Machine::start_threads`].
    pub fn options(&self) -> Result<ComputeOptions> {
        self.machine.start_threads()?;
        Ok(ComputeOptions {
            device: self.machine.device.clone(),
            threads: self.machine.threads,
            data_dir: self.data_dir.clone(),
            limit: self.limit,
            seed: self.seed,
            ..ComputeOptions::default()
        })
    }
}
