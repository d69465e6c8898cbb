//! Vulkan: finding the device that goes with a DRM node, and sharing memory with it through
//! `VK_EXT_external_memory_dma_buf` and `VK_EXT_image_drm_format_modifier`.

mod commands;
mod copy;
mod device;
mod error;
mod format;
mod image;
mod instance;
mod ownership;
mod physical;
mod staging;
mod validation;

pub use ash;
pub use commands::Commands;
pub(crate) use copy::ImageCopy;
pub use device::Device;
pub use error::{Call, Error};
pub use format::{ImageFormat, format_of, fourccs_of};
pub use image::{Image, Use};
pub use instance::{Instance, Validation};
pub use ownership::{acquire, release};
pub use physical::{DrmNodes, PhysicalDevice, Select};
pub use staging::Staging;
