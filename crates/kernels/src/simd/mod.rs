//! One generic vector type per instruction set, and the entry points that enable the instruction
//! set's features.
//!
//! A kernel is written once as a [`Kernel`] whose `run` is `#[inline(always)]`; [`dispatch`] calls
//! it inside a function compiled with the features of the chosen [`Isa`], so every vector operation
//! inlines to one instruction.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::bf16;

use crate::element::{Element, Storage};
use crate::isa::Isa;
use crate::tile::Tile;

/// A vector of [`Simd::LANES`] `f32`.
///
/// # Safety
/// Every method needs the features of the instruction set to be enabled on the running processor;
/// pointers must be valid for the lanes that are read or written.
pub trait Simd: Copy + 'static {
    /// Number of `f32` in a vector.
    const LANES: usize;
    /// Rows of a register tile.
    const TILE_ROWS: usize;
    /// Vectors in a row of a register tile.
    const TILE_VECTORS: usize = 2;
    /// Columns of a register tile, the width of a packed panel.
    const TILE_COLUMNS: usize = Self::LANES * Self::TILE_VECTORS;

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
    /// Each lane where `gate > 0` or `gate` is not a number, else zero.
    unsafe fn where_positive(self, gate: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * m + a`.
    unsafe fn mul_add(self, m: Self, a: Self) -> Self;
    /// Hints that the cache line at `p` is read soon; `p` may be any address.
    unsafe fn prefetch(p: *const f32);
    /// Computes one register tile of `rows <= TILE_ROWS` rows and `vectors <= TILE_VECTORS`
    /// vectors.
    unsafe fn tile<E: Element>(rows: usize, vectors: usize, tile: &Tile<E>);
}

/// Work that is compiled once per instruction set.
pub trait Kernel {
    /// How its activations are stored.
    type Element: Element;
    type Output;
    /// Must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The features of `S` must be enabled; further conditions are those of the implementing
    /// kernel.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` on `isa`, or on portable code if the machine lacks it.
///
/// # Safety
/// The conditions of the kernel's `run` hold, except for the features, which are checked here.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features exist, the rest is the caller's.
        Isa::Amx | Isa::Avx512Bf16 if isa.is_available() => unsafe {
            K::Element::run_on_avx512bf16(kernel)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 if isa.is_available() => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 if isa.is_available() => unsafe { avx2::run(kernel) },
        // SAFETY: portable code needs no features; the rest is the caller's.
        _ => unsafe { kernel.run::<portable::F32x4>() },
    }
}

/// Runs `kernel` on AVX-512.
///
/// # Safety
/// The features exist, and the kernel's conditions hold.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn run_on_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's.
    unsafe { avx512::run(kernel) }
}

/// Runs `kernel` on AVX-512 with its bf16 extension.
///
/// # Safety
/// The features exist, and the kernel's conditions hold.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn run_on_avx512bf16<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller's.
    unsafe { avx512::run_bf16(kernel) }
}

/// Columns of a packed panel on `isa`.
pub(crate) fn tile_columns(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => <avx512::F32x16<false>>::TILE_COLUMNS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::F32x8::TILE_COLUMNS,
        _ => portable::F32x4::TILE_COLUMNS,
    }
}

/// Lanes of a vector on `isa`.
pub(crate) fn lanes(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => <avx512::F32x16<false>>::LANES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::F32x8::LANES,
        _ => portable::F32x4::LANES,
    }
}

/// Calls [`crate::tile::compute`] with the run-time row and vector counts as constants.
macro_rules! tile_table {
    ($function:ident, $rows:expr, $vectors:expr, $tile:expr; $($r:literal)*) => {
        match ($rows, $vectors) {
            $(($r, 1) => $function::<E, $r, 1>($tile), ($r, 2) => $function::<E, $r, 2>($tile),)*
            _ => debug_assert!(false, "no register tile of this size"),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{pair_peak, pair_tile};
pub(crate) use tile_table;
