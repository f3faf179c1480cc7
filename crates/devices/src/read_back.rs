//! Values that the host asks for before it needs them.

use std::{
    fmt,
    future::poll_fn,
    sync::mpsc,
    task::{Context, Poll, Waker},
};

use burn::{
    backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor},
    tensor::Tensor,
};
use burn_cubecl::{CubeBackend, kernel::into_contiguous_aligned};
use cubecl::{bytes::Bytes, future::DynFut, server::CopyDescriptor};

/// The copy to the host: who polls it waits for it.
type Copy = DynFut<Result<Bytes, String>>;

/// Asking as an operation of a backend.
#[backend_extension(Cube, Fusion)]
trait AskOp: Backend {
    /// Starts the copy of `source` (f32) to the host and sends it to `to`; returns `source`.
    #[fusion(dtype = source, shape = source)]
    fn ask(source: FloatTensor<Self>, to: mpsc::Sender<Copy>) -> FloatTensor<Self>;
}

impl AskOp for CubeBackend {
    fn ask(source: FloatTensor<Self>, to: mpsc::Sender<Copy>) -> FloatTensor<Self> {
        let source = into_contiguous_aligned(source);
        let (shape, strides) = (source.meta.shape().clone(), source.meta.strides().clone());
        let from =
            CopyDescriptor::new(source.handle.clone().binding(), shape, strides, size_of::<f32>());
        let client = source.client.clone();
        let mut copy: Copy = Box::pin(async move {
            let copy = client.read_one_tensor_async(from);
            begun().await;
            copy.await.map_err(|e| e.to_string())
        });
        // The device is given the copy here. Burn's own reading gives it the copy only where the values
        // are looked at, behind everything that it was given meanwhile.
        let _ = copy.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // `Asked` stays until it has the copy, so the copy is never dropped here.
        let _ = to.send(copy);
        source
    }
}

/// Stops the first who polls, and nobody afterwards.
async fn begun() {
    let mut first = true;
    poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// Values on their way to the host. Who drops it waits, too: a device must not be left with a copy into
/// memory that is used again.
pub struct Asked {
    copy: Option<mpsc::Receiver<Copy>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.arrived();
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

/// Asks a device for `values` (f32, without autodiff), behind the work that it has been given so far,
/// and does not wait.
pub fn ask(values: Tensor<1>) -> Asked {
    let (to, copy) = mpsc::channel();
    let device = values.device();
    drop(Tensor::<1>::from_dispatch(Dispatch::ask(values.into_dispatch(), to)));
    // What is not handed on stays in a queue of the host. A device that fails says so to who waits.
    let _ = device.flush();
    Asked { copy: Some(copy) }
}

impl Asked {
    /// Waits for the values.
    ///
    /// # Errors
    /// What a device that fails says.
    pub fn wait(mut self) -> Result<Vec<f32>, String> {
        let bytes = self.arrived()?;
        let (values, _) = bytes.as_chunks::<4>();
        Ok(values.iter().map(|value| f32::from_ne_bytes(*value)).collect())
    }

    fn arrived(&mut self) -> Result<Bytes, String> {
        let copy = self.copy.take().ok_or("the values were taken already")?;
        let copy = copy.recv().map_err(|_| "the device did not start a copy")?;
        cubecl::future::block_on(copy)
    }
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use burn::tensor::{Device, DeviceKind};

    use super::*;

    #[test]
    fn values_are_those_at_the_time_of_asking() {
        let device = Device::vulkan(DeviceKind::DefaultDevice);
        for len in [1usize, 7, 5000] {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let mut tensor = Tensor::<1>::from_data(values.as_slice(), &device);
            let asked: Vec<Asked> = (0..3)
                .map(|_| {
                    tensor = tensor.clone() * 2.0;
                    ask(tensor.clone())
                })
                .collect();
            for (doubled, asked) in asked.into_iter().enumerate() {
                let factor = (2 << doubled) as f32;
                let expected: Vec<f32> = values.iter().map(|v| v * factor).collect();
                assert_eq!(asked.wait().expect("a working device"), expected);
            }
        }
    }

    #[test]
    fn values_that_nobody_takes_do_no_harm() {
        let device = Device::vulkan(DeviceKind::DefaultDevice);
        let tensor = Tensor::<1>::from_data([1.0f32, 2.0], &device);
        drop(ask(tensor.clone()));
        assert_eq!(ask(tensor + 1.0).wait().expect("a working device"), [2.0, 3.0]);
    }
}
