//! The arithmetic of a batch norm on vectors of channels. The forward pass, the mask of the
//! backward pass and the store of a convolution all use it, so that they give the same bits.

use crate::simd::{Simd, load};

/// Parameters of one vector of channels.
#[derive(Clone, Copy)]
pub(crate) struct Normalize<S> {
    pub(crate) mean: S,
    pub(crate) scale: S,
    beta: S,
}

impl<S: Simd> Normalize<S> {
    /// Loads the parameters of `lanes` channels from the addresses of mean, scale and beta.
    ///
    /// # Safety
    /// The features of `S` are enabled, and each pointer is readable for `lanes` values.
    #[inline(always)]
    pub(crate) unsafe fn load([mean, scale, beta]: [*const f32; 3], lanes: usize) -> Self {
        // SAFETY: the caller enabled the features of `S` and promises `lanes` readable values at
        // each pointer.
        unsafe {
            Self { mean: load(mean, lanes), scale: load(scale, lanes), beta: load(beta, lanes) }
        }
    }

    /// The normalised value, after the ReLU if there is one.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(crate) unsafe fn forward(self, relu: bool, x: S) -> S {
        // SAFETY: the caller enabled the features of `S`.
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
        // SAFETY: the caller enabled the features of `S`.
        unsafe { x.sub(self.mean).mul(self.scale).add(self.beta) }
    }

    /// `dy` where the value before the ReLU is positive or NaN, else zero; `dy` itself if there is no
    /// ReLU.
    ///
    /// # Safety
    /// The features of `S` are enabled.
    #[inline(always)]
    pub(crate) unsafe fn masked(self, relu: bool, x: S, dy: S) -> S {
        // SAFETY: the caller enabled the features of `S`.
        unsafe { if relu { dy.where_positive(self.affine(x)) } else { dy } }
    }
}
