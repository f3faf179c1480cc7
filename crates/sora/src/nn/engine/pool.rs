//! The pool of buffers. The next step reuses an activation's memory, instead of returning it to the
//! system and paying for page faults again. Buffers are halved where that serves, and halves join again
//! (Knowlton 1965, "A fast storage allocator").

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
    sync::{Mutex, PoisonError, Weak},
};

use serde::Serialize;
use sora_kernels::Buffer;

use super::buffers::Pooled;

/// Number of requests after which an unused buffer is returned to the system. This is a few steps
/// of training, so that a phase of the work with other shapes does not hold the memory of two
/// phases.
const PATIENCE: u64 = 4096;

/// The number of requests while batches shrink. It is larger because their sizes come and go, a
/// step of an attack makes few requests, and a returned buffer costs page faults.
const PATIENCE_SHRINKING: u64 = 16 * PATIENCE;

/// Greatest ratio of a lent buffer's length to the request while batches shrink.
const LONGER: usize = 4;

/// How often a buffer is halved at most. The maps of a stage have half the values of those of the stage
/// before, and the deep ones are gone when the backward pass needs memory for the large ones.
const HALVINGS: u32 = 5;

/// Number of lengths that are remembered.
const KNOWN: usize = 4096;

/// Counts of the pool's work so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolCounts {
    /// Number of requests for buffers of 64 KiB and more.
    pub requests: u64,
    /// Number of requests that had to allocate.
    pub misses: u64,
    /// Bytes of all buffers, in use and idle.
    pub bytes: u64,
    /// Greatest number of bytes in use at one time.
    pub peak_used: u64,
}

/// Idle buffers by length, each with the request count at which it came back.
#[derive(Default)]
pub(super) struct Pool {
    idle: BTreeMap<usize, Vec<(Buffer, u64)>>,
    /// Lengths that were asked for.
    known: HashSet<usize>,
    /// Number of live [`Shrinking`] values.
    shrinking: usize,
    /// Buffers that tensors hold, by address.
    pub lent: HashMap<usize, Weak<Pooled>>,
    counts: PoolCounts,
    used: u64,
}

fn bytes(len: usize) -> u64 {
    (len * size_of::<f32>()) as u64
}

/// The answer to a request.
pub(super) enum Taken {
    Idle(Buffer),
    /// Memory is to be allocated for the length, doubled so many times.
    None(u32),
}

impl Pool {
    pub fn take(&mut self, len: usize) -> Taken {
        self.counts.requests += 1;
        if self.counts.requests.is_multiple_of(PATIENCE / 8) {
            let patience = if self.shrinking > 0 { PATIENCE_SHRINKING } else { PATIENCE };
            let oldest = self.counts.requests.saturating_sub(patience);
            let mut freed = 0;
            self.idle.iter_mut().for_each(|(len, buffers)| {
                let before = buffers.len();
                // A part gives no memory back.
                buffers.retain(|(buffer, since)| *since >= oldest || buffer.is_part());
                freed += bytes(*len) * (before - buffers.len()) as u64;
            });
            self.idle.retain(|_, buffers| !buffers.is_empty());
            self.counts.bytes -= freed;
        }
        // Among buffers of one length the newest comes first: it is the likeliest to be in a cache,
        // and the age of the others shows how many are not needed.
        let most = if self.shrinking > 0 { LONGER * len + 1 } else { len + 1 };
        let taken = self
            .idle
            .range_mut(len..most)
            .find_map(|(_, buffers)| buffers.pop())
            .map(|(buffer, _)| buffer)
            .or_else(|| self.carved(len));
        let taken = match taken {
            Some(buffer) => Taken::Idle(buffer),
            None => {
                let doubled = |times: &u32| self.known.contains(&(len << times));
                let times = halvings(len).rev().find(doubled).unwrap_or(0);
                self.counts.misses += 1;
                self.counts.bytes += bytes(len << times);
                Taken::None(times)
            }
        };
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(len);
        self.used += bytes(match &taken {
            Taken::Idle(buffer) => buffer.len(),
            Taken::None(_) => len,
        });
        self.counts.peak_used = self.counts.peak_used.max(self.used);
        taken
    }

    /// A buffer of `len` floats from an idle one of twice, four times, ... the length.
    fn carved(&mut self, len: usize) -> Option<Buffer> {
        let (buffer, times) = halvings(len).find_map(|times| {
            let longer = self.idle.get_mut(&(len << times))?;
            Some((longer.pop()?.0, times))
        })?;
        Some(self.cut(buffer, times))
    }

