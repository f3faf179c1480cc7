//! Imports networks from PyTorch and exports them: weights with PyTorch's names in safetensors,
//! ONNX graphs, and checkpoints that PyTorch wrote.

mod candidates;
mod checkpoint;
mod import;
mod normalisation;
mod onnx;
mod pickle;
mod pytorch;

pub use checkpoint::{StoredTensor, read};
pub use import::{ImportOptions, Imported, import};
pub use onnx::{OPSET, to_onnx};
