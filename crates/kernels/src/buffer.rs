//! Aligned memory for activations and scratch data.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

#[cfg(target_arch = "x86_64")]
use half::bf16;

use crate::element::Element;
use crate::error::ShapeError;

/// Bytes of a cache line, which is also the width of the widest vector.
const LINE: usize = 64;
/// Bytes of a large page. Buffers of at least this size are aligned to large pages, so that the
/// operating system can back them with such pages. The kernels walk dozens of arrays at once and
/// would otherwise miss the TLB on each step.
const LARGE_PAGE: usize = 2 << 20;

/// A zero-initialised array of `f32` or `bf16`, aligned to 64 bytes and, where the system allows
/// it, on large pages.
///
/// The alignment matters because a vector load that crosses a cache line costs twice as much;
/// allocators align a `Vec<f32>` to 16 bytes only.
pub struct Buffer<E: Element = f32> {
    data: NonNull<E>,
    len: usize,
}

// SAFETY: `Buffer` owns its memory alone and hands out references by the usual borrowing rules; its
// elements are plain numbers.
unsafe impl<E: Element> Send for Buffer<E> {}
// SAFETY: a shared `Buffer` allows reads only.
unsafe impl<E: Element> Sync for Buffer<E> {}

impl<E: Element> Buffer<E> {
    /// A buffer of `len` zeros.
    ///
    /// # Panics
    /// When `len` elements exceed `isize::MAX` bytes, like `Vec::with_capacity`.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self { data: NonNull::dangling(), len: 0 };
        };
        // SAFETY: `len` is not zero, so the layout's size is not zero.
        let Some(data) = NonNull::new(unsafe { alloc(layout) }.cast::<E>()) else {
            handle_alloc_error(layout)
        };
        #[cfg(all(target_os = "linux", not(miri)))]
        if layout.align() == LARGE_PAGE {
            // SAFETY: the range was just allocated and is page-aligned; the advice changes no
            // content. A system without large pages refuses the advice, which is harmless.
            unsafe { libc::madvise(data.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // The zeros are written after the advice, because the first touch decides the page size.
        // SAFETY: the allocation holds at least `len` elements, and all zero bits are a value of `E`.
        unsafe { data.as_ptr().write_bytes(0, len) };
        Self { data, len }
    }

    /// Does what [`Buffer::zeroed`] does, for a length that comes from outside and may be too
    /// large.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] when `len` elements exceed `isize::MAX` bytes with their alignment.
    pub fn try_zeroed(len: usize) -> Result<Self, ShapeError> {
        let most = (isize::MAX as usize - LARGE_PAGE) / size_of::<E>();
        if len > most {
            return Err(ShapeError::Overflow { what: "buffer", dims: vec![len] });
        }
        Ok(Self::zeroed(len))
    }

    /// The layout of a buffer of `len > 0` elements.
    #[allow(clippy::panic, reason = "as for a Vec of that length; `try_zeroed` gives an error")]
    fn layout(len: usize) -> Option<Layout> {
        if len == 0 {
            return None;
        }
        let bytes = len.saturating_mul(size_of::<E>());
        let align = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
        let bytes = bytes.checked_next_multiple_of(align).unwrap_or(usize::MAX);
        match Layout::from_size_align(bytes, align) {
            Ok(layout) => Some(layout),
            Err(_) => panic!("a buffer of {len} elements exceeds the address space"),
        }
    }
}

impl<E: Element> Drop for Buffer<E> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: `zeroed` allocated `data` with this layout, and nothing uses it after the
            // drop.
            unsafe { dealloc(self.data.as_ptr().cast(), layout) };
        }
    }
}

impl<E: Element> Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        // SAFETY: `data` points to `len` initialised elements; it dangles only when `len` is zero.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<E: Element> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: `data` points to `len` initialised elements, and `self` is borrowed mutably, so
        // no other reference exists.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<E: Element> Clone for Buffer<E> {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl<E: Element> Default for Buffer<E> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<E: Element> From<&[E]> for Buffer<E> {
    fn from(values: &[E]) -> Self {
        let mut buffer = Self::zeroed(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl<E: Element> std::fmt::Debug for Buffer<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish()
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` floats of unspecified content. The thread keeps the memory for its next
/// call.
///
/// A nested call gets a buffer of its own.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH
        .with_borrow_mut(Vec::pop)
        .filter(|buffer| buffer.len() >= len)
        .unwrap_or_else(|| Buffer::zeroed(len.max(LARGE_PAGE / size_of::<f32>())));
    let result = f(&mut buffer[..len]);
    SCRATCH.with_borrow_mut(|pool| pool.push(buffer));
    result
}

/// Does what [`with_scratch`] does, for `bf16`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn with_bf16_scratch<R>(len: usize, f: impl FnOnce(&mut [bf16]) -> R) -> R {
    with_scratch(len.div_ceil(2), |scratch| {
        // SAFETY: the memory holds `len` values of half an `f32`'s size and a smaller alignment;
        // every bit pattern is a bf16; the slice lives only during the call of `f`.
        f(unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<bf16>(), len) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_zero() {
        // Miri looks at each value on its own.
        let large = if cfg!(miri) { 1 << 12 } else { 1 << 20 };
        for len in [0, 1, 17, large] {
            let buffer = Buffer::<f32>::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 0.0));
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(LINE));
        }
    }

    #[test]
    fn scratch_nests_without_aliasing() {
        with_scratch(8, |outer| {
            outer.fill(1.0);
            with_scratch(8, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|&x| x == 1.0));
        });
    }
}
