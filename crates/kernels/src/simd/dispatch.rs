//! Chooses the code for an instruction set.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
use super::vector::{Kernel, Simd};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
#[cfg(target_arch = "x86_64")]
use crate::element::{ElementType, Storage};
use crate::isa::Isa;

/// Runs `kernel` on `isa`, or on portable code if the machine lacks it.
///
/// # Safety
/// The conditions of the kernel's `run` hold, except that of the features, which this function
/// checks.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 if isa.is_available() => match K::Element::PRECISION {
            // Without bf16 there is nothing to convert, so `avx512` gives the same code and bits.
            // SAFETY: the guard has found the features; the caller keeps the kernel's own
            // conditions.
            ElementType::F32 => unsafe { avx512::run(kernel) },
            // SAFETY: the guard has found the features; the caller keeps the kernel's own
            // conditions.
            ElementType::Bf16 => unsafe { avx512::run_bf16(kernel) },
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the guard has found the features; the caller keeps the kernel's own conditions.
        Isa::Avx512 if isa.is_available() => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the guard has found the features; the caller keeps the kernel's own conditions.
        Isa::Avx2 if isa.is_available() => unsafe { avx2::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: every processor of this architecture has the instructions; the caller keeps the
        // kernel's own conditions.
        Isa::Neon => unsafe { kernel.run::<neon::F32x4>() },
        // SAFETY: portable code needs no features; the caller keeps the kernel's own conditions.
        _ => unsafe { kernel.run::<portable::F32x4>() },
    }
}

/// Columns of a packed panel on `isa`.
pub(crate) fn tile_columns(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => <avx512::F32x16<false>>::TILE_COLUMNS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::F32x8::TILE_COLUMNS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::F32x4::TILE_COLUMNS,
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
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::F32x4::LANES,
        _ => portable::F32x4::LANES,
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::element::Storage;
    use crate::simd::vector::{load, store, stored};

    /// Every instruction set loads, rounds and stores alike.
    #[test]
    fn vectors_convert_like_scalars() {
        struct Convert<'a> {
            x: &'a [f32],
            y: &'a mut [bf16],
            back: &'a mut [f32],
            rounded: &'a mut [f32],
        }
        impl Kernel for Convert<'_> {
            type Element = bf16;
            type Output = ();
            #[inline(always)]
            unsafe fn run<S: Simd>(self) {
                for i in (0..self.x.len()).step_by(S::LANES) {
                    let lanes = (self.x.len() - i).min(S::LANES);
                    // SAFETY: `lanes` values lie within each of the slices, which are equally long.
                    unsafe {
                        let x: S = load(self.x.as_ptr().add(i), lanes);
                        store(x, self.y.as_mut_ptr().add(i), lanes);
                        store(stored::<S, bf16>(x), self.rounded.as_mut_ptr().add(i), lanes);
                        let back: S = load(self.y.as_ptr().add(i), lanes);
                        store(back, self.back.as_mut_ptr().add(i), lanes);
                    }
                }
            }
        }
        let mut state = 1u32;
        let mut x: Vec<f32> = (0..if cfg!(miri) { 67 } else { 4099 })
            .map(|_| {
                state = state.wrapping_mul(0x9e37_79b9).wrapping_add(0x7f4a_7c15);
                f32::from_bits(state)
            })
            // The hardware conversion takes denormals for zero, the others keep them.
            .map(|x| if x.is_subnormal() { 0.0 } else { x })
            .collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::MAX,
            1.0 + 2f32.powi(-8),
        ]);
        for isa in crate::Isa::available() {
            let mut y = vec![bf16::default(); x.len()];
            let (mut back, mut rounded) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            // SAFETY: the kernel's slices are equally long.
            unsafe {
                dispatch(isa, Convert { x: &x, y: &mut y, back: &mut back, rounded: &mut rounded })
            };
            for (i, &x) in x.iter().enumerate() {
                let expected = bf16::narrow(x);
                assert_eq!(y[i].to_bits(), expected.to_bits(), "{isa}: {x:e}");
                assert_eq!(back[i].to_bits(), expected.widen().to_bits(), "{isa}: {x:e}");
                assert_eq!(rounded[i].to_bits(), expected.widen().to_bits(), "{isa}: {x:e}");
            }
        }
    }
}
