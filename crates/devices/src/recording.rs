//! Launches that a device records once and replays.
//!
//! A pass through a network is a few hundred kernels, each of which costs the host more time to
//! launch than a fast card needs to compute it. A recorded pass is launched as one.

use std::{cell::RefCell, fmt, marker::PhantomData, rc::Rc};

use burn::tensor::{Device, Graph, Tensor, capture};

use crate::copy::{overwrite, snapshot};

/// An input of recordings: memory that keeps its place, `[len]` in f32.
///
/// It belongs to one thread, because a device orders the work of each thread by itself.
#[derive(Clone)]
pub struct Slot {
    memory: Tensor<1>,
    /// The result of the last write, which is waiting to be launched.
    written: Rc<RefCell<Option<Tensor<1>>>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.memory.dims()[0])
    }
}

impl Slot {
    /// A slot that holds a copy of `value`, without autodiff.
    pub fn new(value: Tensor<1>) -> Self {
        Self { memory: snapshot(value), written: Rc::default() }
    }

    /// Replaces the content by `value`, of the same length and without autodiff.
    pub fn write(&self, value: Tensor<1>) {
        let written = overwrite(self.memory.clone(), value);
        *self.written.borrow_mut() = Some(written);
    }

    /// The memory, as an operand of what is recorded.
    pub fn tensor(&self) -> Tensor<1> {
        self.memory.clone()
    }
}

type Pass<T> = Box<dyn FnMut() -> T>;

/// Recorded launches, with the slots that they read and the tensors that they write.
pub struct Recording<T> {
    graph: Graph<T, Pass<T>>,
    /// What is recorded reads them at each replay.
    _slots: Vec<Slot>,
    /// Work of other threads would not be in order with a replay.
    _thread: PhantomData<*const ()>,
}

impl<T> fmt::Debug for Recording<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}

impl<T> Recording<T> {
    /// Records what `pass` launches on `device` (without autodiff), which reads `slots` and constants
    /// that `pass` owns. It runs four times. `None` if the device records nothing.
    ///
    /// `pass` must not send values from the host, read any back, or wait for the device.
    pub fn new(
        device: &Device,
        slots: Vec<Slot>,
        pass: impl FnMut() -> T + 'static,
    ) -> Option<Self> {
        let graph = capture(device, Box::new(pass) as Pass<T>);
        graph.is_hardware().then_some(Self { graph, _slots: slots, _thread: PhantomData })
    }

    /// Launches what was recorded, on what the slots hold now. The results stand in the same tensors
    /// as those of each earlier replay: copy what must outlive the next.
    #[allow(unsafe_code, reason = "the safe form of Burn's unsafe replay")]
    pub fn replay(&mut self) -> &T {
        // SAFETY: the memory that the recording reads and writes is alive: the slots are held by
        // `self`, what else the pass reads belongs to its closure, and its results to the graph,
        // which hands out clones only. A recording and its slots stay on one thread (neither is
        // `Send`), whose work the device runs in order; what was queued before is launched first. A
        // clone of a result that goes to another thread may be read there in the middle of a
        // replay: its values are then of neither, but they are values of the device's memory.
        unsafe { self.graph.replay() }
    }
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use super::*;

    fn on(device: &Device, values: &[f32]) -> Tensor<1> {
        Tensor::from_data(values, device)
    }

    fn host(t: &Tensor<1>) -> Vec<f32> {
        t.clone().into_data().try_to_vec_as::<f32>().expect("values in f32")
    }

    #[test]
    fn a_replay_computes_on_what_the_slots_hold() {
        let device = Device::vulkan(burn::tensor::DeviceKind::DefaultDevice);
        let slot = Slot::new(on(&device, &[1.0, 2.0, 3.0]));
        let read = slot.clone();
        let pass = move || (read.tensor() * 2.0 + 1.0, read.tensor().sum());
        let mut recording =
            Recording::new(&device, vec![slot.clone()], pass).expect("wgpu records");
        slot.write(on(&device, &[4.0, 5.0, 6.0]));
        let (first, sum) = recording.replay();
        assert_eq!((host(first), host(sum)), (vec![9.0, 11.0, 13.0], vec![15.0]));
        let kept = snapshot(first.clone());
        slot.write(on(&device, &[0.0, 0.0, 1.0]));
        let (second, _) = recording.replay();
        // The results stand in the same memory; a snapshot does not.
        assert_eq!(host(second), [1.0, 1.0, 3.0]);
        assert_eq!(host(&kept), [9.0, 11.0, 13.0]);
        let (again, _) = recording.replay();
        assert_eq!(host(again), [1.0, 1.0, 3.0], "the slots keep what they hold");
    }
}
