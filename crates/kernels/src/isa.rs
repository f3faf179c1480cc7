//! Chooses the instruction set, once per process or explicitly per call.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use thiserror::Error;

/// Environment variable that overrides the detected instruction set.
pub const ISA_VARIABLE: &str = "SORA_ISA";

/// Instruction set that a kernel runs on.
///
/// Results are bit-identical between runs and thread counts on one instruction set; between
/// instruction sets they differ by rounding, because the vector width decides the order of some
/// sums. On `f32` activations `amx` and `avx512bf16` run the code of `avx512` and give its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// [`Isa::Avx512Bf16`] with AMX-TILE and AMX-BF16: tiles multiply matrices of bf16.
    Amx,
    /// [`Isa::Avx512`] with AVX512_BF16: products of bf16 pairs, and conversion in one instruction.
    Avx512Bf16,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// The vectors of 128 bits that every 64-bit Arm processor has.
    Neon,
    /// Plain Rust that compiles on every architecture.
    Portable,
}

/// Why an instruction set could not be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IsaError {
    /// The name is not one of `amx`, `avx512bf16`, `avx512`, `avx2`, `neon` and
    /// `portable`.
    #[error(
        "unknown instruction set {0:?}: expected amx, avx512bf16, avx512, avx2, neon or portable"
    )]
    Unknown(String),
    /// This processor (or operating system) lacks the instruction set.
    #[error("instruction set {0} is not available on this machine: expected one of {1}")]
    Unavailable(Isa, String),
}

impl Isa {
    /// Every instruction set, fastest first.
    pub const ALL: [Isa; 6] =
        [Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// Whether this machine can run the instruction set.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && crate::amx::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                std::is_x86_feature_detected!("avx512bf16") && Isa::Avx512.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                    && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 | Isa::Avx2 => false,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Portable => true,
        }
    }

    /// The instruction sets this machine can run, fastest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest instruction set of this machine.
    #[must_use]
    pub fn detect() -> Isa {
        Isa::available().next().unwrap_or(Isa::Portable)
    }

    /// The instruction set named by a setting, or the fastest one when there is no setting.
    ///
    /// # Errors
    /// [`IsaError`] when the name is unknown or this machine cannot run it.
    pub fn from_setting(setting: Option<&str>) -> Result<Isa, IsaError> {
        match setting {
            None => Ok(Isa::detect()),
            Some(name) => name.parse::<Isa>()?.checked(),
        }
    }

    /// The instruction set of this process: the value of `SORA_ISA` if it is set, else the fastest
    /// one. The variable is read once.
    ///
    /// # Errors
    /// [`IsaError`] when the variable names an unknown instruction set or one this machine cannot
    /// run.
    pub fn current() -> Result<Isa, IsaError> {
        static CURRENT: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        CURRENT
            .get_or_init(|| {
                let setting = std::env::var_os(ISA_VARIABLE);
                let setting = setting.as_ref().map(|value| value.to_string_lossy());
                Isa::from_setting(setting.as_deref())
            })
            .clone()
    }

    /// This instruction set, if this machine can run it.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] when it cannot.
    pub fn checked(self) -> Result<Isa, IsaError> {
        if self.is_available() {
            return Ok(self);
        }
        let names: Vec<String> = Isa::available().map(|isa| isa.to_string()).collect();
        Err(IsaError::Unavailable(self, names.join(", ")))
    }
}

/// Lets tests choose [`Isa::Amx`] on a processor without AMX.
///
/// # Safety
/// A handler of the illegal instruction signal executes the tile instructions, on every thread,
/// from now on.
#[doc(hidden)]
#[cfg(target_arch = "x86_64")]
pub unsafe fn assume_amx_is_emulated() {
    // SAFETY: the caller promises that a signal handler executes the tile instructions on every
    // thread.
    unsafe { crate::amx::assume() };
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Amx => "amx",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "amx" => Ok(Isa::Amx),
            "avx512bf16" => Ok(Isa::Avx512Bf16),
            "avx512" => Ok(Isa::Avx512),
            "avx2" => Ok(Isa::Avx2),
            "neon" => Ok(Isa::Neon),
            "portable" => Ok(Isa::Portable),
            _ => Err(IsaError::Unknown(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn unknown_name_is_an_error() {
        let error = Isa::from_setting(Some("sse9")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown instruction set \"sse9\": expected amx, avx512bf16, avx512, avx2, neon or portable"
        );
    }

    #[test]
    fn no_setting_detects() {
        assert_eq!(Isa::from_setting(None), Ok(Isa::detect()));
        assert_eq!(Isa::from_setting(Some("portable")), Ok(Isa::Portable));
    }

    #[test]
    fn absent_isa_is_an_error() {
        for isa in Isa::ALL {
            assert_eq!(isa.checked().is_ok(), isa.is_available());
        }
    }
}
