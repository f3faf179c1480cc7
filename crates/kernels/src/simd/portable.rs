use half::bf16;

use super::vector::{Kernel, Simd};
use crate::element::Storage;

/// Four lanes in plain Rust, which compilers turn into the architecture's baseline vectors.
#[derive(Clone, Copy)]
pub(crate) struct F32x4([f32; 4]);

impl F32x4 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        // Written out, because every operation takes this way and Miri needs far fewer steps so.
        let ([a, b, c, d], [x, y, z, w]) = (self.0, other.0);
        Self([f(a, x), f(b, y), f(c, z), f(d, w)])
    }
}

impl Simd for F32x4 {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller promises that `p` is valid for these lanes.
        unsafe { Self(p.cast::<[f32; 4]>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises that `p` is valid for these lanes.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises that `p` is valid for these lanes.
            *lane = unsafe { *p.add(i) };
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller promises that `p` is valid for these lanes.
            unsafe { *p.add(i) = *lane };
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the caller promises that `p` is valid for these lanes.
        unsafe { Self(p.cast::<[bf16; 4]>().read_unaligned().map(bf16::widen)) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the caller promises that `p` is valid for these lanes.
        unsafe { p.cast::<[bf16; 4]>().write_unaligned(self.0.map(bf16::narrow)) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller promises that `p` is valid for these lanes.
            *lane = unsafe { *p.add(i) }.widen();
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize) {
        for (i, lane) in self.0.iter().enumerate().take(n) {
            // SAFETY: the caller promises that `p` is valid for these lanes.
            unsafe { *p.add(i) = bf16::narrow(*lane) };
        }
    }
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        Self(self.0.map(|x| bf16::narrow(x).widen()))
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        self.zip(gate, |x, gate| if gate <= 0.0 { 0.0 } else { x })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        // `f32::mul_add` is a slow library call where the processor has no fused instruction.
        self.zip(m, |x, y| x * y).zip(a, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(never)]
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: portable code needs no features; the caller keeps the kernel's own conditions.
        unsafe { kernel.run::<Self>() }
    }
}
