//! Storage types of activations and their gradients.

use std::fmt;
use std::str::FromStr;

use half::bf16;
use thiserror::Error;

/// The storage type of activations and their gradients. Weights, statistics and sums are `f32` with
/// either type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ElementType {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// bfloat16: the upper half of a binary32, with 8 significant bits.
    Bf16,
}

/// The error for a name that no storage type has; it holds the name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown precision {0:?}: expected f32 or bf16")]
pub struct UnknownPrecision(String);

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::F32 => "f32",
            ElementType::Bf16 => "bf16",
        })
    }
}

impl FromStr for ElementType {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(ElementType::F32),
            "bf16" => Ok(ElementType::Bf16),
            _ => Err(UnknownPrecision(name.to_owned())),
        }
    }
}

/// A storage type of activations: `f32` or [`bf16`]. Arithmetic is in `f32`; a result is rounded
/// once, when it is stored.
pub trait Element: Storage {
    /// The value as `f32`, exactly.
    fn to_f32(self) -> f32 {
        self.widen()
    }

    /// The nearest value, ties to even. NaN stays NaN.
    #[must_use]
    fn from_f32(x: f32) -> Self {
        Self::narrow(x)
    }
}

impl Element for f32 {}
impl Element for bf16 {}

/// The conversions that the kernels need of an [`Element`]. Every bit pattern is a value of the
/// type, and all zero bits are the value zero.
pub trait Storage: Copy + Send + Sync + Default + PartialEq + fmt::Debug + 'static {
    /// The value of [`ElementType`] that names this type.
    const PRECISION: ElementType;

    /// The value as `f32`, exactly.
    fn widen(self) -> f32;
    /// The nearest value, ties to even. NaN stays NaN.
    fn narrow(x: f32) -> Self;
}

impl Storage for f32 {
    const PRECISION: ElementType = ElementType::F32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

impl Storage for bf16 {
    const PRECISION: ElementType = ElementType::Bf16;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        // The conversion has no branches, so that loops over slices become vector code.
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        Self::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for precision in [ElementType::F32, ElementType::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert_eq!(
            "f16".parse::<ElementType>().unwrap_err().to_string(),
            "unknown precision \"f16\": expected f32 or bf16"
        );
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // One step above 1 is 1 + 2^-7.
        let step = 2f32.powi(-7);
        for (x, expected) in [
            (1.0 + step * 0.49, 1.0),
            (1.0 + step * 0.5, 1.0),
            (1.0 + step * 1.5, 1.0 + step * 2.0),
            (1.0 + step * 0.51, 1.0 + step),
        ] {
            assert_eq!(bf16::from_f32(x).to_f32(), expected, "{x}");
            assert_eq!(<bf16 as Element>::from_f32(-x).widen(), -expected, "{x}");
        }
        assert_eq!(bf16::narrow(f32::MAX).widen(), f32::INFINITY);
        assert_eq!(bf16::narrow(f32::NEG_INFINITY).widen(), f32::NEG_INFINITY);
        // A NaN whose payload lies in the lower half alone must not turn into infinity.
        assert!(bf16::narrow(f32::from_bits(0x7f80_0001)).widen().is_nan());
        for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 499 } else { 1 }) {
            let x = bf16::from_bits(bits);
            assert!(x.is_nan() || bf16::narrow(x.widen()).to_bits() == bits);
        }
    }
}
