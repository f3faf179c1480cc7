//! Runs fixed tasks on any number of threads.
//!
//! Shapes alone decide how work is cut into tasks that a sum runs over, and every such sum runs in
//! task order; the number of threads decides only what no result depends on, such as the outputs that
//! a task computes. Results are therefore bit-identical for every thread count. With
//! the feature `serial` all tasks run in order on the calling thread.

/// The traits that split slices and ranges into tasks: rayon's, or serial ones with the same
/// methods.
pub(crate) mod prelude {
    #[cfg(feature = "serial")]
    pub(crate) use super::serial::*;
    #[cfg(not(feature = "serial"))]
    pub(crate) use rayon::prelude::*;
}

use prelude::*;

/// The size of a block of work. Miri takes a thousand times as long for a step, so that its tests
/// have sizes that would lie inside one block of the `usual` size; with blocks that are `small`
/// there, they go from block to block all the same.
pub(crate) const fn block_size(usual: usize, small: usize) -> usize {
    if cfg!(miri) { small } else { usual }
}

/// Tasks for each thread that [`parts`] aims for: enough that the last ones end at about the same
/// time.
const TASKS_PER_THREAD: usize = 4;

/// Runs `task` for each index below `count` once, on the current thread pool, in no particular
/// order.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    match count {
        0 => {}
        1 => task(0),
        _ => (0..count).into_par_iter().with_max_len(1).for_each(task),
    }
}

/// Number of parts, at most `most`, into which each of `tasks` tasks is cut, so that every thread
/// finds a few. For cuts that cost nothing and change no result.
pub(crate) fn parts(tasks: usize, most: usize) -> usize {
    (TASKS_PER_THREAD * threads()).div_ceil(tasks.max(1)).clamp(1, most.max(1))
}

/// Number of threads of the current pool.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "serial")]
    return 1;
    #[cfg(not(feature = "serial"))]
    rayon::current_num_threads()
}

/// Runs `task` on every thread of the current pool at once.
pub(crate) fn on_every_thread(task: impl Fn() + Sync) {
    #[cfg(feature = "serial")]
    task();
    #[cfg(not(feature = "serial"))]
    rayon::broadcast(|_| task());
}

/// The methods of rayon's traits that this crate uses, on iterators of the standard library.
#[cfg(feature = "serial")]
mod serial {
    use std::slice::{Chunks, ChunksExact, ChunksExactMut, ChunksMut, IterMut};

    pub(crate) trait SerialSlice<T> {
        fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
        fn par_chunks_exact(&self, size: usize) -> ChunksExact<'_, T>;
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
        fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T>;
        fn par_iter_mut(&mut self) -> IterMut<'_, T>;
    }

    impl<T> SerialSlice<T> for [T] {
        fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
            self.chunks(size)
        }
        fn par_chunks_exact(&self, size: usize) -> ChunksExact<'_, T> {
            self.chunks_exact(size)
        }
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
            self.chunks_mut(size)
        }
        fn par_chunks_exact_mut(&mut self, size: usize) -> ChunksExactMut<'_, T> {
            self.chunks_exact_mut(size)
        }
        fn par_iter_mut(&mut self) -> IterMut<'_, T> {
            self.iter_mut()
        }
    }

    pub(crate) trait SerialIterator: Iterator + Sized {
        fn into_par_iter(self) -> Self {
            self
        }
        fn with_min_len(self, _: usize) -> Self {
            self
        }
        fn with_max_len(self, _: usize) -> Self {
            self
        }
    }

    impl<I: Iterator> SerialIterator for I {}
}

/// A pointer that tasks share to read one slice or to write disjoint parts of it.
pub(crate) struct Shared<T = f32>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}

// SAFETY: the pointer itself may go to any thread. Whoever dereferences it promises, in an `unsafe`
// block of its own, that the slice outlives the tasks and that no two tasks write the same element.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: a shared reference gives nothing but a copy of the pointer, which may go to any thread.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// A pointer through which tasks only read.
    pub(crate) fn read_only(slice: &[T]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }

    /// The same pointer to elements of another type.
    pub(crate) fn cast<U>(self) -> Shared<U> {
        Shared(self.0.cast())
    }

    pub(crate) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The pointer `offset` elements further on; a null pointer stays null.
    pub(crate) fn at(self, offset: usize) -> *mut T {
        if self.0.is_null() { self.0 } else { self.0.wrapping_add(offset) }
    }
}
