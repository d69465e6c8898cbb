//! What a Wayland compositor needs between its protocol library and shared buffers. Cargo feature `wayland`.
//!
//! Nothing here depends on a Wayland library. A compositor on wayland-server, on libwayland or on bytes of its own gives
//! these types what its clients' requests say, and sends what they answer.
//!
//! | protocol | what is here |
//! | --- | --- |
//! | linux-dmabuf, feedback | [`FeedbackEvents`]: the events and the sealed format table. [`SurfaceFeedback`]: which feedback a surface is to have, by what shows it |
//! | linux-dmabuf, params | [`Params`]: collects planes, and makes a [`DmaBuf`](crate::DmaBuf) or the protocol's error of them |
//! | linux-drm-syncobj | [`SurfacePoints`]: acquire and release points of a surface's commits |
//! | wl_shm | [`ShmPool`]: a client's memory, as a dma-buf or by reading |
//! | ext-image-copy-capture | [`CaptureConstraints`]: what frames may be written into, and the check of a client's buffer |
//!
//! Errors carry the numbers of the protocols' own `error` enums (wayland-protocols 1.45).
//! `examples/compositor` uses all of it.

mod capture;
mod feedback;
mod params;
mod shm;
mod syncobj;

pub use capture::{CaptureConstraints, CaptureRefusal};
pub use feedback::{FeedbackEvent, FeedbackEvents, SurfaceFeedback, sealed_table};
pub use params::{Params, ParamsError};
pub use shm::{ShmBuffer, ShmError, ShmFormat, ShmPool};
pub use syncobj::{Points, PointsError, SurfacePoints};
