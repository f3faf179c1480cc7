//! Results that a device may still be computing.

use std::fmt;

use burn::tensor::Tensor;

use super::Number;
use crate::{
    error::{Error, Result},
    nn::to_vec,
};

/// A result that is known, or that a device was asked for.
///
/// A device works behind the host. Who waits for a result stops the host until everything is done
/// that was asked for before it, so a step hands its figures on, and the loop takes them a step later.
pub enum Awaited<T> {
    /// Here.
    Known(T),
    /// On its way.
    Coming(Coming<T>),
}

/// The way to a result.
pub struct Coming<T>(Box<dyn FnOnce() -> Result<T> + Send>);

impl<T: fmt::Debug> fmt::Debug for Awaited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Coming(_) => f.write_str("coming"),
        }
    }
}

impl<T> fmt::Debug for Coming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("coming")
    }
}

impl<T: Send + 'static> Awaited<T> {
    /// The result of `wait`, which is called where the result is needed.
    pub fn coming(wait: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self::Coming(Coming(Box::new(wait)))
    }

    /// The result, if nobody has to wait for it.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Coming(_) => None,
        }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn wait(self) -> Result<T> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Coming(Coming(wait)) => wait(),
        }
    }

    /// Waits for the result, which is known from then on.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait); the result is lost then.
    pub fn get(&mut self) -> Result<&mut T> {
        if let Self::Coming(coming) = self {
            let lost = Coming(Box::new(|| Err(Error::defect("a result was lost"))));
            let Coming(wait) = std::mem::replace(coming, lost);
            *self = Self::Known(wait()?);
        }
        match self {
            Self::Known(value) => Ok(value),
            Self::Coming(_) => Err(Error::defect("a result was lost")),
        }
    }

    /// `then` of the result: at once where it is known.
    pub fn map<U: Send + 'static>(self, then: impl FnOnce(T) -> U + Send + 'static) -> Awaited<U> {
        match self {
            Self::Known(value) => Awaited::Known(then(value)),
            Self::Coming(Coming(wait)) => Awaited::coming(move || Ok(then(wait()?))),
        }
    }

    /// `then` of the result and of `number`, for which nobody waits yet either.
    pub(crate) fn with(
        self,
        number: Number,
        then: impl FnOnce(T, f32) -> T + Send + 'static,
    ) -> Self {
        match number {
            Number::Known(number) => self.map(move |value| then(value, number)),
            Number::OnDevice(tensor) => {
                let asked = ask(tensor);
                Self::coming(move || {
                    let value = self.wait()?;
                    let number = asked()?.first().copied().unwrap_or(f32::NAN);
                    Ok(then(value, number))
                })
            }
        }
    }
}

/// Waits for values.
pub(super) type Wait = Box<dyn FnOnce() -> Result<Vec<f32>> + Send>;

/// Asks a device for `values` (without autodiff). The result waits for what the device was given to do
/// until now, and for nothing that it is given afterwards.
pub(super) fn ask(values: Tensor<1>) -> Wait {
    #[cfg(feature = "gpu")]
    if crate::nn::Backend::of(&values.device()) == crate::nn::Backend::Burn {
        let asked = sora_devices::ask(values);
        return Box::new(|| asked.wait().map_err(|e| Error::Device(e.to_string())));
    }
    Box::new(move || to_vec(&values))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn a_result_that_is_waited_for_is_that_of_a_known_one() {
        let on_device = || Number::OnDevice(Tensor::from_data([0.5f32], &Device::flex()));
        for number in [Number::Known(0.5), on_device()] {
            for awaited in [Awaited::Known(3.0f32), Awaited::coming(|| Ok(3.0))] {
                let then = awaited.map(|value| value + 1.0).with(number.clone(), |a, b| a * b);
                assert_eq!(then.wait().unwrap(), 2.0);
            }
        }
        let mut coming = Awaited::coming(|| Ok(1));
        assert_eq!(coming.known(), None);
        *coming.get().unwrap() += 1;
        assert_eq!(coming.known(), Some(&2));
    }

    #[test]
    fn a_device_that_fails_is_an_error_each_time() {
        let failed = || Err::<i32, _>(Error::Device("gone".into()));
        assert!(Awaited::coming(failed).map(|value| value + 1).wait().is_err());
        let mut awaited = Awaited::coming(failed);
        assert!(awaited.get().is_err() && awaited.get().is_err() && awaited.known().is_none());
    }
}
