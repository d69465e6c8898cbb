//! The device-independent description of a shared buffer: [`DmaBuf`] and its parts.

mod damage;
mod dmabuf;
mod error;
mod exporter;
mod flags;
mod format;
mod fourcc;
mod id;
pub(crate) mod layout;
pub(crate) mod message;
mod modifier;
mod overlap;
mod per_buffer;
mod usage;

pub use damage::{Damage, DamageBox, Rect};
pub use dmabuf::{DmaBuf, Plane, PlaneFd, PlaneObject, PlaneRef, WeakDmaBuf};
pub use error::{Error, LinuxDmabufAnswer};
pub use flags::BufferFlags;
pub use format::{Colour, FormatInfo, PlaneInfo};
pub use fourcc::{Fourcc, UnknownFourcc};
pub use id::BufferId;
pub use layout::BufferDesc;
pub(crate) use modifier::modifier_names;
pub use modifier::{Modifier, UnknownModifier};
pub use per_buffer::{PerBuffer, Refusal, WeakPerBuffer};
pub use usage::Usage;

/// The most memory planes a buffer can have (`DRM_FORMAT_MAX_PLANES`; the same in Wayland's
/// linux-dmabuf and in EGL).
pub const MAX_PLANES: usize = 4;
