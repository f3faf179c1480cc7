//! The ranks that a step is made by, for whatever the step calls on its thread.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Alone, Communicator, beside::Beside};
use crate::{
    error::{Error, Result},
    names::named,
    nn::{self, to_vec},
    profile::{self, Stage},
};

/// Whose images the batch statistics of batch norm are of, where several ranks share a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNormScope {
    /// Those of all ranks: a batch is one batch.
    #[default]
    Sync,
    /// Each rank's own, as `DistributedDataParallel` of PyTorch has it. Running statistics take the
    /// means over the ranks.
    Local,
}

named!(BatchNormScope, "scope of batch norm": Sync = "sync", Local = "local");

/// The ranks of a training as its steps see them.
#[derive(Debug)]
pub struct Ranks {
    link: Arc<dyn Communicator>,
    norm: BatchNormScope,
    /// Sums gradients during the backward pass.
    beside: Option<Beside>,
    /// What failed in an operation that cannot say so itself.
    failed: Mutex<Option<Error>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Ranks>>> = const { RefCell::new(None) };
}

/// Puts the ranks of before back.
struct Entered(Option<Arc<Ranks>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = self.0.take());
    }
}

impl Ranks {
    /// The ranks behind `link`.
    pub fn new(link: Arc<dyn Communicator>, norm: BatchNormScope) -> Arc<Self> {
        Arc::new(Self { link, norm, beside: None, failed: Mutex::default() })
    }

    /// The ranks behind `link`, which sum the gradients of a layer's weights while those of the
    /// layers in front of it are computed, to the same bits; where they can have one link only, as
    /// [`new`](Self::new). All ranks must call it.
    ///
    /// # Errors
    /// A rank that cannot be reached; a system without another thread.
    pub fn overlapping(link: Arc<dyn Communicator>, norm: BatchNormScope) -> Result<Arc<Self>> {
        let beside = if link.world() > 1 { Beside::start(&link)? } else { None };
        Ok(Arc::new(Self { link, norm, beside, failed: Mutex::default() }))
    }

    /// As [`overlapping`](Self::overlapping) where every rank has a thread to spare for sums: where
    /// one has a single thread, its sums would only take turns with its computing.
    ///
    /// # Errors
    /// As [`overlapping`](Self::overlapping).
    pub(crate) fn of_training(
        link: Arc<dyn Communicator>,
        norm: BatchNormScope,
    ) -> Result<Arc<Self>> {
        let busy = rayon::current_num_threads() < 2;
        if link.world() == 1 || link.any(busy)? {
            return Ok(Self::new(link, norm));
        }
        Self::overlapping(link, norm)
    }

    /// One process.
    pub fn alone() -> Arc<Self> {
        Self::new(Arc::new(Alone), BatchNormScope::Sync)
    }

    /// The link to the other ranks.
    pub fn link(&self) -> &dyn Communicator {
        &*self.link
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.link.world()
    }

    /// Whether this is the rank that writes: the first.
    pub fn writes(&self) -> bool {
        self.link.rank() == 0
    }

    /// Does `work`, a part of a step, as one of these ranks.
    ///
    /// # Errors
    /// A rank that could not be reached meanwhile.
    pub fn enter<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> Result<R> {
        let result = within(Some(Arc::clone(self)), work);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(result), Err)
    }

    /// Time from the first complete gradient to the end of each backward pass since this was last
    /// asked: what sums of gradients can be hidden in. Zero where none are.
    pub fn take_window(&self) -> Duration {
        self.beside.as_ref().map_or(Duration::ZERO, Beside::take_window)
    }

    fn note(&self, result: Result<()>) {
        if let Err(e) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        }
    }
}

/// Does `work` on this thread as one of `ranks`.
pub(crate) fn within<R>(ranks: Option<Arc<Ranks>>, work: impl FnOnce() -> R) -> R {
    let _entered = Entered(CURRENT.replace(ranks));
    work()
}

/// The ranks that this thread works with; `None`: it is alone.
pub(crate) fn current() -> Option<Arc<Ranks>> {
    CURRENT.with_borrow(Clone::clone).filter(|ranks| ranks.world() > 1)
}

/// The ranks whose batch norms share their statistics.
pub(crate) fn sharing_statistics() -> Option<Arc<Ranks>> {
    current().filter(|ranks| ranks.norm == BatchNormScope::Sync)
}

/// How many ranks make the step that this is called in; 1 outside of one.
pub fn world() -> usize {
    current().map_or(1, |ranks| ranks.world())
}

