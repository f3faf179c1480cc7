//! Rows of pixels on the host: norms, balls, boxes, and removing the images that an attack has
//! finished.
//!
//! Every operation works on one image at a time, so that an image's result does not depend on its
//! batch.

mod norms;
mod projection;

use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

pub use norms::{ascend, distance, l2, normaliser, scale_to};
pub use projection::{project, round_to_eight_bits};

/// Rows of values of one width: the pixels of images, or their logits. As a slice, the rows follow
/// one another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// `data` cut into rows of `width` values.
    pub fn new(data: Vec<f32>, width: usize) -> Self {
        Self { data, width: width.max(1) }
    }

    /// `n` rows of zeros.
    pub fn zeros(n: usize, width: usize) -> Self {
        Self::new(vec![0.0; n * width], width)
    }

    /// Number of values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, mutable.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..(i + 1) * self.width]
    }

    /// The rows, one after another.
    pub fn each(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.width.max(1))
    }

    /// The rows at `indices`, copied.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let data = indices.iter().flat_map(|&i| self.row(i)).copied().collect();
        Self::new(data, self.width)
    }

    /// Removes the rows for which `keep` is false, in place.
    pub fn retain(&mut self, keep: &[bool]) {
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let mut kept = 0;
        for (i, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            self.data.copy_within(i * self.width..(i + 1) * self.width, kept * self.width);
            kept += 1;
        }
        self.data.truncate(kept * self.width);
    }

    /// Runs `work` on every row and its number, in parallel.
    pub fn for_each(&mut self, work: impl Fn(usize, &mut [f32]) + Sync) {
        self.data.par_chunks_mut(self.width.max(1)).enumerate().for_each(|(i, row)| work(i, row));
    }

    /// Does what [`for_each`](Self::for_each) does, and returns the results of `work` in the order
    /// of the rows.
    pub fn map<R: Send>(&mut self, work: impl Fn(usize, &mut [f32]) -> R + Sync) -> Vec<R> {
        let rows = self.data.par_chunks_mut(self.width.max(1)).enumerate();
        rows.map(|(i, row)| work(i, row)).collect()
    }

    /// Copies `other` into this value's memory.
    pub fn copy_from(&mut self, other: &Self) {
        self.data.clear();
        self.data.extend_from_slice(&other.data);
        self.width = other.width;
    }

    /// All values, row by row.
    pub fn into_values(self) -> Vec<f32> {
        self.data
    }
}

impl Deref for Rows {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data
    }
}

impl DerefMut for Rows {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

/// Row `i` of a slice of rows of `width` values.
pub fn row<T>(rows: &[T], width: usize, i: usize) -> &[T] {
    &rows[i * width..(i + 1) * width]
}

/// Runs `work` on the rows of a slice, each of `width` values, and on the rows' numbers, in
/// parallel.
pub fn for_each(rows: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    rows.par_chunks_mut(width.max(1)).enumerate().for_each(|(i, row)| work(i, row));
}

/// The values at `indices`, copied.
pub(crate) fn pick<T: Copy>(values: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|&i| values[i]).collect()
}

/// Removes the values for which `stays` is false, in place.
pub(crate) fn keep<T>(values: &mut Vec<T>, stays: &[bool]) {
    let mut stays = stays.iter();
    values.retain(|_| stays.next().is_none_or(|stays| *stays));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_left_out_in_place() {
        let mut rows = Rows::new(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2);
        rows.retain(&[true, false, true]);
        assert_eq!((rows.count(), &*rows), (2, &[0.0, 1.0, 4.0, 5.0][..]));
        assert_eq!(*rows.select(&[1, 1, 0]), [4.0, 5.0, 4.0, 5.0, 0.0, 1.0]);
        let mut values = vec!['a', 'b', 'c'];
        keep(&mut values, &[false, true, true]);
        assert_eq!((pick(&values, &[1, 1]), values), (vec!['c', 'c'], vec!['b', 'c']));
    }
}
