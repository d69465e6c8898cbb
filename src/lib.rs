#![doc = include_str!("../README.md")]

pub mod alloc;
pub mod blit;
pub mod buffer;
pub mod device;
mod errno;
pub mod export;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gbm;
pub mod gem;
pub mod import;
pub mod negotiate;
pub mod sync;
mod sys;
pub mod vk;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use alloc::{Allocator, Request};
pub use buffer::{DmaBuf, Fourcc, Layout, Modifier};
pub use device::Device;
pub use errno::Errno;
