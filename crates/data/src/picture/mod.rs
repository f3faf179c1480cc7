//! Pictures of any size from files, and their conversion to the shape of a split.

mod decode;
mod fit;
mod jpeg;
mod pixels;
mod resample;

pub(crate) use decode::decode;
pub use fit::Fit;
pub(crate) use pixels::planes;
pub use pixels::{Picture, Pictures};
pub(crate) use resample::{Placement, resize};
