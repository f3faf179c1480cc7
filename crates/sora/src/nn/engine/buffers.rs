//! A pool of buffers. The next step reuses an activation's memory, instead of returning it to the
//! system and paying for page faults again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use burn::tensor::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use serde::Serialize;
use sora_kernels::Buffer;

/// Bytes below which buffers come from the allocator, which handles small ones well.
const SMALLEST: usize = 16 * 1024;

/// Number of requests after which an unused buffer is returned to the system. This is a few steps
/// of training, so that a phase of the work with other shapes does not hold the memory of two
/// phases.
const PATIENCE: u64 = 4096;

/// The number of requests while batches shrink. It is larger because their sizes come and go, a
/// step of an attack makes few requests, and a returned buffer costs page faults.
const PATIENCE_SHRINKING: u64 = 16 * PATIENCE;

/// Greatest ratio of a lent buffer's length to the request while batches shrink.
const LONGER: usize = 4;

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
struct Pool {
    idle: BTreeMap<usize, Vec<(Buffer, u64)>>,
    /// Number of live [`Shrinking`] values.
    shrinking: usize,
    /// Buffers that tensors hold, by address.
    lent: HashMap<usize, Weak<Pooled>>,
    counts: PoolCounts,
    used: u64,
}

fn bytes(len: usize) -> u64 {
    (len * size_of::<f32>()) as u64
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Buffer> {
        self.counts.requests += 1;
        if self.counts.requests.is_multiple_of(PATIENCE / 8) {
            let patience = if self.shrinking > 0 { PATIENCE_SHRINKING } else { PATIENCE };
            let oldest = self.counts.requests.saturating_sub(patience);
            let mut freed = 0;
            self.idle.iter_mut().for_each(|(len, buffers)| {
                let before = buffers.len();
                buffers.retain(|(_, since)| *since >= oldest);
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
            .map(|(buffer, _)| buffer);
        if taken.is_none() {
            self.counts.misses += 1;
            self.counts.bytes += bytes(len);
        }
        self.used += bytes(taken.as_ref().map_or(len, |buffer| buffer.len()));
        self.counts.peak_used = self.counts.peak_used.max(self.used);
        taken
    }

    fn give_back(&mut self, buffer: Buffer) {
        self.used -= bytes(buffer.len());
        self.idle.entry(buffer.len()).or_default().push((buffer, self.counts.requests));
    }
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
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

/// Memory that returns to the pool when it is dropped.
#[derive(Debug)]
struct Pooled(Option<Buffer>);

impl Pooled {
    fn take(len: usize) -> Self {
        Self(Some(with_pool(|pool| pool.take(len)).unwrap_or_else(|| Buffer::zeroed(len))))
    }

    fn floats(&self) -> &[f32] {
        self.0.as_ref().map_or(&[], |buffer| &buffer[..])
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        self.0.as_mut().map_or(&mut [], |buffer| &mut buffer[..])
    }

    fn address(&self) -> usize {
        self.floats().as_ptr().addr()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let address = self.address();
        if let Some(buffer) = self.0.take() {
            with_pool(|pool| {
                pool.lent.remove(&address);
                pool.give_back(buffer);
            });
        }
    }
}

/// A tensor's hold on its buffer. The buffer is a few bytes longer than the tensor where a bf16
/// tensor has an odd length.
struct Owner {
    memory: Arc<Pooled>,
    bytes: usize,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        let all: &[u8] = bytemuck::cast_slice(self.memory.floats());
        all.get(..self.bytes).unwrap_or(all)
    }
}

/// Memory for a result; its content is unspecified until it is written.
pub(super) struct Output {
    memory: Memory,
    shape: Shape,
    dtype: DType,
}

enum Memory {
    Pooled(Pooled),
    Plain(Vec<f32>),
}

impl Output {
    /// Memory for an f32 tensor of `shape`.
    pub(super) fn new<const D: usize>(shape: [usize; D]) -> Self {
        Self::of(shape.into(), DType::F32)
    }

    /// Memory for a tensor of `shape` that is f32 or bf16.
    pub(super) fn of(shape: Shape, dtype: DType) -> Self {
        // A bf16 tensor takes half as many floats as it has elements.
        let len = (shape.num_elements() * dtype.size()).div_ceil(size_of::<f32>());
        let memory = if len < SMALLEST {
            Memory::Plain(vec![0.0; len])
        } else {
            Memory::Pooled(Pooled::take(len))
        };
        Self { memory, shape, dtype }
    }

    /// Takes the memory of `tensor`, with its content, if no other tensor shares it and it came
    /// from this pool.
    ///
    /// # Errors
    /// The tensor itself, if one of these conditions fails.
    pub(super) fn reuse(tensor: FlexTensor) -> Result<Self, FlexTensor> {
        let (shape, dtype, whole) = {
            let layout = tensor.layout();
            let bytes = layout.num_elements() * tensor.dtype().size();
            let whole = layout.is_contiguous()
                && layout.start_offset() == 0
                && tensor.bytes().len() == bytes;
            (layout.shape().clone(), tensor.dtype(), whole)
        };
        let address = tensor.bytes().as_ptr().addr();
        if !tensor.is_unique() || !whole {
            return Err(tensor);
        }
        let Some(memory) = with_pool(|pool| pool.lent.get(&address).and_then(Weak::upgrade)) else {
            return Err(tensor);
        };
        drop(tensor);
        Arc::try_unwrap(memory)
            .map(|memory| {
                with_pool(|pool| pool.lent.remove(&address));
                Self { memory: Memory::Pooled(memory), shape: shape.clone(), dtype }
            })
            .map_err(|memory| lend(memory, shape, dtype))
    }

    /// The type of the elements.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements, of the type that the memory was made for.
    pub(super) fn elements<E: bytemuck::Pod>(&mut self) -> &mut [E] {
        let len = self.shape.num_elements();
        let floats = match &mut self.memory {
            Memory::Pooled(memory) => memory.floats_mut(),
            Memory::Plain(values) => values,
        };
        &mut bytemuck::cast_slice_mut(floats)[..len]
    }

    /// The floats of an f32 tensor.
    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        self.elements()
    }

    /// The finished tensor.
    pub(super) fn finish(self) -> FlexTensor {
        match self.memory {
            Memory::Plain(mut values) if self.dtype == DType::F32 => {
                values.truncate(self.shape.num_elements());
                FlexTensor::new(
                    Bytes::from_elems(values),
                    Layout::contiguous(self.shape),
                    self.dtype,
                )
            }
            Memory::Plain(values) => {
                let mut bytes = bytemuck::cast_slice::<f32, u8>(&values).to_vec();
                bytes.truncate(self.shape.num_elements() * self.dtype.size());
                FlexTensor::new(
                    Bytes::from_bytes_vec(bytes),
                    Layout::contiguous(self.shape),
                    self.dtype,
                )
            }
            Memory::Pooled(memory) => lend(Arc::new(memory), self.shape, self.dtype),
        }
    }
}

/// Makes a tensor over `memory`.
fn lend(memory: Arc<Pooled>, shape: Shape, dtype: DType) -> FlexTensor {
    with_pool(|pool| pool.lent.insert(memory.address(), Arc::downgrade(&memory)));
    let owner = Owner { bytes: shape.num_elements() * dtype.size(), memory };
    let bytes = Bytes::from_shared(bytes::Bytes::from_owner(owner), AllocationProperty::Other);
    FlexTensor::new(bytes, Layout::contiguous(shape), dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = SMALLEST + 3;

    #[test]
    fn memory_is_used_again_and_kept_content_survives() {
        let mut first = Output::new([LEN]);
        first.as_mut().fill(3.0);
        let tensor = first.finish();
        let address = tensor.bytes().as_ptr();
        let mut again = Output::reuse(tensor).unwrap_or_else(|_| panic!("nobody else reads it"));
        assert_eq!(again.as_mut().as_ptr().cast::<u8>(), address);
        assert!(again.as_mut().iter().all(|v| *v == 3.0));

        let tensor = again.finish();
        let reader = tensor.clone();
        let refused = Output::reuse(tensor).err().expect("somebody else reads it");
        drop(reader);
        assert_eq!(refused.storage::<f32>()[LEN - 1], 3.0);
        assert!(Output::reuse(refused).is_ok());

        let foreign = FlexTensor::new(
            Bytes::from_elems(vec![1.0f32; LEN]),
            Layout::contiguous([LEN].into()),
            DType::F32,
        );
        assert!(Output::reuse(foreign).is_err(), "not from this pool");
    }

    #[test]
    fn a_batch_that_shrinks_stays_in_the_memory_it_had() {
        // No other test asks for these lengths, because the whole process shares one pool.
        let longest = 1 << 21;
        let first = Output::new([longest]).finish();
        let address = first.bytes().as_ptr();
        drop(first);
        let short = Output::new([longest - 2]).finish();
        assert_ne!(short.bytes().as_ptr(), address, "each length keeps its own");
        drop(short);
        let _work = shrinking();
        let tensor = Output::new([longest - 1]).finish();
        assert_eq!((tensor.bytes().as_ptr(), tensor.bytes().len()), (address, 4 * (longest - 1)));
        let mut again = Output::reuse(tensor).unwrap_or_else(|_| panic!("nobody else reads it"));
        assert_eq!(again.as_mut().len(), longest - 1);
        drop(again.finish());
        let small = Output::new([longest / LONGER - 1]).finish();
        assert_ne!(small.bytes().as_ptr(), address, "so long a buffer is left to others");
    }

    #[test]
    fn tensors_have_their_own_length_in_either_precision() {
        for (shape, dtype) in [
            ([3 * LEN], DType::F32),
            ([2 * LEN + 1], DType::BF16),
            ([5], DType::BF16),
            ([5], DType::F32),
            ([0], DType::BF16),
        ] {
            let tensor = Output::of(shape.into(), dtype).finish();
            assert_eq!(tensor.bytes().len(), shape[0] * dtype.size());
        }
    }
}
