//! Parameters and buffers of a network, apart from its structure.
//!
//! A network is a pure function of (parameters, buffers, input). The attack pass runs it with
//! untracked parameters, the training pass with tracked ones, and weight averaging or a weight
//! perturbation with another set. The optimizer, the checkpoints and the export all see the same
//! flat, ordered list of named tensors.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use sora_rng::{self as rng, Key, Purpose};

use crate::error::{Error, Result};

/// The initial values of a parameter. PyTorch's defaults for convolutions and linear layers are
/// `Uniform` with bound 1/sqrt(fan_in).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in (-bound, bound).
    Uniform(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// The same value everywhere.
    Constant(f32),
}

/// Name, shape and initial values of one parameter or buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// PyTorch's name, for example `layer1.0.bn1.weight`.
    pub name: String,
    /// PyTorch's shape, for example `[out, in, kh, kw]`.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
}

impl Spec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Index of a parameter (trained by gradient) in its network's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(pub(crate) usize);

/// Index of a buffer (running statistics) in its network's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(pub(crate) usize);

/// Collects the specs while a network's structure is built.
#[derive(Debug, Default)]
pub struct SpecBuilder {
    /// Parameters in PyTorch's order of registration.
    pub params: Vec<Spec>,
    /// Buffers in PyTorch's order of registration.
    pub buffers: Vec<Spec>,
}

impl SpecBuilder {
    /// Registers a parameter.
    pub fn param(&mut self, name: String, shape: &[usize], init: Init) -> ParamId {
        self.params.push(Spec { name, shape: shape.to_vec(), init });
        ParamId(self.params.len() - 1)
    }

    /// Registers a buffer.
    pub fn buffer(&mut self, name: String, shape: &[usize], value: f32) -> BufferId {
        self.buffers.push(Spec { name, shape: shape.to_vec(), init: Init::Constant(value) });
        BufferId(self.buffers.len() - 1)
    }
}

/// Returns a number that identifies a content of a value; no two contents share a number.
fn fresh_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Values of a list of specs, each kept as a flat tensor `[len]` without autodiff.
#[derive(Debug)]
pub struct TensorSet {
    specs: Arc<[Spec]>,
    values: Vec<Tensor<1>>,
    versions: Vec<u64>,
}

impl Clone for TensorSet {
    fn clone(&self) -> Self {
        Self::new(self.specs.clone(), self.values.clone())
    }
}

impl Drop for TensorSet {
    fn drop(&mut self) {
        self.versions.iter().for_each(|version| super::engine::forget(*version));
    }
}

impl TensorSet {
    fn new(specs: Arc<[Spec]>, values: Vec<Tensor<1>>) -> Self {
        Self { versions: values.iter().map(|_| fresh_version()).collect(), specs, values }
    }

    /// Draws initial values on `device` from `seed`: each tensor has its own stream, so adding a
    /// layer does not change the others' values.
    pub fn init(specs: Vec<Spec>, seed: u64, device: &Device) -> Self {
        let values = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let key = Key::new(seed, Purpose::Init).at_step(index as u64);
                let mut data = vec![0.0; spec.len()];
                match spec.init {
                    Init::Constant(value) => data.fill(value),
                    Init::Uniform(bound) => {
                        rng::fill_uniform(&mut data, key, &[0]);
                        data.iter_mut().for_each(|v| *v = (*v * 2.0 - 1.0) * bound);
                    }
                    Init::Normal(std) => {
                        rng::fill_normal(&mut data, key, &[0]);
                        data.iter_mut().for_each(|v| *v *= std);
                    }
                }
                flat(data, device)
            })
            .collect();
        Self::new(specs.into(), values)
    }

    /// The specs, in order.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// The flat values, in order.
    pub fn values(&self) -> &[Tensor<1>] {
        &self.values
    }

    /// Identifies the content of each value.
    #[cfg(feature = "gpu")]
    pub(crate) fn versions(&self) -> &[u64] {
        &self.versions
    }

    /// A set of the same specs with other values.
    #[cfg(feature = "gpu")]
    pub(crate) fn with_values(&self, values: Vec<Tensor<1>>) -> Self {
        Self::new(self.specs.clone(), values)
    }

    /// Number of scalar values in the set.
    pub fn num_elements(&self) -> usize {
        self.specs.iter().map(Spec::len).sum()
    }

    /// Replaces value `index` by one of the same length.
    pub fn set(&mut self, index: usize, value: Tensor<1>) {
        debug_assert_eq!(value.dims()[0], self.specs[index].len());
        self.values[index] = value;
        super::engine::replaced(std::mem::replace(&mut self.versions[index], fresh_version()));
    }

    /// Takes value `index` out for an in-place update; [`set`](Self::set) must follow.
    pub fn take(&mut self, index: usize) -> Tensor<1> {
        let device = self.values[index].device();
        std::mem::replace(&mut self.values[index], Tensor::zeros([0], &device))
    }

    /// A set of the same specs and device, filled with zeros.
    pub fn zeros_like(&self) -> Self {
        Self::new(self.specs.clone(), self.values.iter().map(Tensor::zeros_like).collect())
    }

    /// The parameters for a pass that needs no parameter gradient.
    pub fn frozen(&self) -> Weights {
        self.view(|value| value.clone())
    }

    /// The parameters for a pass that records their gradients.
    pub fn tracked(&self) -> Weights {
        self.view(|value| value.clone().autodiff().require_grad())
    }

    fn view(&self, value: impl Fn(&Tensor<1>) -> Tensor<1>) -> Weights {
        Weights {
            specs: self.specs.clone(),
            values: self.values.iter().map(value).collect(),
            versions: self.versions.clone(),
        }
    }

    /// Copies all values to the host, with names and shapes.
    pub fn to_host(&self) -> Result<Vec<HostTensor>> {
        self.specs
            .iter()
            .zip(&self.values)
            .map(|(spec, value)| {
                Ok(HostTensor {
                    name: spec.name.clone(),
                    shape: spec.shape.clone(),
                    data: to_vec(value)?,
                })
            })
            .collect()
    }

    /// Copies value `index` to the host.
    ///
    /// # Errors
    /// [`Error`] for a device that fails, or an index beyond the list.
    pub fn host(&self, index: usize) -> Result<HostTensor> {
        let (Some(spec), Some(value)) = (self.specs.get(index), self.values.get(index)) else {
            return Err(Error::defect(format!(
                "value {index} of {}: no such value",
                self.specs.len()
            )));
        };
        Ok(HostTensor { name: spec.name.clone(), shape: spec.shape.clone(), data: to_vec(value)? })
    }

    /// A set of `specs` with the values of `tensors`, by name; no value is drawn. `origin` names
    /// the file in errors.
    ///
    /// # Errors
    /// [`Error`] for a tensor that is missing or has another shape.
    pub fn from_host(
        specs: Vec<Spec>,
        tensors: &BTreeMap<String, HostTensor>,
        origin: &str,
        device: &Device,
    ) -> Result<Self> {
        let found = named(&specs, tensors, origin)?;
        let values = found.into_iter().map(|tensor| flat(tensor.data.clone(), device)).collect();
        Ok(Self::new(specs.into(), values))
    }

    /// Loads values by name. `origin` names the file in errors.
    ///
    /// # Errors
    /// [`Error`] for a tensor that is missing or has another shape.
    pub fn load(&mut self, tensors: &BTreeMap<String, HostTensor>, origin: &str) -> Result<()> {
        let specs = self.specs.clone();
        for (index, tensor) in named(&specs, tensors, origin)?.into_iter().enumerate() {
            let device = self.values[index].device();
            self.set(index, flat(tensor.data.clone(), &device));
        }
        Ok(())
    }
}

