//! Batches side by side: while a device computes one, the host works on another.

use std::{
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
};

use super::search::Search;
use crate::{
    attack::{AttackBatch, Part, RowKey, Tick},
    error::Result,
    rows::Rows,
};

/// Images in rounds, with what an attack is to know of them.
#[derive(Debug)]
pub(super) struct Batch {
    pub x: Rows,
    pub labels: Vec<usize>,
    pub keys: Vec<RowKey>,
}

/// The candidates of a batch, and whether each image stands.
type Attacked = (Rows, Vec<bool>);

impl Search<'_> {
    /// Attacks each of `batches` by `part`, all at the same time. `tick` hears of them as of one.
    pub fn attacked_together(
        &self,
        part: &Part,
        batches: &[Batch],
        tick: &mut (dyn FnMut(Tick) + Send),
    ) -> Result<Vec<Attacked>> {
        let run = |Batch { x, labels, keys }: &Batch, tick: &mut (dyn FnMut(Tick) + Send)| {
            self.attacked(part, &AttackBatch { x, labels, keys }, tick)
        };
        if let [batch] = batches {
            return Ok(vec![run(batch, tick)?]);
        }
        let rows: Vec<usize> = batches.iter().map(|batch| batch.keys.len()).collect();
        let told = Mutex::new((vec![Tick { done: 0.0, fooled: 0 }; batches.len()], tick));
        let tell = |lane: usize, new: Tick| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (lanes, tick) = &mut *told;
            lanes[lane] = new;
            tick(of_all(lanes, &rows));
        };
        let (run, tell) = (&run, &tell);
        thread::scope(|scope| {
            let lanes: Vec<_> = batches
                .iter()
                .enumerate()
                .map(|(lane, batch)| scope.spawn(move || run(batch, &mut |tick| tell(lane, tick))))
                .collect();
            lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|e| resume_unwind(e))).collect()
        })
    }
}

/// The progress of batches of `rows` rows as that of one.
fn of_all(lanes: &[Tick], rows: &[usize]) -> Tick {
    let all: usize = rows.iter().sum();
    let done: f64 = lanes.iter().zip(rows).map(|(tick, &rows)| tick.done * rows as f64).sum();
    Tick { done: done / all.max(1) as f64, fooled: lanes.iter().map(|tick| tick.fooled).sum() }
}
