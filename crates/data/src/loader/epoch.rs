//! The batches of an epoch, made on request or ahead by a background thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::batch::{Batch, Maker};
use crate::error::{DataError, Result};

/// The source of the batches.
pub(super) enum Producer {
    /// Batches are made on request.
    Here(Maker),
    /// A background thread makes the batches; it ends when this end of the channel is dropped.
    Thread(Receiver<Result<Batch>>),
}

pub(super) fn prefetching(maker: Maker, start: usize, total: usize, depth: usize) -> Producer {
    // The channel holds the finished batches; the thread makes one more beyond them.
    let (sender, receiver) = sync_channel(depth - 1);
    let maker = Arc::new(maker);
    let worker = Arc::clone(&maker);
    let spawned = thread::Builder::new().name("sora-loader".into()).spawn(move || {
        for index in start..total {
            let batch = worker.batch(index);
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    });
    match spawned {
        Ok(_) => Producer::Thread(receiver),
        Err(error) => {
            tracing::warn!(
                "no thread for prefetching ({error}): batches are prepared one at a time"
            );
            Producer::Here(Maker::clone(&maker))
        }
    }
}

/// Iterator over the batches of an epoch. Dropping it ends the background thread.
pub struct Epoch {
    pub(super) producer: Producer,
    pub(super) next: usize,
    pub(super) total: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.total {
            return None;
        }
        let batch = match &self.producer {
            Producer::Here(maker) => maker.batch(self.next),
            // The thread sends every batch or an error before it hangs up, unless it died: an epoch
            // must not end early unnoticed.
            Producer::Thread(receiver) => receiver
                .recv()
                .unwrap_or(Err(DataError::Loader { done: self.next, total: self.total })),
        };
        self.next = if batch.is_ok() { self.next + 1 } else { self.total };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.total.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}
