//! Vulkan: finding the device that goes with a DRM node, or taking part in the host program's, and
//! sharing memory with it through `VK_EXT_external_memory_dma_buf` and
//! `VK_EXT_image_drm_format_modifier`.
//!
//! [`Device::image`] gives a buffer's image, [`acquire`] and [`release`] hand it over, and
//! [`Commands`] runs what is recorded, after sync files and with one where that is wanted.
//! [`Device::create_image`] goes the other way. [`Capabilities`] says what a device lacks for what.
//!
//! ```no_run
//! use primeshare::vk::{self, ImageUsage, Instance, Select, Use, Validation};
//! use primeshare::{DmaBuf, Fourcc, Modifier};
//!
//! /// The Vulkan device that drives a DRM device; one in software, if there is none.
//! fn open(drm: &primeshare::Device) -> Result<vk::Device, vk::Error> {
//!     let instance = Instance::new(Validation::Off)?;
//!     let drives = instance.select(&Select::Drm(drm));
//!     vk::Device::new(&drives.or_else(|_| instance.select(&Select::Software))?)
//! }
//!
//! /// A picture that the device draws, and its dma-buf.
//! fn picture(device: &vk::Device) -> Result<(vk::Image, DmaBuf), vk::Error> {
//!     let usage = ImageUsage::from(Use::Attachment).with_srgb();
//!     device.create_image(640, 480, Fourcc::ARGB8888, &[Modifier::LINEAR], usage)
//! }
//! ```

mod buffer;
mod cache;
mod capabilities;
mod commands;
mod compute;
mod device;
mod endpoint;
mod error;
mod export;
mod external;
mod fds;
mod format;
mod image;
mod instance;
mod local;
mod memory;
mod ownership;
mod physical;
mod query;
mod quirks;
mod refusals;
mod semaphore;
mod staging;
mod unfinished;
mod usage;
mod validation;
mod view;

pub use ash;
pub(crate) use buffer::region;
pub use buffer::{Buffer, ImageOrBuffer, copy_region};
pub use capabilities::{Capabilities, Feature};
pub use commands::Commands;
pub(crate) use compute::{Bindings, Bound, Compute};
#[cfg(feature = "wgpu")]
pub(crate) use device::require;
pub use device::{Device, Host, HostQueue, QueueAccess, QueueWish};
pub use error::{Call, Error};
pub use export::{ImageAllocator, initialize};
pub use format::{ImageFormat, format_of, fourccs_of};
pub use image::Image;
pub use instance::{Instance, Validation};
pub(crate) use local::LocalBuffer;
pub use ownership::{Transfer, acquire, release};
pub use physical::{DrmNodes, PhysicalDevice, Select};
pub use semaphore::{Point, Semaphore, Timeline};
pub use staging::Staging;
pub(crate) use unfinished::DEADLINE;
pub use usage::{ImageUsage, Use};
pub use view::{ImageView, YcbcrColors, YcbcrSampler};
