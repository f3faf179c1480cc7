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

/// Idle buffers by length, and how many floats are in use and idle.
#[derive(Default)]
struct Pool {
    idle: HashMap<usize, Vec<Buffer>>,
    idle_floats: usize,
    used_floats: usize,
    peak_floats: usize,
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
            let len = buffer.len();
            let surplus = with_pool(|pool| {
                pool.used_floats = pool.used_floats.saturating_sub(len);
                // Never more in use and idle together than was once in use: a change of shapes must not double the memory.
                if pool.used_floats + pool.idle_floats + len > pool.peak_floats {
                    return Some(buffer);
                }
                pool.idle_floats += len;
                pool.idle.entry(len).or_default().push(buffer);
                None
            });
            drop(surplus);
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
            let found = with_pool(|pool| {
                pool.used_floats += len;
                let found = pool.idle.get_mut(&len).and_then(Vec::pop);
                if found.is_some() {
                    pool.idle_floats -= len;
                } else if pool.used_floats + pool.idle_floats > pool.peak_floats.max(pool.used_floats) {
                    // Make room: buffers of other lengths are of another phase of the work.
                    pool.idle.clear();
                    pool.idle_floats = 0;
                }
                pool.peak_floats = pool.peak_floats.max(pool.used_floats);
                found
            });
            Memory::Pooled(found.unwrap_or_else(|| Buffer::zeroed(len)))
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
