use std::arch::aarch64::*;
use std::arch::asm;

use half::bf16;

use super::vector::{Kernel, Simd};

/// Four lanes in a `v` register: part of every 64-bit Arm processor, so that nothing is enabled.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

/// Four bf16 as `f32`.
#[inline(always)]
fn widen(x: uint16x4_t) -> F32x4 {
    // SAFETY: the processor has NEON.
    unsafe { F32x4(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(x)))) }
}

/// The nearest bf16 of each lane, in the lane's lower half, ties to even.
#[inline(always)]
fn narrow(x: float32x4_t) -> uint32x4_t {
    // SAFETY: the processor has NEON.
    unsafe {
        let bits = vreinterpretq_u32_f32(x);
        let upper = vshrq_n_u32::<16>(bits);
        let odd = vandq_u32(upper, vdupq_n_u32(1));
        let half = vaddq_u32(odd, vdupq_n_u32(0x7fff));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, half));
        let quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
        vbslq_u32(vceqq_f32(x, x), rounded, quiet)
    }
}

impl Simd for F32x4 {
    const LANES: usize = 4;
    // 24 sums, two vectors of the panel and the factors of a row fit the 32 registers.
    const TILE_ROWS: usize = 12;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vdupq_n_f32(0.0)) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vdupq_n_f32(x)) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the processor has NEON, and the caller promises that `p` is valid for these lanes.
        unsafe { Self(vld1q_f32(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the processor has NEON, and the caller promises that `p` is valid for these lanes.
        unsafe { vst1q_f32(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; 4];
        // SAFETY: the processor has NEON, and the caller promises `n < 4` and a pointer valid for
        // `n` lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        let mut lanes = [0.0; 4];
        // SAFETY: the processor has NEON, and the caller promises `n < 4` and a pointer valid for
        // `n` lanes.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the processor has NEON, and the caller promises that `p` is valid for these lanes.
        unsafe { widen(vld1_u16(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the processor has NEON, and the caller promises that `p` is valid for these lanes.
        unsafe { vst1_u16(p.cast(), vmovn_u32(narrow(self.0))) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(p: *const bf16, n: usize) -> Self {
        let mut lanes = [bf16::ZERO; 4];
        // SAFETY: the processor has NEON, and the caller promises `n < 4` and a pointer valid for
        // `n` lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load_bf16(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, p: *mut bf16, n: usize) {
        let mut lanes = [bf16::ZERO; 4];
        // SAFETY: the processor has NEON, and the caller promises `n < 4` and a pointer valid for
        // `n` lanes.
        unsafe {
            self.store_bf16(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vreinterpretq_f32_u32(vshlq_n_u32::<16>(narrow(self.0)))) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, gate: Self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe {
            let dropped = vcleq_f32(gate.0, vdupq_n_f32(0.0));
            Self(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(self.0), dropped)))
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vaddq_f32(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vsubq_f32(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vmulq_f32(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, m: Self, a: Self) -> Self {
        // SAFETY: the processor has NEON.
        unsafe { Self(vfmaq_f32(a.0, self.0, m.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        // SAFETY: a prefetch of any address is harmless; it changes no register and no memory. (The
        // function of `std::arch` for it is not stable.)
        unsafe {
            asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags));
        }
    }
    #[inline(never)]
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
        // SAFETY: the processor has the instructions; the caller keeps the kernel's own conditions.
        unsafe { kernel.run::<Self>() }
    }
}
