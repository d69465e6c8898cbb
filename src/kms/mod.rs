//! From a shared buffer to a screen.
//!
//! The program owns the DRM master fd, the mode and the policy. The library owns framebuffers, checks, buffers and
//! fences. Each part can be taken alone:
//!
//! - [`Framebuffers`]: a framebuffer for each buffer, kept with the buffer.
//! - [`Card`]: the program's fd, and what the device has: connectors, CRTCs, planes with their formats.
//! - [`Output`]: a connector that is fed by a CRTC: test, commit, page flips. What is shown is kept alive.
//! - [`assign`](fn@assign): which layers go on planes of their own.
//! - [`Swapchain`]: buffers that take turns, with their age and damage.
//! - `Presenter` (with the feature `blit`): shows a frame of any device, as it is if the screen takes it, else copied.
//! - [`capture`]: what a screen shows, as a [`DmaBuf`](crate::DmaBuf) or written into one.
//! - [`Hotplug`]: tells that screens and devices were plugged in or out.
//!
//! The chapter [`screens`](crate::guide::screens) of the guide shows how they work together.

mod assign;
pub mod capture;
mod card;
mod error;
mod framebuffer;
mod hotplug;
mod layer;
mod limits;
mod output;
#[cfg(feature = "blit")]
mod presenter;
mod property;
mod saved;
mod screen;
mod swapchain;

pub use assign::{Assignment, Candidate, assign};
pub use card::{Card, PageFlip, PageFlips};
pub use error::{Error, Operation};
pub use framebuffer::{Framebuffer, FramebufferOptions, Framebuffers};
pub use hotplug::{Change, Hotplug};
pub use layer::{Layer, Position};
pub use limits::ScalingLimits;
pub use output::{CommitOptions, Output, OutputConfig};
#[cfg(feature = "blit")]
pub use presenter::{Dropped, Event, PresentInfo, Presenter, Way};
pub use property::{Properties, Property};
pub use screen::{
    Connector, ConnectorId, Crtc, CrtcId, Mode, Plane, PlaneId, PlaneKind, Screens, Status,
};
pub use swapchain::{Swapchain, SwapchainBuffer};

use crate::Errno;
use crate::device::Device;
use crate::gem;
use std::os::fd::AsFd;

/// Says of a failed ioctl what it was, on which device, and whether the device or the master's place is gone.
fn failed(device: &Device, operation: Operation) -> impl Fn(Errno) -> Error + '_ {
    move |errno| match errno {
        Errno::ENODEV if gem::is_lost(device.as_fd()) => Error::Lost {
            device: device.to_string(),
        },
        Errno::EACCES | Errno::EPERM if operation.needs_master() => Error::NotMaster {
            device: device.to_string(),
            operation,
        },
        errno => Error::Kernel {
            device: device.to_string(),
            operation,
            errno,
        },
    }
}
