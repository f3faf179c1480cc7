//! The arithmetic of a batch norm on vectors of channels: one place, so that the forward pass, the
//! mask of the backward pass and the store of a convolution give the same bits.

use crate::simd::{Simd, load};

/// Parameters of one vector of channels.
#[derive(Clone, Copy)]
pub(crate) struct Normalize<S> {
    pub(crate) mean: S,
    pub(crate) scale: S,
    beta: S,
}

impl<S: Simd> Normalize<S> {
    /// The parameters of `lanes` channels at mean, scale and beta.
    ///
    /// # Safety
    /// The features of `S` are enabled, and each pointer is readable for `lanes` values.
    #[inline(always)]
    pub(crate) unsafe fn load([mean, scale, beta]: [*const f32; 3], lanes: usize) -> Self {
        // SAFETY: the caller promises both.
        unsafe {
            Self { mean: load(mean, lanes), scale: load(scale, lanes), beta: load(beta, lanes) }
        }
    }

    /// The normalised value, behind the ReLU if there is one.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(crate) unsafe fn forward(self, relu: bool, x: S) -> S {
        // SAFETY: the caller promises the features.
        unsafe {
            let y = self.affine(x);
            if relu { y.where_positive(y) } else { y }
        }
    }

    /// The value before the ReLU.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    unsafe fn affine(self, x: S) -> S {
        // SAFETY: the caller promises the features.
        unsafe { x.sub(self.mean).mul(self.scale).add(self.beta) }
    }

    /// `dy` behind the ReLU's mask at `x`, if there is a ReLU.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(crate) unsafe fn masked(self, relu: bool, x: S, dy: S) -> S {
        // SAFETY: the caller promises the features.
        unsafe { if relu { dy.where_positive(self.affine(x)) } else { dy } }
    }
}