/// Finds the tensor of each spec and checks its shape.
fn named<'a>(
    specs: &[Spec],
    tensors: &'a BTreeMap<String, HostTensor>,
    origin: &str,
) -> Result<Vec<&'a HostTensor>> {
    let find = |spec: &Spec| {
        let found = tensors.get(&spec.name).ok_or_else(|| {
            let problem = format!(
                "no tensor named '{}'; expected the weights of this network with PyTorch's names",
                spec.name
            );
            Error::unfit(origin, problem)
        })?;
        if found.shape != spec.shape || found.data.len() != spec.len() {
            let problem = format!(
                "tensor '{}' has shape {:?}, expected {:?}; check `model`, `width`, the image size \
                 and the number of classes",
                spec.name, found.shape, spec.shape
            );
            return Err(Error::unfit(origin, problem));
        }
        Ok(found)
    };
    specs.iter().map(find).collect()
}

/// A tensor on the host, as read from or written to a file.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Name in the file.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// Parameters (or buffers) in the form that a pass uses.
#[derive(Clone, Debug)]
pub struct Weights {
    specs: Arc<[Spec]>,
    values: Vec<Tensor<1>>,
    versions: Vec<u64>,
}

impl Weights {
    /// Parameter `id` in its own shape.
    pub fn get<const D: usize>(&self, id: ParamId) -> Tensor<D> {
        self.shaped(id.0)
    }

    /// Parameter `id` as a matrix of its first dimension by the others.
    pub(super) fn matrix(&self, id: ParamId) -> Tensor<2> {
        let rows = self.specs[id.0].shape[0];
        self.values[id.0].clone().reshape([rows, self.specs[id.0].len() / rows.max(1)])
    }

    /// The [`version`](Self::version) of each parameter.
    pub(crate) fn versions(&self) -> &[u64] {
        &self.versions
    }

    /// Identifies the content of parameter `id`; its packed forms are kept under this number.
    pub(crate) fn version(&self, id: ParamId) -> u64 {
        self.versions[id.0]
    }

    /// The version of the content of value `index`, and the value, flat.
    pub(super) fn at(&self, index: usize) -> (u64, &Tensor<1>) {
        (self.versions[index], &self.values[index])
    }

    /// All values one after the other where their gradients are recorded, else nothing.
    pub(super) fn joined(&self) -> Tensor<1> {
        match self.values.first() {
            Some(value) if value.is_autodiff() => Tensor::cat(self.values.clone(), 0),
            Some(value) => Tensor::zeros([0], &value.device()),
            None => Tensor::zeros([0], &Device::flex()),
        }
    }

    /// Buffer `id` in its own shape.
    pub fn buffer<const D: usize>(&self, id: BufferId) -> Tensor<D> {
        self.shaped(id.0)
    }

    fn shaped<const D: usize>(&self, index: usize) -> Tensor<D> {
        let spec = &self.specs[index];
        let mut shape = [1; D];
        shape.copy_from_slice(&spec.shape);
        self.values[index].clone().reshape(shape)
    }

    /// Gradient of each parameter, flat, in order; zero for a parameter that the loss does not
    /// depend on.
    pub fn gradients(&self, gradients: &mut Gradients) -> Vec<Tensor<1>> {
        self.values
            .iter()
            .map(|value| {
                value.grad_remove(gradients).unwrap_or_else(|| value.clone().inner().zeros_like())
            })
            .collect()
    }
}

/// A flat tensor of host values.
pub(crate) fn flat(data: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = data.len();
    Tensor::from_data(TensorData::new(data, [len]), device)
}

/// Host copy of a tensor of any rank.
pub fn to_vec<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .try_to_vec_as::<f32>()
        .map_err(|e| Error::Device(format!("reading a tensor back from the device failed: {e}")))
}
