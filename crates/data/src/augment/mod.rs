//! Augmentation of training images: which transformations ([`Augment`]), what was drawn for a
//! sample ([`AugmentDraw`]), and applying it.
//!
//! A sample's draws come from that sample's own stream, so they depend neither on the batch it is
//! in nor on threads. They are handed out with the batch because some methods (ATAS) keep a
//! perturbation per sample in un-augmented coordinates and must map it to and fro.

mod bilinear;
mod draw;
mod map;
mod spec;

pub use draw::AugmentDraw;
pub use spec::{Augment, Crop};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torchvision_tests;
