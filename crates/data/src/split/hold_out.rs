//! Takes a validation split from the training images.

use rand::seq::SliceRandom;
use sora_rng::{Purpose, stream};

use super::list::Split;
use crate::error::{DataError, Result};

impl Split {
    /// Splits off `n` images as a validation split: `(train, validation)`, both in the original
    /// order.
    ///
    /// The choice is stratified. Each class gives its share of `n`, rounded by largest remainder,
    /// so that the classes' shares in the validation split differ from those in the whole by less
    /// than one image. Within a class the choice depends on `seed` alone.
    ///
    /// # Errors
    /// [`DataError::Value`] when `n` would leave no training image.
    pub fn hold_out(&self, n: usize, seed: u64) -> Result<(Self, Self)> {
        if n == 0 {
            return Ok((self.clone(), self.subset(&[])?));
        }
        if n >= self.len() {
            return Err(DataError::value(
                "validation size",
                n,
                format!("less than the {} training images", self.len()),
            ));
        }
        let mut members = vec![Vec::new(); self.num_classes()];
        for i in 0..self.len() {
            members[self.label(i) as usize].push(i);
        }
        let quotas = largest_remainder(n, &members.iter().map(Vec::len).collect::<Vec<_>>());
        let mut held = vec![false; self.len()];
        for (class, (list, quota)) in members.iter_mut().zip(quotas).enumerate() {
            list.shuffle(&mut stream(seed, Purpose::Split, 0, 0, class as u64));
            for &i in list.iter().take(quota) {
                held[i] = true;
            }
        }
        let part = |wanted: bool| {
            let places: Vec<usize> = (0..self.len()).filter(|&i| held[i] == wanted).collect();
            self.subset(&places)
        };
        Ok((part(false)?, part(true)?))
    }
}

/// Distributes `n` over groups in proportion to `sizes` by largest remainder (ties go to the lower
/// index). The result sums to `n`; `n` must not exceed the sum of `sizes`.
fn largest_remainder(n: usize, sizes: &[usize]) -> Vec<usize> {
    let total: u128 = sizes.iter().map(|&s| s as u128).sum();
    if total == 0 {
        return vec![0; sizes.len()];
    }
    let exact = |s: usize| n as u128 * s as u128;
    let mut quotas: Vec<usize> = sizes.iter().map(|&s| (exact(s) / total) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&k| std::cmp::Reverse(exact(sizes[k]) % total));
    let missing = n - quotas.iter().sum::<usize>();
    for &k in order.iter().take(missing) {
        quotas[k] += 1;
    }
    quotas
}
