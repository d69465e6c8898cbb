//! The device-independent description of a shared buffer: [`DmaBuf`] and its parts.

mod attached;
mod cache;
mod dmabuf;
mod error;
mod format;
mod fourcc;
mod id;
pub(crate) mod layout;
pub(crate) mod message;
mod modifier;
mod overlap;

pub(crate) use attached::Attached;
pub use cache::{Cache, Refusal};
pub use dmabuf::{DmaBuf, Object, Plane, PlaneFd};
pub use error::Error;
pub use format::{Colour, FormatInfo, PlaneInfo};
pub use fourcc::Fourcc;
pub use id::BufferId;
pub use layout::Layout;
pub use modifier::Modifier;

/// The most memory planes a buffer can have (`DRM_FORMAT_MAX_PLANES`; the same in Wayland's
/// linux-dmabuf and in EGL).
pub const MAX_PLANES: usize = 4;
