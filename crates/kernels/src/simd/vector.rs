//! A vector of floats, and work that is written once for every kind of vector.

use half::bf16;

use crate::element::{Element, ElementType, Storage};

/// A vector of [`Simd::LANES`] `f32`.
///
/// # Safety
/// Every method needs a processor that has the features of the instruction set. A pointer must be
/// valid for the lanes that the method reads or writes.
pub trait Simd: Copy + 'static {
    /// Number of `f32` in a vector.
    const LANES: usize;
    /// Rows of a register tile.
    const TILE_ROWS: usize;
    /// Vectors in a row of a register tile.
    const TILE_VECTORS: usize = 2;
    /// Columns of a register tile, the width of a packed panel.
    const TILE_COLUMNS: usize = Self::LANES * Self::TILE_VECTORS;

    /// Whether a product and a sum in one operation cost no more than the product alone.
    const FUSED: bool;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Loads the first `n < LANES` lanes and zeroes the others.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    /// Stores the first `n < LANES` lanes.
    unsafe fn store_first(self, p: *mut f32, n: usize);
    unsafe fn load_bf16(p: *const bf16) -> Self;
    /// Rounds to nearest even and stores.
    unsafe fn store_bf16(self, p: *mut bf16);
    /// Loads the first `n < LANES` lanes and zeroes the others.
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self;
    /// Rounds and stores the first `n < LANES` lanes.
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize);
    /// The nearest bf16, ties to even, as `f32`.
    unsafe fn round_bf16(self) -> Self;
    /// Rounds both to nearest even and stores them side by side, lane by lane: `2 LANES` values.
    #[inline(always)]
    unsafe fn store_pairs(self, other: Self, p: *mut bf16) {
        // 16 lanes hold the widest vector.
        let (mut first, mut second) = ([0.0f32; 16], [0.0f32; 16]);
        // SAFETY: the caller promises the features, and that `p` is valid for twice the lanes.
        unsafe {
            self.store(first.as_mut_ptr());
            other.store(second.as_mut_ptr());
            for lane in 0..Self::LANES {
                *p.add(2 * lane) = bf16::narrow(first[lane]);
                *p.add(2 * lane + 1) = bf16::narrow(second[lane]);
            }
        }
    }
    /// Keeps each lane where `gate > 0` or `gate` is NaN; the other lanes become zero.
    unsafe fn where_positive(self, gate: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * m + a`.
    unsafe fn mul_add(self, m: Self, a: Self) -> Self;
    /// Writes the transpose of the square of [`Simd::LANES`] rows at `x`, which are `x_row` floats
    /// apart, to rows at `y`, `y_row` floats apart.
    #[inline(always)]
    unsafe fn transpose(x: *const f32, x_row: usize, y: *mut f32, y_row: usize) {
        for (i, j) in (0..Self::LANES).flat_map(|i| (0..Self::LANES).map(move |j| (i, j))) {
            // SAFETY: the caller promises two squares of as many rows and columns as lanes.
            unsafe { *y.add(j * y_row + i) = *x.add(i * x_row + j) };
        }
    }
    /// Hints that the cache line at `p` will be read soon; `p` may be any address.
    unsafe fn prefetch(p: *const f32);
    /// Runs `kernel` in a function of its own that is compiled with these features: for a kernel
    /// within a kernel that is too large to be inlined wherever it is used.
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output;
}

/// Work that is compiled once for each instruction set.
pub trait Kernel {
    /// The storage type of the kernel's activations.
    type Element: Element;
    type Output;
    /// Does the work. Implementations are `#[inline(always)]`, so that they compile for the
    /// instruction set.
    ///
    /// # Safety
    /// The features of `S` are enabled, and the conditions of the implementing kernel hold.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Loads `lanes <= LANES` values; the other lanes are zero.
///
/// # Safety
/// The features of `S` are enabled, and `p` is readable for `lanes` values.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd, E: Element>(p: *const E, lanes: usize) -> S {
    // SAFETY: the caller enabled the features of `S` and promises `lanes` readable values; `E` is
    // the type that its precision names.
    unsafe {
        match (E::PRECISION, lanes == S::LANES) {
            (ElementType::F32, true) => S::load(p.cast()),
            (ElementType::F32, false) => S::load_first(p.cast(), lanes),
            (ElementType::Bf16, true) => S::load_bf16(p.cast()),
            (ElementType::Bf16, false) => S::load_first_bf16(p.cast(), lanes),
        }
    }
}

/// Stores the first `lanes <= LANES` values, rounded.
///
/// # Safety
/// The features of `S` are enabled, and `p` is writable for `lanes` values.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, E: Element>(value: S, p: *mut E, lanes: usize) {
    // SAFETY: the caller enabled the features of `S` and promises `lanes` writable values; `E` is
    // the type that its precision names.
    unsafe {
        match (E::PRECISION, lanes == S::LANES) {
            (ElementType::F32, true) => value.store(p.cast()),
            (ElementType::F32, false) => value.store_first(p.cast(), lanes),
            (ElementType::Bf16, true) => value.store_bf16(p.cast()),
            (ElementType::Bf16, false) => value.store_first_bf16(p.cast(), lanes),
        }
    }
}

/// The value that a load would return after a store of `value` as `E`.
///
/// # Safety
/// The features of `S` are enabled.
#[inline(always)]
pub(crate) unsafe fn stored<S: Simd, E: Element>(value: S) -> S {
    match E::PRECISION {
        ElementType::F32 => value,
        // SAFETY: the caller enabled the features of `S`.
        ElementType::Bf16 => unsafe { value.round_bf16() },
    }
}

/// Runs the body once for each vector of `$len` elements, with the index of its first element and
/// its number of lanes. This is a macro, because the compiler might not inline a closure into a
/// function with other features.
macro_rules! for_each_vector {
    ($len:expr, |$i:ident, $lanes:ident| $body:expr) => {{
        let len = $len;
        let whole = len / S::LANES * S::LANES;
        let mut $i = 0;
        while $i < whole {
            let $lanes = S::LANES;
            $body;
            $i += S::LANES;
        }
        if $i < len {
            let $lanes = len - $i;
            $body;
        }
    }};
}
pub(crate) use for_each_vector;
