//! Tensors over memory of the pool.

use std::sync::{Arc, Weak};

use burn::tensor::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use sora_kernels::Buffer;

use super::pool::{Taken, with_pool};

/// Bytes below which buffers come from the allocator, which handles small ones well.
const SMALLEST: usize = 16 * 1024;

/// Memory that returns to the pool when it is dropped.
#[derive(Debug)]
pub(super) struct Pooled(Option<Buffer>);

impl Pooled {
    fn take(len: usize) -> Self {
        let buffer = match with_pool(|pool| pool.take(len)) {
            Taken::Idle(buffer) => buffer,
            Taken::None(0) => Buffer::zeroed(len),
            Taken::None(times) => {
                let whole = Buffer::zeroed(len << times);
                with_pool(|pool| pool.cut(whole, times))
            }
        };
        Self(Some(buffer))
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
    use super::{super::pool::shrinking, *};

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
        let small = Output::new([longest / 4 - 1]).finish();
        assert_ne!(small.bytes().as_ptr(), address, "so long a buffer is left to others");
    }

    #[test]
    fn small_buffers_are_parts_of_large_ones_that_join_again() {
        // No other test asks for these lengths.
        let long = 64 * 30_011;
        let address = |tensor: &FlexTensor| tensor.bytes().as_ptr().addr();
        let first = Output::new([long]).finish();
        let place = address(&first);
        drop(first);
        let [a, b] = [0, 1].map(|_| Output::new([long / 2]).finish());
        assert_eq!([address(&a), address(&b)], [place, place + 2 * long]);
        drop(a);
        let quarter = Output::new([long / 4]).finish();
        assert_eq!(address(&quarter), place);
        drop(b);
        drop(quarter);
        assert_eq!(address(&Output::new([long]).finish()), place);
        // What is new is made as long as the longest that is known, for those to come.
        let quarters: Vec<_> = (0..8).map(|_| Output::new([long / 4]).finish()).collect();
        let mut places: Vec<_> = quarters[4..].iter().map(address).collect();
        places.sort_unstable();
        let first = places[0];
        assert_ne!(first, place);
        assert_eq!(places, [0, 1, 2, 3].map(|part| first + part * long));
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
