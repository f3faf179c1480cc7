//! sora-kernels
pub mod buffer;
pub mod conv;
mod error;
pub mod isa;
mod parallel;
mod simd;
mod tile;
pub use buffer::Buffer;
pub use error::ShapeError;
pub use isa::Isa;
