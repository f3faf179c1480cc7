//! Threads of one process as ranks: for tests, and for machines whose parts are better kept apart.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::Communicator;
use crate::error::{Error, Result};

/// A rank that is a thread. Each thread should have a pool of rayon's of its own
/// (`ThreadPool::install`): in a shared one, a thread that waits for another rank's thread may be
/// the one that was to run it.
///
/// ```
/// use sora::train::{Communicator, Threads};
///
/// let ranks = Threads::of(2);
/// let sums = std::thread::scope(|scope| {
///     let sum = |link: Threads| {
///         let mut values = [1.0, link.rank() as f64];
///         link.sum(&mut values).map(|()| values)
///     };
///     let threads: Vec<_> = ranks.into_iter().map(|link| scope.spawn(move || sum(link))).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect::<Vec<_>>()
/// });
/// assert_eq!(sums, [[2.0, 1.0]; 2]);
/// ```
pub struct Threads {
    rank: usize,
    shared: Arc<Shared>,
    /// Calls made so far.
    calls: AtomicU64,
    /// Second links made so far.
    seconds: AtomicUsize,
}

struct Shared {
    world: usize,
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    /// What has been put down for each call, until every rank has taken it.
    calls: HashMap<u64, Call>,
    /// Ranks that have gone.
    gone: Vec<usize>,
    /// The second links, in the order in which each rank has made them.
    seconds: Vec<Arc<Shared>>,
}

impl Shared {
    fn of(world: usize) -> Arc<Self> {
        Arc::new(Self { world, table: Mutex::default(), changed: Condvar::default() })
    }
}

struct Call {
    parts: Vec<Option<Arc<[u8]>>>,
    taken: usize,
}

impl Threads {
    /// The ranks of a world of `world`.
    pub fn of(world: usize) -> Vec<Self> {
        let shared = Shared::of(world);
        (0..world).map(|rank| Self::at(rank, &shared)).collect()
    }

    fn at(rank: usize, shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { rank, shared, calls: AtomicU64::new(0), seconds: AtomicUsize::new(0) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `mine` down and gives what all have put down, once they have.
    fn share(&self, mine: &[u8]) -> Result<Vec<Arc<[u8]>>> {
        let (number, world) = (self.calls.fetch_add(1, Ordering::Relaxed), self.shared.world);
        let mut table = self.table();
        let empty = || Call { parts: vec![None; world], taken: 0 };
        table.calls.entry(number).or_insert_with(empty).parts[self.rank] = Some(mine.into());
        self.shared.changed.notify_all();
        loop {
            let missing = |call: &Call| call.parts.iter().position(Option::is_none);
            match table.calls.get(&number).and_then(missing) {
                None => break,
                Some(rank) if table.gone.contains(&rank) => {
                    return Err(Error::Ranks(format!("rank {rank} has ended")));
                }
                Some(_) => {
                    table = self.shared.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        let Some(call) = table.calls.get_mut(&number) else {
            return Err(Error::defect("ranks have not made the same calls"));
        };
        let parts = call.parts.iter().flatten().cloned().collect();
        call.taken += 1;
        if call.taken == world {
            table.calls.remove(&number);
        }
        Ok(parts)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads({} of {})", self.rank, self.shared.world)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.table().gone.push(self.rank);
        self.shared.changed.notify_all();
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.world
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        Ok(self.share(mine)?.concat())
    }

    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let size = mine.len() / self.shared.world;
        let block = |part: &Arc<[u8]>| {
            part.get(self.rank * size..(self.rank + 1) * size).unwrap_or_default().to_vec()
        };
        Ok(self.share(mine)?.iter().flat_map(block).collect())
    }

    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        let (number, mut table) = (self.seconds.fetch_add(1, Ordering::Relaxed), self.table());
        while table.seconds.len() <= number {
            table.seconds.push(Shared::of(self.shared.world));
        }
        Ok(Some(Arc::new(Self::at(self.rank, &table.seconds[number]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `work` on every rank and gives what each found.
    fn on_ranks<T: Send>(world: usize, work: impl Fn(Threads) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let spawn = |link| scope.spawn(move || work(link));
            let threads: Vec<_> = Threads::of(world).into_iter().map(spawn).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_are_the_same_bits_on_every_rank_whichever_way_they_are_taken() {
        // Lengths on either side of where the way changes, and that no world divides.
        for (world, len) in [(2, 5), (3, 7), (4, 10_001), (3, 100_000)] {
            let value = |rank: usize, i: usize| ((rank * 31 + i) as f32 * 0.618).sin();
            let found = on_ranks(world, |link| {
                let mut values: Vec<f32> = (0..len).map(|i| value(link.rank(), i)).collect();
                link.sum_f32(&mut values).unwrap();
                values
            });
            let expected: Vec<f32> = (0..len)
                .map(|i| (0..world).map(|rank| f64::from(value(rank, i))).sum::<f64>() as f32)
                .collect();
            assert!(found.iter().all(|found| *found == expected), "{world} ranks, {len} values");
        }
    }

    #[test]
    fn parts_of_different_lengths_are_gathered_whole() {
        let found = on_ranks(3, |link| link.gather_each(&vec![7; link.rank() * 5]).unwrap());
        let expected: Vec<Vec<u8>> = (0..3).map(|rank| vec![7; rank * 5]).collect();
        assert!(found.iter().all(|found| *found == expected), "{found:?}");
        assert_eq!(on_ranks(3, |link| link.any(link.rank() == 2).unwrap()), [true; 3]);
        assert_eq!(on_ranks(2, |link| link.any(false).unwrap()), [false; 2]);
    }

    #[test]
    fn a_rank_that_ends_early_is_an_error_for_those_that_wait() {
        let found = on_ranks(2, |link| link.rank() == 0 || link.any(true).is_err());
        assert_eq!(found, [true, true]);
    }
}
