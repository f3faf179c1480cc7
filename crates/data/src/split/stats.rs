//! Mean and standard deviation of a split.

use rayon::prelude::*;

use super::list::Split;
use crate::error::Result;

/// Most images of a split decoded on demand that the statistics use.
const STATS_SAMPLE: usize = 20_000;

impl Split {
    /// Per-channel mean and standard deviation (population) of the images in \[0,1\], from exact
    /// sums of integers. An empty split gives `([0; C], [1; C])`.
    ///
    /// Of a split decoded on demand at most 20,000 images are used, evenly spaced. A channel that
    /// never varies gets a standard deviation of 1/255, so that a division by it stays finite.
    ///
    /// # Errors
    /// Those of [`Split::image`].
    pub fn channel_stats(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let [channels, height, width] = self.shape();
        if self.is_empty() {
            return Ok((vec![0.0; channels], vec![1.0; channels]));
        }
        let zero = || vec![(0u64, 0u64); channels];
        let n = if self.is_on_demand() { self.len().min(STATS_SAMPLE) } else { self.len() };
        let sums = (0..n)
            .into_par_iter()
            .try_fold(zero, |mut sums, k| {
                let image = self.image(k * self.len() / n)?;
                for (sum, plane) in sums.iter_mut().zip(image.chunks(height * width)) {
                    for &value in plane {
                        sum.0 += u64::from(value);
                        sum.1 += u64::from(value) * u64::from(value);
                    }
                }
                Ok(sums)
            })
            .try_reduce(zero, |a, b| {
                Ok(a.iter().zip(&b).map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect())
            })?;
        let count = (n * height * width) as f64;
        Ok(sums
            .iter()
            .map(|&(sum, squares)| {
                let mean = sum as f64 / count;
                let variance = (squares as f64 / count - mean * mean).max(0.0);
                (mean / 255.0, (variance.sqrt() / 255.0).max(1.0 / 255.0))
            })
            .unzip())
    }
}