/// Sums over the ranks of what each has added up over its part of the batch, `[M]`, with gradients:
/// what a training method needs that computes with figures of a whole batch. The tensor itself
/// where one process trains.
pub fn sum(values: Tensor<1>) -> Tensor<1> {
    if current().is_none() { values } else { nn::sum_over_ranks(values) }
}

/// Replaces `values` by their sums over the ranks.
pub(crate) fn sum_values(values: &mut [f64]) {
    if let Some(ranks) = current() {
        ranks.note(profile::time(Stage::Ranks, || ranks.link.sum(values)));
    }
}

/// Replaces `values` by their means over the ranks.
pub(crate) fn mean_values<const N: usize>(values: [f32; N]) -> [f32; N] {
    let Some(ranks) = current() else { return values };
    let mut wide = values.map(f64::from);
    sum_values(&mut wide);
    wide.map(|sum| (sum / ranks.world() as f64) as f32)
}

/// The bytes of every rank; `mine` where that fails, which [`Ranks::enter`] then says.
pub(crate) fn gather_each(mine: Vec<u8>) -> Vec<Vec<u8>> {
    let Some(ranks) = current() else { return vec![mine] };
    match profile::time(Stage::Ranks, || ranks.link.gather_each(&mine)) {
        Ok(all) => all,
        Err(e) => {
            ranks.note(Err(e));
            vec![mine]
        }
    }
}

/// What `tensor` holds; where that cannot be read, NaN, and [`Ranks::enter`] tells: the other ranks
/// wait for as many values.
pub(crate) fn values_of(ranks: &Ranks, tensor: &Tensor<1>) -> Vec<f32> {
    to_vec(tensor).unwrap_or_else(|e| {
        ranks.note(Err(e));
        vec![f32::NAN; tensor.dims()[0]]
    })
}

/// Sums of all `tensors` over the ranks times `factor`, in one go.
fn sum_flat(ranks: &Ranks, tensors: &[Tensor<1>], factor: f32) -> Vec<Tensor<1>> {
    let mut flat = Vec::with_capacity(tensors.iter().map(|tensor| tensor.dims()[0]).sum());
    for tensor in tensors {
        flat.extend(values_of(ranks, tensor));
    }
    ranks.note(profile::time(Stage::Ranks, || ranks.link.sum_f32(&mut flat)));
    if factor != 1.0 {
        flat.iter_mut().for_each(|value| *value *= factor);
    }
    let mut rest = &flat[..];
    let mut sums = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (values, after) = rest.split_at(tensor.dims()[0]);
        sums.push(nn::flat(values.to_vec(), &tensor.device()));
        rest = after;
    }
    sums
}

/// A backward pass begins whose gradients are summed at its [end](end_of_pass).
pub(crate) fn begin_pass() {
    if let Some(beside) = current().as_ref().and_then(|ranks| ranks.beside.as_ref()) {
        beside.begin();
    }
}

/// The complete gradient by the weights `version` in such a pass, to be summed from now on.
pub(crate) fn offer(version: u64, gradient: &[f32]) {
    if let Some(beside) = current().as_ref().and_then(|ranks| ranks.beside.as_ref()) {
        beside.offer(version, gradient);
    }
}

/// The sums over the ranks of the gradients by the weights `versions`.
pub(crate) fn end_of_pass(gradients: Vec<Tensor<1>>, versions: &[u64]) -> Vec<Tensor<1>> {
    let Some(ranks) = current() else { return gradients };
    let Some(beside) = &ranks.beside else { return sum_flat(&ranks, &gradients, 1.0) };
    let rest = |taken: &[u64]| {
        let left = versions.iter().zip(&gradients).filter(|(version, _)| !taken.contains(version));
        let left: Vec<Tensor<1>> = left.map(|(_, gradient)| gradient.clone()).collect();
        sum_flat(&ranks, &left, 1.0)
    };
    let (rest, mut taken) = match profile::time(Stage::Ranks, || beside.end(rest)) {
        Ok(sums) => sums,
        Err(e) => {
            ranks.note(Err(e));
            return gradients;
        }
    };
    let (mut rest, device) = (rest.into_iter(), |of: &Tensor<1>| of.device());
    let sum = |(version, gradient): (&u64, Tensor<1>)| match taken.remove(version) {
        Some(values) => nn::flat(values, &device(&gradient)),
        None => rest.next().unwrap_or(gradient),
    };
    versions.iter().zip(gradients).map(sum).collect()
}

/// Their means, where the ranks keep statistics of their own; as they are where those are shared.
pub(crate) fn mean_of_local(tensors: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
    let Some(ranks) = current().filter(|ranks| ranks.norm == BatchNormScope::Local) else {
        return tensors;
    };
    sum_flat(&ranks, &tensors, (ranks.world() as f32).recip())
}
