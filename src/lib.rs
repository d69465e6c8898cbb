#![doc = include_str!("../README.md")]
// What only some of the features use is there without them, too.
#![cfg_attr(
    not(all(feature = "gbm", feature = "blit")),
    allow(dead_code, unused_imports)
)]

pub mod alloc;
#[cfg(feature = "blit")]
pub mod blit;
pub mod buffer;
pub mod device;
mod errno;
pub mod export;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(feature = "gbm")]
pub mod gbm;
pub mod gem;
pub mod import;
mod kind;
pub mod negotiate;
pub mod sync;
mod sys;
#[cfg(feature = "vulkan")]
pub mod vk;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use alloc::{Allocator, Request};
pub use buffer::{DmaBuf, Fourcc, Layout, Modifier};
pub use device::Device;
pub use errno::Errno;
pub use kind::ErrorKind;
