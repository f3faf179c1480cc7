//! What the processes of a data-parallel training say to each other.

use std::{fmt::Debug, sync::Arc};

use crate::error::Result;

/// Values of a sum that are under way at a time: it bounds the memory beside the values.
const PIECE: usize = 1 << 24;

/// Bytes in all that every rank may be sent where it adds up everything by itself: one message
/// less than adding up a part and sharing it.
pub const SMALL_SUM: usize = 64 << 10;

/// The link between the processes of one training. All ranks make the same calls in the same
/// order.
pub trait Communicator: Debug + Send + Sync {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// The bytes of all ranks, one after the other; each gives as many.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>>;

    /// Sends the blocks of `mine`, one a rank and all of one length, and gives those that came for
    /// this rank, in the order of the ranks.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>>;

    /// Another link between the same ranks, for the thread that asks for it: calls over one and
    /// over the other need not come in the same order everywhere. `None` where there can be one
    /// link only, on every rank then. It is a call over this link, too.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        Ok(None)
    }

    /// Replaces `values` by their sums over all ranks, the same bits on each.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn sum(&self, values: &mut [f64]) -> Result<()> {
        values.chunks_mut(PIECE).try_for_each(|piece| sum_piece(self, piece))
    }

    /// As [`sum`](Self::sum), for many values: each is added up in f64 and rounded once.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn sum_f32(&self, values: &mut [f32]) -> Result<()> {
        values.chunks_mut(PIECE).try_for_each(|piece| sum_piece(self, piece))
    }

    /// Whether any rank says so.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn any(&self, says: bool) -> Result<bool> {
        Ok(self.gather(&[u8::from(says)])?.contains(&1))
    }

    /// The bytes of every rank, which may be of different lengths.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn gather_each(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather(&(mine.len() as u64).to_ne_bytes())?;
        let lengths: Vec<usize> =
            lengths.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b) as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut parts: Vec<Vec<u8>> = vec![Vec::new(); lengths.len()];
        // What comes together has a length that MPI can count.
        let most = (PIECE / lengths.len().max(1)).max(1);
        for start in (0..longest).step_by(most) {
            let size = most.min(longest - start);
            let mut piece = mine.get(start..mine.len().min(start + size)).unwrap_or(&[]).to_vec();
            piece.resize(size, 0);
            for (part, bytes) in parts.iter_mut().zip(self.gather(&piece)?.chunks_exact(size)) {
                part.extend_from_slice(bytes);
            }
        }
        parts.iter_mut().zip(lengths).for_each(|(part, length)| part.truncate(length));
        Ok(parts)
    }
}

/// A value that sums are taken of, in f64.
trait Summand: bytemuck::Pod {
    fn wide(self) -> f64;
    fn narrow(sum: f64) -> Self;
}

impl Summand for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn narrow(sum: f64) -> Self {
        sum
    }
}

impl Summand for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn narrow(sum: f64) -> Self {
        sum as f32
    }
}

/// The `index`-th value in `bytes`.
fn value<T: Summand>(bytes: &[u8], index: usize) -> T {
    bytemuck::pod_read_unaligned(&bytes[index * size_of::<T>()..][..size_of::<T>()])
}

/// Sums over the rows of `all`, each as long as `sums`, in their order.
fn add_rows<T: Summand>(all: &[u8], sums: &mut [T]) {
    let rows: Vec<&[u8]> = all.chunks_exact(size_of_val(sums).max(1)).collect();
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum = T::narrow(rows.iter().map(|row| value::<T>(row, index).wide()).sum());
    }
}

fn sum_piece<T: Summand, C: Communicator + ?Sized>(link: &C, values: &mut [T]) -> Result<()> {
    let world = link.world();
    if size_of_val(values) * world <= SMALL_SUM {
        let all = link.gather(bytemuck::cast_slice(values))?;
        add_rows(&all, values);
        return Ok(());
    }
    // Each rank adds up a part, and everybody gets all parts.
    let part = values.len().div_ceil(world);
    let mut padded = values.to_vec();
    padded.resize(part * world, T::zeroed());
    let mine = link.exchange(bytemuck::cast_slice(&padded))?;
    let mut sums = vec![T::zeroed(); part];
    add_rows(&mine, &mut sums);
    let all = link.gather(bytemuck::cast_slice(&sums))?;
    values.iter_mut().enumerate().for_each(|(index, sum)| *sum = value(&all, index));
    Ok(())
}

/// A training in one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        Ok(mine.to_vec())
    }

    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>> {
        Ok(mine.to_vec())
    }
}
