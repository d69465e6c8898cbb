//! Why something could not be shown.

use crate::buffer::{self, BufferFlags, Fourcc, Modifier};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind, alloc, device, gem, import};

/// Why something could not be shown, or a device's screens not be asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device was unplugged.
    #[error("{device} is gone")]
    Lost {
        /// The device.
        device: String,
    },
    /// The program is not the device's DRM master, or no longer: another one has its screens now.
    #[error("{device}: {operation}: not the DRM master")]
    NotMaster {
        /// The device.
        device: String,
        /// What was tried.
        operation: Operation,
    },
    /// The device has no display controller, or the file is a render node, which cannot be used for screens.
    #[error("{device} has no screens{}", hint(*errno))]
    NoScreens {
        /// The device.
        device: String,
        /// EOPNOTSUPP: the driver has none. EACCES: a render node.
        errno: Errno,
    },
    /// The driver does not show a buffer like this in this place: it may not scale, or not this far.
    #[error(
        "{device} does not show {} of {}x{} ({}) at {}x{}: {errno}",
        fourcc, size.0, size.1, modifier, shown.0, shown.1
    )]
    NotShown {
        /// The device.
        device: String,
        /// The format that the plane was to read.
        fourcc: Fourcc,
        /// The buffer's.
        modifier: Modifier,
        /// Width and height of the buffer in pixels.
        size: (u32, u32),
        /// Width and height on the screen in pixels.
        shown: (u32, u32),
        /// What the atomic test said: EINVAL, ERANGE or ENOSPC.
        errno: Errno,
    },
    /// A framebuffer could not be made of a buffer.
    #[error(
        "{device}: MODE_ADDFB2 of {fourcc} with {modifier}, {}x{}: {errno}",
        size.0, size.1
    )]
    AddFramebuffer {
        /// The device.
        device: String,
        /// The format asked for.
        fourcc: Fourcc,
        /// The buffer's.
        modifier: Modifier,
        /// Width and height in pixels.
        size: (u32, u32),
        /// The kernel's reason.
        errno: Errno,
    },
    /// Two layers are for one plane.
    #[error("two layers are on plane {plane} of {device}: give each a plane of its own")]
    PlaneTwice {
        /// The device.
        device: String,
        /// The plane's number.
        plane: u32,
    },
    /// The buffers for copies are not of the screen's size.
    #[error("the swapchain makes {}x{}, and the screen is {}x{}", made.0, made.1, screen.0, screen.1)]
    SwapchainSize {
        /// Width and height of what the swapchain makes, in pixels.
        made: (u32, u32),
        /// Width and height of the screen in pixels.
        screen: (u32, u32),
    },
    /// The blitter copies to another device than the screen's.
    #[error("the blitter copies to {blitter}, and the screen is one of {device}")]
    OtherDevice {
        /// Where the blitter copies to.
        blitter: String,
        /// The screen's device.
        device: String,
    },
    /// The kernel or the driver refused.
    #[error("{device}: {operation}: {errno}")]
    Kernel {
        /// The device.
        device: String,
        /// What was tried.
        operation: Operation,
        /// The reason. An atomic commit that the driver cannot do is EINVAL, ERANGE or ENOSPC.
        errno: Errno,
    },
    /// The device fd could not be duplicated, or no file description of the library's own be had.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The buffer cannot be imported.
    #[error(transparent)]
    Import(#[from] import::Error),
    /// A handle could not be exported or taken over.
    #[error(transparent)]
    Gem(#[from] gem::Error),
    /// Offsets or strides are no whole pixels.
    #[error(transparent)]
    Buffer(#[from] buffer::Error),
    /// The picture is larger or smaller than the device has framebuffers.
    #[error("{width}x{height} is no size of a framebuffer: {device} has {}x{} to {}x{}", min.0, min.1, max.0, max.1)]
    FramebufferSize {
        /// The device.
        device: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The smallest width and height in pixels.
        min: (u32, u32),
        /// The largest width and height in pixels.
        max: (u32, u32),
    },
    /// Nobody knows of an implicit layout whether the display controller understands it.
    #[error("the buffer's layout is implicit")]
    ImplicitLayout,
    /// The device takes no modifiers, and the buffer has one.
    #[error("{device} has no framebuffers with modifiers, the buffer is {modifier}")]
    NoModifiers {
        /// The device.
        device: String,
        /// The buffer's.
        modifier: Modifier,
    },
    /// A framebuffer has no such flags.
    #[error("framebuffers cannot be {0}")]
    Flags(BufferFlags),
    /// The format that was asked for has not the same bytes as the buffer's.
    #[error("a buffer of {from} cannot be shown as {to}")]
    Format {
        /// The buffer's.
        from: Fourcc,
        /// What was asked for.
        to: Fourcc,
    },
    /// There is no such object on the device, or no longer; or it is a plane that is none of the CRTC's.
    #[error("{device} has no {kind} {id}")]
    NoObject {
        /// The device.
        device: String,
        /// `connector`, `CRTC`, `plane`, `property` or `framebuffer`.
        kind: &'static str,
        /// Its number.
        id: u32,
    },
    /// An object lacks a property without which it cannot be used.
    #[error("{device}: {object} has no property {name}")]
    NoProperty {
        /// The device.
        device: String,
        /// The object.
        object: u32,
        /// The property.
        name: &'static str,
    },
    /// Nothing is plugged in, or it has no mode.
    #[error("{connector} shows nothing: {reason}")]
    NotConnected {
        /// The connector.
        connector: String,
        /// What is missing.
        reason: &'static str,
    },
    /// All CRTCs that the connector can be fed by, or all planes of them, are in use.
    #[error("{connector}: no {what} is free")]
    NoneFree {
        /// The connector.
        connector: String,
        /// `CRTC` or `primary plane`.
        what: &'static str,
    },
    /// The frame before has not been shown yet.
    #[error("the frame before is still pending")]
    Pending,
    /// A buffer for the screen could not be allocated.
    #[error(transparent)]
    Allocate(alloc::Error),
    /// A frame cannot be copied for the screen.
    #[cfg(feature = "blit")]
    #[error("the frame cannot be copied for the screen: {0}")]
    Blit(crate::blit::Error),
    /// The plane takes nothing that the allocator makes in one of the formats that would do.
    #[error(transparent)]
    NothingInCommon(crate::negotiate::Nothing),
    /// All buffers of the swapchain are in use.
    #[error("all {0} buffers are in use")]
    NoBuffer(usize),
    /// A device without atomic commits shows one whole picture per screen and no more.
    #[error("{device} has no atomic commits, which {what} needs")]
    NotAtomic {
        /// The device.
        device: String,
        /// What was asked for.
        what: &'static str,
    },
    /// Events or a fence could not be read.
    #[error("cannot read events of {device}: {errno}")]
    Events {
        /// The device.
        device: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The kernel's messages about devices cannot be had: [`Hotplug::by_polling`](super::Hotplug::by_polling) does
    /// without.
    #[error("no uevents of the kernel: {errno}")]
    Uevents {
        /// The kernel's reason.
        errno: Errno,
    },
}

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// DRM_IOCTL_MODE_GETRESOURCES
    GetResources,
    /// DRM_IOCTL_MODE_GETCONNECTOR
    GetConnector,
    /// DRM_IOCTL_MODE_GETENCODER
    GetEncoder,
    /// DRM_IOCTL_MODE_GETPLANE
    GetPlane,
    /// DRM_IOCTL_MODE_GETCRTC
    GetCrtc,
    /// DRM_IOCTL_MODE_OBJ_GETPROPERTIES, GETPROPERTY and GETPROPBLOB
    GetProperties,
    /// DRM_IOCTL_SET_CLIENT_CAP
    SetClientCap,
    /// DRM_IOCTL_GET_CAP
    GetCap,
    /// DRM_IOCTL_MODE_ADDFB2
    AddFramebuffer,
    /// DRM_IOCTL_MODE_GETFB2
    GetFramebuffer,
    /// DRM_IOCTL_MODE_CREATEPROPBLOB
    CreateBlob,
    /// DRM_IOCTL_MODE_ATOMIC
    Commit,
    /// DRM_IOCTL_MODE_ATOMIC with DRM_MODE_ATOMIC_TEST_ONLY
    Test,
    /// DRM_IOCTL_MODE_SETCRTC
    SetCrtc,
    /// DRM_IOCTL_MODE_PAGE_FLIP
    PageFlip,
}

impl Operation {
    /// Whether only the device's master may do it.
    pub(super) fn needs_master(self) -> bool {
        matches!(
            self,
            Self::Commit | Self::Test | Self::SetCrtc | Self::PageFlip
        )
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GetResources => "MODE_GETRESOURCES",
            Self::GetConnector => "MODE_GETCONNECTOR",
            Self::GetEncoder => "MODE_GETENCODER",
            Self::GetPlane => "MODE_GETPLANE",
            Self::GetCrtc => "MODE_GETCRTC",
            Self::GetProperties => "MODE_OBJ_GETPROPERTIES",
            Self::SetClientCap => "SET_CLIENT_CAP",
            Self::GetCap => "GET_CAP",
            Self::AddFramebuffer => "MODE_ADDFB2",
            Self::GetFramebuffer => "MODE_GETFB2",
            Self::CreateBlob => "MODE_CREATEPROPBLOB",
            Self::Commit => "MODE_ATOMIC",
            Self::Test => "MODE_ATOMIC (test only)",
            Self::SetCrtc => "MODE_SETCRTC",
            Self::PageFlip => "MODE_PAGE_FLIP",
        })
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => ": it is a render node, open the card* node of the device",
        _ => "",
    }
}

