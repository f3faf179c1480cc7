//! Sums over the ranks while a backward pass is still under way.
//!
//! The gradient of a layer's weights is complete before those of the layers in front of it are
//! begun. A thread beside the one that trains sums it over the ranks meanwhile, over a link of its
//! own. Sums are taken value by value and in the order of the ranks, so that they have the same
//! bits as after the pass, whatever is summed together.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Communicator;
use crate::error::{Error, Result};

/// Bytes that are summed together at least, by `world` ranks: a sum of less would take the time of
/// its messages, of which there are as many as ranks, and one of more would begin late.
pub fn bucket(world: usize) -> usize {
    ((256 << 10) * world).clamp(1 << 20, 8 << 20).max((64 << 10) * world)
}

/// Values to sum, and where their sums go.
struct Job(Vec<f32>, Sender<Result<Vec<f32>>>);

/// Gradients that are summed together: the version of each one's weights, and its length.
type Parts = Vec<(u64, usize)>;

/// The gradients of a backward pass so far.
#[derive(Debug, Default)]
struct Pass {
    parts: Parts,
    values: Vec<f32>,
    under_way: Vec<(Parts, Receiver<Result<Vec<f32>>>)>,
    /// When the first gradient came.
    since: Option<Instant>,
}

/// A thread that sums over the ranks beside the one that trains.
#[derive(Debug)]
pub(super) struct Beside {
    /// Values that are summed together at least.
    bucket: usize,
    /// `None` at the end.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pass: Mutex<Option<Pass>>,
    /// Nanoseconds from the first gradient to the end, of all passes since they were last asked
    /// for.
    window: AtomicU64,
}

/// Sums what comes, over a second link between the ranks of `link`; `ready` is told when it is
/// there, or that there is none.
fn work(link: &dyn Communicator, ready: &Sender<Result<bool>>, jobs: Receiver<Job>) {
    let second = match link.second() {
        Ok(second) => second,
        Err(e) => return drop(ready.send(Err(e))),
    };
    let told = ready.send(Ok(second.is_some())).is_ok();
    if let (true, Some(second)) = (told, second) {
        for Job(mut values, sums) in jobs {
            // Nobody waits where the step has failed meanwhile.
            let _ = sums.send(second.sum_f32(&mut values).map(|()| values));
        }
    }
}

impl Beside {
    /// Starts the thread; `None` where the ranks can have one link only. All ranks must ask.
    ///
    /// # Errors
    /// A rank that cannot be reached; a system without another thread.
    pub(super) fn start(link: &Arc<dyn Communicator>) -> Result<Option<Self>> {
        let (jobs, of_jobs) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let (for_thread, world) = (Arc::clone(link), link.world());
        let thread = thread::Builder::new()
            .name("sums".into())
            .spawn(move || work(&*for_thread, &ready, of_jobs))
            .map_err(|e| Error::Ranks(format!("no thread for sums: {e}")))?;
        // Until the second link is there nothing else may be said over the first.
        let there =
            is_ready.recv().map_err(|_| Error::defect("the thread for sums has ended"))??;
        let bucket = bucket(world) / size_of::<f32>();
        let (jobs, thread) = (Some(jobs), Some(thread));
        let (pass, window) = (Mutex::default(), AtomicU64::new(0));
        let beside = Self { bucket, jobs, thread, pass, window };
        Ok(there.then_some(beside))
    }

    /// Time from the first complete gradient to the end of each pass since this was last asked.
    pub(super) fn take_window(&self) -> Duration {
        Duration::from_nanos(self.window.swap(0, Ordering::Relaxed))
    }

    fn with<R>(&self, work: impl FnOnce(&mut Option<Pass>) -> R) -> R {
        work(&mut self.pass.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A backward pass begins.
    pub(super) fn begin(&self) {
        self.with(|pass| *pass = Some(Pass::default()));
    }

    /// Takes the complete gradient by the weights `version`, outside of a pass not.
    pub(super) fn offer(&self, version: u64, gradient: &[f32]) {
        self.with(|pass| {
            let Some(pass) = pass else { return };
            pass.since.get_or_insert_with(Instant::now);
            pass.parts.push((version, gradient.len()));
            pass.values.extend_from_slice(gradient);
            if pass.values.len() >= self.bucket {
                self.send(pass);
            }
        });
    }

    fn send(&self, pass: &mut Pass) {
        let (done, sums) = mpsc::channel();
        let values = mem::take(&mut pass.values);
        // Where the thread has ended, nobody sends to `sums`.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job(values, done)));
        pass.under_way.push((mem::take(&mut pass.parts), sums));
    }

    /// The pass has ended: does `meanwhile`, given the versions of the gradients that were taken,
    /// until their sums are there, and gives both.
    pub(super) fn end<R>(
        &self,
        meanwhile: impl FnOnce(&[u64]) -> R,
    ) -> Result<(R, BTreeMap<u64, Vec<f32>>)> {
        let mut pass = self.with(Option::take).unwrap_or_default();
        let window = pass.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.window.fetch_add(window.as_nanos() as u64, Ordering::Relaxed);
        if !pass.parts.is_empty() {
            self.send(&mut pass);
        }
        let versions = |parts: &Parts| parts.iter().map(|part| part.0).collect::<Vec<_>>();
        let taken: Vec<u64> =
            pass.under_way.iter().flat_map(|(parts, _)| versions(parts)).collect();
        let result = meanwhile(&taken);
        let mut sums: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
        for (parts, of) in pass.under_way {
            let values =
                of.recv().map_err(|_| Error::defect("the thread for sums has ended"))??;
            let mut rest = &values[..];
            for (version, len) in parts {
                let (part, after) = rest.split_at(len);
                let twice = sums.insert(version, part.to_vec()).is_some();
                debug_assert!(!twice, "weights that two layers share have one gradient");
                rest = after;
            }
        }
        Ok((result, sums))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing left to say; what failed in it was told to those who waited.
            let _ = thread.join();
        }
    }
}