    /// The first of the halves of the halves ... of `buffer`, `times` deep; the others are idle.
    pub fn cut(&mut self, mut buffer: Buffer, times: u32) -> Buffer {
        for _ in 0..times {
            buffer = match buffer.halves() {
                Ok([first, second]) => {
                    let requests = self.counts.requests;
                    self.idle.entry(second.len()).or_default().push((second, requests));
                    first
                }
                Err(whole) => whole,
            };
        }
        buffer
    }

    pub fn give_back(&mut self, mut buffer: Buffer) {
        self.used -= bytes(buffer.len());
        while buffer.is_part() {
            let Some(joined) = self.joined(buffer) else { return };
            buffer = joined;
        }
        self.idle.entry(buffer.len()).or_default().push((buffer, self.counts.requests));
    }

    /// `buffer`, a part, and its other half in one; `None` while that is in use, and `buffer` is idle
    /// then.
    fn joined(&mut self, buffer: Buffer) -> Option<Buffer> {
        let requests = self.counts.requests;
        let idle = self.idle.entry(buffer.len()).or_default();
        let other = idle.iter().position(|(other, _)| other.is_half_with(&buffer));
        let apart = match other {
            Some(place) => match buffer.joined(idle.remove(place).0) {
                Ok(joined) => return Some(joined),
                Err(apart) => Vec::from(apart),
            },
            None => vec![buffer],
        };
        idle.extend(apart.into_iter().map(|part| (part, requests)));
        None
    }
}

/// How often a buffer may be halved to get one of `len` floats: halves are whole cache lines.
fn halvings(len: usize) -> RangeInclusive<u32> {
    1..=if len.is_multiple_of(16) { HALVINGS } else { 0 }
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

pub(super) fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    work(POOL.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Pool::default))
}

/// Counts of the work of this process's pool so far.
pub fn pool_counts() -> PoolCounts {
    with_pool(|pool| pool.counts)
}

/// While a value of this type lives, a request may also get a buffer up to four times as long. An
/// attack's batch of survivors shrinks at each step and thus continues in the memory that it had;
/// groups of a validation's images use the memory of the training batch. A training step always has
/// the same sizes and keeps buffers of these sizes, so that no later step has to allocate.
pub struct Shrinking(());

/// Begins work whose batches shrink; it ends when the value is dropped.
pub fn shrinking() -> Shrinking {
    with_pool(|pool| pool.shrinking += 1);
    Shrinking(())
}

impl Drop for Shrinking {
    fn drop(&mut self) {
        with_pool(|pool| pool.shrinking -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer as the users of a pool get it.
    fn taken(pool: &mut Pool, len: usize) -> Buffer {
        match pool.take(len) {
            Taken::Idle(buffer) => buffer,
            Taken::None(times) => {
                let whole = Buffer::zeroed(len << times);
                pool.cut(whole, times)
            }
        }
    }

    fn places(buffer: &Buffer) -> std::ops::Range<usize> {
        let start = buffer.as_ptr().addr();
        start..start + size_of_val(&buffer[..])
    }

    #[test]
    fn no_two_users_share_memory_and_what_comes_back_joins_again() {
        let (mut pool, mut live) = (Pool::default(), Vec::<(Buffer, f32)>::new());
        let mut state = 7u32;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for round in 0..4000 {
            // Halves of each other, multiples of a cache line and not.
            let lens = [4096, 2048, 1024, 512, 96, 48, 33, 66];
            if draw(5) < 3 && live.len() < 60 {
                let len = lens[draw(lens.len())];
                let mut buffer = taken(&mut pool, len);
                assert_eq!(buffer.len(), len);
                let own = places(&buffer);
                let apart = |(other, _): &(Buffer, f32)| {
                    let other = places(other);
                    own.end <= other.start || other.end <= own.start
                };
                assert!(live.iter().all(apart), "round {round}");
                buffer.fill(round as f32);
                live.push((buffer, round as f32));
            } else if !live.is_empty() {
                let (buffer, mark) = live.swap_remove(draw(live.len()));
                assert!(buffer.iter().all(|value| *value == mark), "round {round}");
                pool.give_back(buffer);
            }
        }
        live.into_iter().for_each(|(buffer, _)| pool.give_back(buffer));
        assert_eq!(pool.used, 0);
        let idle: Vec<&Buffer> = pool.idle.values().flatten().map(|(buffer, _)| buffer).collect();
        assert!(idle.iter().all(|buffer| !buffer.is_part()));
        let held: u64 = idle.iter().map(|buffer| bytes(buffer.len())).sum();
        assert_eq!(held, pool.counts.bytes);
    }
}
