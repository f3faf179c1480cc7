//! Aligned memory for activations and scratch data.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

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
///
/// A buffer may be cut into halves, which are buffers of their own, and halves may be joined again.
pub struct Buffer<E: Element = f32> {
    data: NonNull<E>,
    len: usize,
    /// The allocation that `data` is in; `None` only when `len` is zero.
    block: Option<Arc<Block>>,
}

// SAFETY: no other `Buffer` covers the same elements, and it hands out references by the usual
// borrowing rules; its elements are plain numbers.
unsafe impl<E: Element> Send for Buffer<E> {}
// SAFETY: a shared `Buffer` allows reads only.
unsafe impl<E: Element> Sync for Buffer<E> {}

/// An allocation, which lives as long as any part of it.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a `Block` only keeps the address to free it; it reads and writes nothing there.
unsafe impl Send for Block {}
// SAFETY: as for `Send`.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `Buffer::zeroed` allocated `start` with this layout, and every buffer in it is gone.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl<E: Element> Buffer<E> {
    /// A buffer of `len` zeros.
    ///
    /// # Panics
    /// When `len` elements exceed `isize::MAX` bytes, like `Vec::with_capacity`.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let Some(layout) = Self::layout(len) else {
            return Self { data: NonNull::dangling(), len: 0, block: None };
        };
        // SAFETY: `len` is not zero, so the layout's size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let data = start.cast::<E>();
        #[cfg(all(target_os = "linux", not(miri)))]
        if layout.align() == LARGE_PAGE {
            // SAFETY: the range was just allocated and is page-aligned; the advice changes no
            // content. A system without large pages refuses the advice, which is harmless.
            unsafe { libc::madvise(data.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // The zeros are written after the advice, because the first touch decides the page size.
        // SAFETY: the allocation holds at least `len` elements, and all zero bits are a value of `E`.
        unsafe { data.as_ptr().write_bytes(0, len) };
        Self { data, len, block: Some(Arc::new(Block { start, layout })) }
    }

    /// The two halves, or the buffer itself where they would not be whole cache lines.
    ///
    /// # Errors
    /// The buffer itself.
    pub fn halves(self) -> Result<[Self; 2], Self> {
        let half = self.len / 2;
        if half == 0 || !self.len.is_multiple_of(2) || !(half * size_of::<E>()).is_multiple_of(LINE)
        {
            return Err(self);
        }
        // SAFETY: `half` is less than `len`, so the address lies within the same allocation.
        let middle = unsafe { self.data.add(half) };
        let second = Self { data: middle, len: half, block: self.block.clone() };
        Ok([Self { len: half, ..self }, second])
    }

    /// The buffer of which `self` and `other` are the halves, in either order.
    ///
    /// # Errors
    /// Both, if they are not the halves of one buffer.
    pub fn joined(self, other: Self) -> Result<Self, [Self; 2]> {
        if !self.is_half_with(&other) {
            return Err([self, other]);
        }
        let first = if self.data < other.data { self } else { other };
        // The elements behind it are those of the other half, which ends here.
        Ok(Self { len: 2 * first.len, ..first })
    }

    /// Whether `self` and `other` are the halves of one buffer.
    #[must_use]
    pub fn is_half_with(&self, other: &Self) -> bool {
        let one_block = match (&self.block, &other.block) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let [first, second] =
            [self.offset().min(other.offset()), self.offset().max(other.offset())];
        let left = first.is_multiple_of(2 * self.len.max(1));
        one_block && self.len == other.len && second - first == self.len && left
    }

    /// Whether it is a part of a larger buffer.
    #[must_use]
    pub fn is_part(&self) -> bool {
        let whole = |block: &Arc<Block>| {
            Self::layout(self.len).is_some_and(|layout| layout.size() == block.layout.size())
        };
        self.block.as_ref().is_some_and(|block| !whole(block))
    }

    /// Elements of the allocation before this buffer's.
    fn offset(&self) -> usize {
        let start = self.block.as_ref().map_or(0, |block| block.start.as_ptr().addr());
        self.data.as_ptr().addr().saturating_sub(start) / size_of::<E>()
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
    fn halves_are_buffers_of_their_own_and_join_again() {
        let line = LINE / size_of::<f32>();
        let mut whole = Buffer::<f32>::zeroed(8 * line);
        whole.iter_mut().enumerate().for_each(|(i, value)| *value = i as f32);
        let expected = whole.to_vec();
        assert!(!whole.is_part());
        let [mut a, b] = whole.halves().expect("whole lines");
        assert!(a.is_part() && b.is_part());
        a[0] = -1.0;
        assert_eq!((&b[..], a[0]), (&expected[4 * line..], -1.0));
        a[0] = 0.0;
        // The second quarter and the third are neighbours, but not the halves of anything.
        let ([q0, q1], [q2, q3]) = (a.halves().expect("lines"), b.halves().expect("lines"));
        let [q1, q2] = q1.joined(q2).expect_err("two halves of different buffers");
        let a = q1.joined(q0).expect("in either order");
        let [a, q2] = a.joined(q2).expect_err("of different lengths");
        let stranger = Buffer::<f32>::zeroed(2 * line);
        assert!(q2.clone().joined(stranger).is_err(), "of different allocations");
        let whole = a.joined(q2.joined(q3).expect("halves")).expect("halves");
        assert_eq!(&whole[..], &expected[..]);
        assert!(!whole.is_part());

        let odd = Buffer::<f32>::zeroed(3 * line).halves().expect_err("not whole lines");
        assert_eq!(odd.len(), 3 * line);
        assert!(Buffer::<f32>::zeroed(0).halves().is_err());
        // A half outlives the other.
        let [_, second] = whole.halves().expect("lines");
        assert_eq!(&second[..], &expected[4 * line..]);
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
