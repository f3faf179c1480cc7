//! Augmentation of training images: the transformations ([`Augment`]), the draws for a sample
//! ([`AugmentDraw`]), and their application.
//!
//! A sample's draws come from that sample's own stream, so they depend neither on its batch nor on
//! threads. The batch carries the draws, because some methods (ATAS) keep a perturbation per sample
//! in un-augmented coordinates and must map it to augmented coordinates and back.

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