impl Error {
    /// What can be done about it. [`ErrorKind::Busy`]: the screen belongs to somebody else, or a frame is
    /// pending: try again when that has changed.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost { .. } => ErrorKind::Lost,
            Self::NotMaster { .. } | Self::Pending | Self::NoBuffer(_) => ErrorKind::Busy,
            Self::Kernel { errno, .. }
            | Self::NotShown { errno, .. }
            | Self::AddFramebuffer { errno, .. } => match *errno {
                // What the hardware cannot do, at least not beside what it does already.
                Errno::ERANGE | Errno::ENOSPC => ErrorKind::Refused,
                errno => ErrorKind::of(errno),
            },
            Self::Uevents { errno } => match *errno {
                // No such sockets in the kernel, or a sandbox that allows none.
                Errno::EPERM
                | Errno::EACCES
                | Errno::EINVAL
                | Errno::EAFNOSUPPORT
                | Errno::EPROTONOSUPPORT => ErrorKind::Unsupported,
                errno => ErrorKind::of(errno),
            },
            Self::Events { errno, .. } => ErrorKind::of(*errno),
            Self::Device(error) => error.kind(),
            Self::Import(error) => error.kind(),
            Self::Buffer(error) => error.kind(),
            Self::Gem(error) => error.kind(),
            Self::Allocate(error) => error.kind(),
            #[cfg(feature = "blit")]
            Self::Blit(error) => error.kind(),
            Self::FramebufferSize { .. } | Self::ImplicitLayout | Self::Flags(_) => {
                ErrorKind::Refused
            }
            Self::Format { .. } => ErrorKind::Invalid,
            Self::NoModifiers { .. } | Self::NothingInCommon(_) => ErrorKind::Refused,
            Self::NoObject { .. }
            | Self::PlaneTwice { .. }
            | Self::SwapchainSize { .. }
            | Self::OtherDevice { .. } => ErrorKind::Invalid,
            Self::NoScreens { .. } => ErrorKind::Unsupported,
            Self::NoProperty { .. } | Self::NotAtomic { .. } => ErrorKind::Unsupported,
            Self::NotConnected { .. } | Self::NoneFree { .. } => ErrorKind::Busy,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. }
            | Self::NotShown { errno, .. }
            | Self::AddFramebuffer { errno, .. }
            | Self::NoScreens { errno, .. }
            | Self::Events { errno, .. }
            | Self::Uevents { errno } => Some(*errno),
            Self::Device(error) => error.errno(),
            Self::Import(error) => error.errno(),
            Self::Buffer(error) => error.errno(),
            Self::Gem(error) => error.errno(),
            Self::Allocate(error) => error.errno(),
            #[cfg(feature = "blit")]
            Self::Blit(error) => error.errno(),
            _ => None,
        }
    }
}

into_io_error!(Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_of_framebuffers_are_printed_as_sizes() {
        let error = Error::FramebufferSize {
            device: "vkms".to_owned(),
            width: 9000,
            height: 1,
            min: (10, 10),
            max: (8192, 4096),
        };
        let text = error.to_string();
        assert!(text.ends_with("vkms has 10x10 to 8192x4096"), "{text}");
    }
}
