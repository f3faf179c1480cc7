//! Fixed tasks on any number of threads.
//!
//! How work is cut into tasks depends on shapes alone, never on the number of threads, and every
//! reduction over tasks runs in task order. That is what makes results bit-identical for every
//! thread count.

use rayon::prelude::*;

/// Runs `task(0..count)` on the current thread pool, each index once, in no particular order.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    match count {
        0 => {}
        1 => task(0),
        _ => (0..count).into_par_iter().with_max_len(1).for_each(task),
    }
}

/// A pointer that tasks share to read one slice or to write disjoint parts of it.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T = f32>(*mut T);

// SAFETY: dereferencing is unsafe, and the tasks that do it write disjoint elements.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// A pointer that is only read through.
    pub(crate) fn read_only(slice: &[T]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }

    pub(crate) fn null() -> Self {
        Self(std::ptr::null_mut())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The pointer `offset` elements on; null stays null.
    pub(crate) fn at(self, offset: usize) -> *mut T {
        if self.0.is_null() { self.0 } else { self.0.wrapping_add(offset) }
    }
}
