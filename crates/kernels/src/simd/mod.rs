//! One generic vector type per instruction set, and the entry points that enable the instruction
//! set's features.
//!
//! A kernel is written once as a [`Kernel`] whose `run` is `#[inline(always)]`; [`dispatch`] calls
//! it inside a function compiled with the features of the chosen [`Isa`](crate::isa::Isa), so every
//! vector operation inlines to one instruction.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod dispatch;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod vector;

pub(crate) use dispatch::{dispatch, lanes, tile_columns};
pub(crate) use vector::{Kernel, Simd, for_each_vector, load, store, stored};
