//! What is said between ranks, counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Communicator;
use crate::error::Result;

/// Calls, bytes and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls.
    pub calls: u64,
    /// Of these, those that end a sum; a large one takes two calls.
    pub sums: u64,
    /// Bytes of the values that were summed.
    pub summed: u64,
    /// Bytes that this rank has sent.
    pub sent: u64,
    /// Time in calls, the wait for slower ranks included.
    pub time: Duration,
}

/// A link that counts what goes over it, and over its second link.
#[derive(Debug)]
pub struct Counted {
    link: Arc<dyn Communicator>,
    counts: Arc<[Counts; 2]>,
    /// Which of the counts are this link's.
    number: usize,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    sums: AtomicU64,
    summed: AtomicU64,
    sent: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counted {
    /// Counts what goes over `link`.
    pub fn new(link: Arc<dyn Communicator>) -> Self {
        Self { link, counts: Arc::default(), number: 0 }
    }

    /// What has gone over it, and over its second link, since this was last asked.
    pub fn take(&self) -> [Traffic; 2] {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        [0, 1].map(|number| {
            let Counts { calls, sums, summed, sent, nanoseconds } = &self.counts[number];
            Traffic {
                calls: take(calls),
                sums: take(sums),
                summed: take(summed),
                sent: take(sent),
                time: Duration::from_nanos(take(nanoseconds)),
            }
        })
    }

    fn counted<R>(&self, of: [usize; 3], call: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = call();
        let [sums, summed, sent] = of.map(|count| count as u64);
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let counts = &self.counts[self.number];
        for (counter, more) in [
            (&counts.calls, 1),
            (&counts.sums, sums),
            (&counts.summed, summed),
            (&counts.sent, sent),
            (&counts.nanoseconds, nanoseconds),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
        result
    }
}

impl Communicator for Counted {
    fn rank(&self) -> usize {
        self.link.rank()
    }

    fn world(&self) -> usize {
        self.link.world()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let others = self.world() - 1;
        self.counted([1, mine.len(), mine.len() * others], || self.link.gather(mine))
    }

    fn exchange(&self, mine: &[u8]) -> Result<Vec<u8>> {
        // Of a sum: the rank's own part is among what it gathers then.
        let sent = mine.len() - mine.len() / self.world();
        self.counted([0, sent, sent], || self.link.exchange(mine))
    }

    fn second(&self) -> Result<Option<Arc<dyn Communicator>>> {
        let counted = |link| -> Arc<dyn Communicator> {
            Arc::new(Self { link, counts: Arc::clone(&self.counts), number: 1 })
        };
        Ok(self.link.second()?.map(counted))
    }
}
