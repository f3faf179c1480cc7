//! The images of a batch that an attack still works on, and its candidates.

use super::AttackBatch;
use crate::{
    classifier::stands,
    rows::{self, Rows},
};

/// The images of a batch that an attack still works on.
#[derive(Debug)]
pub(crate) struct Active {
    /// The row of each image in the batch.
    pub index: Vec<usize>,
    /// Clean pixels.
    pub x: Rows,
    pub labels: Vec<usize>,
    /// Candidates of the whole batch; the clean image where there is none yet.
    out: Rows,
    /// Images of the batch whose candidate is more than a clean image.
    hinted: Vec<bool>,
    fooled: usize,
}

/// Which rows stay.
#[derive(Debug)]
pub(crate) struct Keep(pub Vec<bool>);

impl Keep {
    /// `rows` without the rows that do not stay.
    pub fn apply(&self, mut rows: Rows) -> Rows {
        rows.retain(&self.0);
        rows
    }
}

impl Active {
    pub fn new(batch: &AttackBatch<'_>) -> Self {
        Self {
            index: (0..batch.len()).collect(),
            x: batch.x.clone(),
            labels: batch.labels.to_vec(),
            out: batch.x.clone(),
            hinted: vec![false; batch.len()],
            fooled: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of images that were fooled and have left.
    pub fn fooled(&self) -> usize {
        self.fooled
    }

    /// Removes the images that `logits` misclassify and makes `point` their candidates. The caller
    /// removes the rows of its own state with the result.
    pub fn drop_fooled(&mut self, logits: &Rows, point: &Rows) -> Keep {
        let done: Vec<_> =
            (0..self.len()).map(|i| !stands(logits.row(i), self.labels[i])).collect();
        self.drop_done(&done, point)
    }

    /// Removes the images for which `done` is true and makes `point` their candidates.
    pub fn drop_done(&mut self, done: &[bool], point: &Rows) -> Keep {
        for (i, _) in done.iter().enumerate().filter(|(_, done)| **done) {
            self.propose(i, point.row(i));
        }
        self.leave(done)
    }

    /// Removes the images for which `done` is true; their candidates stay as they are.
    pub fn leave(&mut self, done: &[bool]) -> Keep {
        self.fooled += done.iter().filter(|done| **done).count();
        let keep: Vec<_> = done.iter().map(|done| !done).collect();
        rows::keep(&mut self.index, &keep);
        rows::keep(&mut self.labels, &keep);
        self.x.retain(&keep);
        Keep(keep)
    }

    /// Makes the points that `logits` misclassify candidates, and lets their images stay: they are
    /// what [`finish`](Self::finish) gives of images that do not leave.
    pub fn hint(&mut self, logits: &Rows, point: &Rows) {
        for i in 0..self.len() {
            if !stands(logits.row(i), self.labels[i]) {
                self.propose(i, point.row(i));
                self.hinted[self.index[i]] = true;
            }
        }
    }

    /// Makes `point` the candidate of the active image `i`.
    pub fn propose(&mut self, i: usize, point: &[f32]) {
        self.out.row_mut(self.index[i]).copy_from_slice(point);
    }

    /// The candidates of the whole batch; the images that are left, and have no
    /// [hint](Self::hint), get `point`.
    pub fn finish(mut self, point: &Rows) -> Rows {
        for i in 0..self.len() {
            if !self.hinted[self.index[i]] {
                self.propose(i, point.row(i));
            }
        }
        self.out
    }

    /// The candidates of the whole batch, unchanged.
    pub fn into_candidates(self) -> Rows {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::RowKey;

    #[test]
    fn a_hint_is_the_candidate_of_an_image_that_stands_to_the_end() {
        let rows = |values: [f32; 3]| Rows::new(values.to_vec(), 1);
        let x = rows([0.1, 0.2, 0.3]);
        let batch = AttackBatch { x: &x, labels: &[0, 0, 0], keys: &RowKey::of(&[7, 8, 9], 0) };
        let mut active = Active::new(&batch);
        // The last pass takes images 0 and 1 for class 1.
        active.hint(&Rows::new(vec![0.0, 1.0, 0.0, 1.0, 1.0, 0.0], 2), &rows([0.5, 0.6, 0.7]));
        assert_eq!((active.len(), active.fooled()), (3, 0));
        // The mean of the passes takes image 1 for class 1, at another point.
        let keep = active
            .drop_fooled(&Rows::new(vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0], 2), &rows([0.0, 0.8, 0.0]));
        assert_eq!(keep.0, [true, false, true]);
        let found = active.finish(&Rows::new(vec![0.9, 0.4], 1));
        assert_eq!(*found, [0.5, 0.8, 0.4]);
    }
}
