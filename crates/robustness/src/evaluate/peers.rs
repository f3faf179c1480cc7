//! Processes that share an evaluation, image by image. What happens to an image depends on that
//! image alone, so that the figures are those of one process, to the bit.

use std::fmt::Debug;

use super::{Evaluator, Ledger};
use crate::error::Result;

/// The link between them; all make the same calls.
pub trait Peers: Debug + Sync {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// The bytes that each process gives, in the order of their numbers.
    ///
    /// # Errors
    /// A process that cannot be reached.
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;
}

impl Evaluator<'_> {
    /// Does `work` on all images, or on those of this process, and on all once the results of the
    /// others are here: everything is known then, and it counts.
    pub(super) fn shared<T>(
        &mut self,
        work: impl Fn(&mut Self, &[usize]) -> Result<T>,
    ) -> Result<T> {
        let all: Vec<usize> = (0..self.samples.len()).collect();
        let Some(peers) = self.peers.filter(|peers| peers.world() > 1) else {
            return work(self, &all);
        };
        self.ledger.exchange(peers)?;
        work(self, &Self::part_of(peers, &all))?;
        self.ledger.exchange(peers)?;
        let observer = self.observer.take();
        let outcome = work(self, &all);
        self.observer = observer;
        outcome
    }

    /// Those of `all` that this process works on: images that are alike in time, which neighbours
    /// in a sorted set are, are spread.
    fn part_of(peers: &dyn Peers, all: &[usize]) -> Vec<usize> {
        let (rank, world) = (peers.rank(), peers.world().max(1));
        all.iter().copied().skip(rank).step_by(world).collect()
    }
}

impl Ledger {
    /// Tells the others what is known here, and takes over what they know.
    pub(super) fn exchange(&mut self, peers: &dyn Peers) -> Result<()> {
        let mine = self.known_results()?;
        for (rank, theirs) in peers.gather(&mine)?.iter().enumerate() {
            if rank != peers.rank() {
                self.take_over(theirs)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ledger::Spent, *};

    const SPENT: Spent = Spent { seconds: 1.0, queries: Some(2) };

    #[test]
    fn what_one_ledger_knows_another_takes_over() {
        let (mut one, mut two) = (Ledger::in_memory(), Ledger::in_memory());
        one.add("clean", 0, &[1, 2], &[true, false], SPENT, &[]);
        one.add("pgd", 0, &[1], &[true], SPENT, &[]);
        one.add("pgd", 1, &[1], &[false], SPENT, &[]);
        two.add("clean", 0, &[3], &[true], SPENT, &[]);
        two.add("pgd", 0, &[1], &[true], SPENT, &[]);
        two.take_over(&one.known_results().unwrap()).unwrap();
        assert!(two.knows("clean", 2, 0) && two.survived("clean", 3, 1));
        assert_eq!((two.fell_in("clean", 2), two.fell_in("pgd", 1)), (Some(0), Some(1)));
        one.take_over(&two.known_results().unwrap()).unwrap();
        assert_eq!((one.fell_in("pgd", 1), one.knows("clean", 3, 0)), (Some(1), true));
        assert!(one.take_over(b"nonsense").is_err());
    }
}
