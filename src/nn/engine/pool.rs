//! Buffers that come back: an activation's memory is used again by the next step instead of being returned to the system and faulted in anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use burn::tensor::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use sora_kernels::Buffer;

/// Smaller buffers come from the allocator, which is good at them.
const SMALLEST: usize = 16 * 1024;

/// Requests for memory after which a buffer that nobody wanted is given back: some steps of training, so that a phase of the work with other
/// shapes does not hold the memory of two.
const PATIENCE: u64 = 4096;

/// Idle buffers by length, with the request count at which each came back.
#[derive(Default)]
struct Pool {
    idle: HashMap<usize, Vec<(Buffer, u64)>>,
    requests: u64,
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Buffer> {
        self.requests += 1;
        if self.requests.is_multiple_of(PATIENCE / 8) {
            let oldest = self.requests.saturating_sub(PATIENCE);
            self.idle.values_mut().for_each(|buffers| buffers.retain(|(_, since)| *since >= oldest));
            self.idle.retain(|_, buffers| !buffers.is_empty());
        }
        // The newest first: it is the likeliest to be in a cache, and the others show how many are too many.
        self.idle.get_mut(&len)?.pop().map(|(buffer, _)| buffer)
    }

    fn give_back(&mut self, buffer: Buffer) {
        self.idle.entry(buffer.len()).or_default().push((buffer, self.requests));
    }
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    work(POOL.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Pool::default))
}

/// A buffer that returns to the pool when its last reader is gone.
struct Pooled(Option<Buffer>);

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| bytemuck::cast_slice(&buffer[..]))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            with_pool(|pool| pool.give_back(buffer));
        }
    }
}

/// Memory to write a result into; what it holds before is unspecified.
pub(super) struct Output {
    memory: Memory,
    shape: Shape,
}

enum Memory {
    Pooled(Buffer),
    Plain(Vec<f32>),
}

impl Output {
    /// Memory for a tensor of `shape`.
    pub(super) fn new<const D: usize>(shape: [usize; D]) -> Self {
        let len = shape.iter().product::<usize>();
        let memory = if len < SMALLEST {
            Memory::Plain(vec![0.0; len])
        } else {
            Memory::Pooled(with_pool(|pool| pool.take(len)).unwrap_or_else(|| Buffer::zeroed(len)))
        };
        Self { memory, shape: shape.into() }
    }

    /// The floats.
    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Pooled(buffer) => &mut buffer[..],
            Memory::Plain(values) => values,
        }
    }

    /// The finished tensor.
    pub(super) fn finish(self) -> FlexTensor {
        let bytes = match self.memory {
            Memory::Plain(values) => Bytes::from_elems(values),
            Memory::Pooled(buffer) => Bytes::from_shared(bytes::Bytes::from_owner(Pooled(Some(buffer))), AllocationProperty::Other),
        };
        FlexTensor::new(bytes, Layout::contiguous(self.shape), DType::F32)
    }
}
