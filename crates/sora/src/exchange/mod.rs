//! Networks to and from PyTorch: weights with PyTorch's names in safetensors, ONNX graphs, and
//! checkpoints that PyTorch wrote.

mod checkpoint;
mod import;
mod onnx;
mod proto;

pub use checkpoint::{Entry, read};
pub use import::{ImportOptions, Imported, import};
pub use onnx::{OPSET, to_onnx};
