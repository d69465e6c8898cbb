#![doc = include_str!("../README.md")]
//!
//! `integrations/rust` of the repository tests all of it on vgem and vkms.

mod allocator;
mod dmabuf;
#[cfg(feature = "kms")]
mod framebuffers;
#[cfg(feature = "kms")]
mod nodes;

pub use allocator::SmithayAllocator;
pub use dmabuf::{from_smithay, to_smithay};
#[cfg(feature = "kms")]
pub use framebuffers::{SmithayFramebuffer, SmithayFramebuffers};
#[cfg(feature = "kms")]
pub use nodes::{Devices, to_smithay_of};
pub use primeshare;
pub use smithay;
