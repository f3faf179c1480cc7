//! Pictures of any size as they come from files, and how they are brought to the shape of a split.

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
