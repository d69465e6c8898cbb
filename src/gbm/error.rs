//! What fails in Mesa's gbm, or in what it answers.

use crate::alloc;
use crate::buffer::{BufferId, Fourcc, Modifier, Usage, modifier_names};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why gbm made no buffer that could be handed out: the [`Cause`](alloc::Cause) of
/// [`alloc::Error::Allocator`], where [`alloc::Error::of`] finds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `gbm_create_device` failed.
    #[error("no backend for {device}: {errno}")]
    Backend {
        /// The device.
        device: String,
        /// Mesa's reason.
        errno: Errno,
    },
    /// gbm does not allocate this.
    #[error(
        "gbm_bo_create of {width}x{height} {fourcc} for {usage} with {} on {device}: {errno}",
        asked(modifiers)
    )]
    Create {
        /// The device.
        device: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Format.
        fourcc: Fourcc,
        /// What was asked for; none: any.
        modifiers: Vec<Modifier>,
        /// What it was to be for.
        usage: Usage,
        /// Mesa's reason.
        errno: Errno,
    },
    /// Mesa did not export the new buffer. So its driver may believe that nobody shares the memory
    /// and make other buffers of it, and the buffer was not handed out.
    #[error("gbm_bo_get_fd_for_plane of plane {plane} on {device}: {reason}", reason = reason(*errno))]
    Export {
        /// The device.
        device: String,
        /// The memory plane.
        plane: u32,
        /// Mesa's reason. `None` if it gives none.
        errno: Option<Errno>,
    },
    /// The driver behind gbm made the new buffer in the memory of one that gbm made before and
    /// that is in use. It was not handed out: each would show what is written to the other.
    #[error("{device} made a buffer in the memory of another that is in use, dma-buf {id}")]
    Reused {
        /// The device.
        device: String,
        /// The dma-buf of both.
        id: BufferId,
    },
    /// gbm's buffer has a number of planes that no buffer has.
    #[error("a buffer of {0} planes")]
    Planes(u32),
}

fn asked(modifiers: &[Modifier]) -> String {
    match modifiers {
        [] => "any modifier".to_owned(),
        some => modifier_names(some),
    }
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reused { .. } | Self::Planes(_) => ErrorKind::Refused,
            _ => self.errno().map_or(ErrorKind::Refused, ErrorKind::of),
        }
    }

    /// Mesa's number, which may be of something else that it met.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Backend { errno, .. } | Self::Create { errno, .. } => Some(*errno),
            Self::Export { errno, .. } => *errno,
            Self::Reused { .. } | Self::Planes(_) => None,
        }
    }
}

into_io_error!(Error);

impl From<Error> for alloc::Error {
    fn from(error: Error) -> Self {
        Self::of_allocator("gbm", error.kind(), error.errno(), error)
    }
}

fn reason(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "no reason given".to_owned(), |errno| errno.to_string())
}
