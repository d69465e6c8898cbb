//! Why allocations fail.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::buffer::{self, Fourcc, Modifier, modifier_names};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind, device, export, gem};

/// Why nothing was allocated. Nothing was leaked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The allocator does not know how to lay the format out.
    #[error("{allocator} cannot allocate {fourcc}")]
    Format {
        /// The allocator.
        allocator: &'static str,
        /// The format.
        fourcc: Fourcc,
    },
    /// None of the layouts asked for can be had.
    #[error(
        "{allocator} has none of the modifiers that were asked for: {}",
        modifier_names(modifiers)
    )]
    Modifiers {
        /// The allocator.
        allocator: &'static str,
        /// What was asked for.
        modifiers: Vec<Modifier>,
    },
    /// The size makes no buffer.
    #[error(transparent)]
    Layout(#[from] buffer::Error),
    /// The kernel makes dumb buffers for `card*` nodes only.
    #[error(
        "{device} is a render node, which makes no dumb buffers: open the card* node of the device"
    )]
    RenderNode {
        /// The device.
        device: String,
    },
    /// A handle operation failed, making a dumb buffer among them.
    #[error(transparent)]
    Gem(#[from] gem::Error),
    /// The new buffer could not be exported.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// The device could not be opened once more, for gbm.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// `/dev/udmabuf` or a heap could not be opened. They belong to root on most distributions.
    #[error("cannot open {path}: {errno}", path = path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// ENOENT, EACCES …
        errno: Errno,
    },
    /// `memfd_create`, its size or its seal failed.
    #[error("cannot make {size} bytes of shared memory: {errno}")]
    Memory {
        /// Bytes asked for.
        size: u64,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The memory is no memfd, or it cannot be sealed against shrinking.
    #[error("the memory cannot be sealed against shrinking: {errno}")]
    Seal {
        /// EINVAL: it is no memfd. EPERM: it takes no seals, or is not open for writing.
        errno: Errno,
    },
    /// UDMABUF_CREATE failed.
    #[error("UDMABUF_CREATE of {size} bytes: {errno}")]
    Udmabuf {
        /// Bytes asked for.
        size: u64,
        /// EINVAL: above the module's limit, 64 MiB by default. A picture of exactly the limit is too
        /// large, for its memory has room after it.
        errno: Errno,
    },
    /// DMA_HEAP_IOCTL_ALLOC failed.
    #[error("{path}: DMA_HEAP_IOCTL_ALLOC of {size} bytes: {errno}", path = path.display())]
    DmaHeap {
        /// The heap.
        path: PathBuf,
        /// Bytes asked for.
        size: u64,
        /// ENOMEM, also for more than the machine has. EMFILE …
        errno: Errno,
    },
    /// An allocator failed in a way of its own: [`gbm::Error`](crate::gbm::Error) is gbm's, and
    /// [`vk::Error`](crate::vk::Error) Vulkan's.
    #[error("{allocator}: {cause}")]
    Allocator {
        /// The allocator.
        allocator: &'static str,
        /// What can be done about it.
        kind: ErrorKind,
        /// The kernel's or Mesa's number, if there is one.
        errno: Option<Errno>,
        /// Its error.
        cause: Cause,
    },
}

impl Error {
    /// An allocator's own error. `kind` and `errno` are the error's, for those who do not know its type.
    pub fn of_allocator(
        allocator: &'static str,
        kind: ErrorKind,
        errno: Option<Errno>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let cause = Cause(Arc::new(cause));
        Self::Allocator {
            allocator,
            kind,
            errno,
            cause,
        }
    }

    /// The allocator's own error, if it is of this type.
    pub fn of<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Allocator { cause, .. } => cause.0.downcast_ref(),
            _ => None,
        }
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Allocator { kind, .. } => *kind,
            Self::Format { .. } | Self::Modifiers { .. } | Self::RenderNode { .. } => {
                ErrorKind::Refused
            }
            Self::Layout(error) => error.kind(),
            Self::Gem(error) => error.kind(),
            Self::Export(error) => error.kind(),
            Self::Device(error) => error.kind(),
            Self::Open { errno, .. }
            | Self::Memory { errno, .. }
            | Self::Seal { errno }
            | Self::Udmabuf { errno, .. }
            | Self::DmaHeap { errno, .. } => ErrorKind::of(*errno),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Allocator { errno, .. } => *errno,
            Self::Format { .. } | Self::Modifiers { .. } => None,
            Self::RenderNode { .. } => Some(Errno::EACCES),
            Self::Layout(error) => error.errno(),
            Self::Gem(error) => error.errno(),
            Self::Export(error) => error.errno(),
            Self::Device(error) => error.errno(),
            Self::Open { errno, .. }
            | Self::Memory { errno, .. }
            | Self::Seal { errno }
            | Self::Udmabuf { errno, .. }
            | Self::DmaHeap { errno, .. } => Some(*errno),
        }
    }
}

into_io_error!(Error);

/// An error of an allocator's, whatever its type. Two of them are equal if they say the same.
#[derive(Clone)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_listed_by_their_names() {
        let error = Error::Modifiers {
            allocator: "dumb",
            modifiers: vec![Modifier::INVALID, Modifier::LINEAR],
        };
        let text = error.to_string();
        assert!(text.ends_with("asked for: INVALID, LINEAR"), "{text}");
        let error = Error::Modifiers {
            allocator: "dumb",
            modifiers: Vec::new(),
        };
        let text = error.to_string();
        assert!(text.ends_with("asked for: no modifier"), "{text}");
    }
}
