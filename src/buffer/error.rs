//! Why buffer descriptions are refused.

use super::{Fourcc, MAX_PLANES, Modifier};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a buffer description was refused. Every fd that came with it has been closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number is no file descriptor.
    #[error("plane fd {0} is not a file descriptor")]
    BadFd(i32),
    /// A buffer has one to [`MAX_PLANES`] planes.
    #[error("{0} planes given, a buffer has 1 to {MAX_PLANES}")]
    PlaneCount(usize),
    /// Width or height is zero.
    #[error("{width}x{height} has no pixels")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Width or height is below zero, as protocols with signed numbers can say it.
    #[error("size {width}x{height} has a side below zero")]
    Negative {
        /// Width in pixels.
        width: i32,
        /// Height in pixels.
        height: i32,
    },
    /// The description has flags whose meaning the library does not know.
    #[error("flags {0:#x} are not known")]
    UnknownFlags(u32),
    /// The size overflows the kernel's 32-bit pitch or the address space, or the 32 bits in which the kernel counts the
    /// bytes of a dumb buffer.
    #[error(
        "{width}x{height} of {fourcc} is too large: rows and dumb buffers have less than 4 GiB"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Format.
        fourcc: Fourcc,
    },
    /// The planes of a LINEAR buffer of this format are another number.
    #[error("{fourcc} LINEAR has {expected} planes, {found} given")]
    FormatPlaneCount {
        /// Format.
        fourcc: Fourcc,
        /// Planes of the format.
        expected: usize,
        /// Planes given.
        found: usize,
    },
    /// A plane lies in a dma-buf that was not given.
    #[error("there is no dma-buf {object}: {objects} were given")]
    NoSuchObject {
        /// Index that was asked for.
        object: usize,
        /// How many there are.
        objects: usize,
    },
    /// `fstat`, `fstatfs` or `lseek` failed on a plane's fd.
    #[error("plane {plane}: cannot examine its fd: {errno}")]
    Examine {
        /// Plane index.
        plane: usize,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The fd is open but not a dma-buf.
    #[error("plane {plane}: the fd is not a dma-buf")]
    NotADmaBuf {
        /// Plane index.
        plane: usize,
    },
    /// A row does not fit the stride.
    #[error("plane {plane}: stride {stride} is shorter than a row of {row_bytes} bytes")]
    StrideTooSmall {
        /// Plane index.
        plane: usize,
        /// Stride in bytes.
        stride: u32,
        /// Bytes of one row.
        row_bytes: u32,
    },
    /// The plane reaches past the end of its dma-buf.
    #[error("plane {plane}: ends at byte {end}, past its dma-buf of {size} bytes")]
    OutOfBounds {
        /// Plane index.
        plane: usize,
        /// First byte after the plane.
        end: u64,
        /// Bytes of the dma-buf.
        size: u64,
    },
    /// The stride is zero, and rows of the modifier's layout have one.
    #[error("plane {plane}: the stride is zero, which {modifier} has no reason for")]
    NoStride {
        /// Plane index.
        plane: usize,
        /// Arrangement in memory.
        modifier: Modifier,
    },
    /// Offset + stride x rows is 2^32 or more, which no interface that buffers go through can tell.
    #[error("plane {plane}: ends at byte {end}, out of reach of 32 bits")]
    OutOfReach {
        /// Plane index.
        plane: usize,
        /// First byte after the plane.
        end: u64,
    },
    /// A row of a plane has bytes in common with a row of another one in the same dma-buf.
    #[error("planes {other} and {plane} overlap")]
    PlanesOverlap {
        /// Plane index.
        plane: usize,
        /// Index of an earlier plane.
        other: usize,
    },
    /// Offset or stride is not a whole number of pixels, see
    /// [`DmaBuf::check_whole_pixels`](super::DmaBuf::check_whole_pixels).
    #[error("plane {plane}: offset {offset} and stride {stride} are not multiples of {unit} bytes")]
    Misaligned {
        /// Plane index.
        plane: usize,
        /// First byte of the plane.
        offset: u32,
        /// Bytes from one row to the next.
        stride: u32,
        /// Bytes that both must be a multiple of: those of a pixel, or of a block of pixels.
        unit: u32,
    },
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.errno().map_or(ErrorKind::Invalid, ErrorKind::of)
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Examine { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// What a Wayland server answers to the client that sent the buffer.
    pub fn linux_dmabuf_answer(&self) -> LinuxDmabufAnswer {
        const INCOMPLETE: u32 = 3;
        const INVALID_DIMENSIONS: u32 = 5;
        const OUT_OF_BOUNDS: u32 = 6;
        let code = match self {
            Self::PlaneCount(_) | Self::FormatPlaneCount { .. } | Self::NoSuchObject { .. } => {
                INCOMPLETE
            }
            Self::Empty { .. } | Self::Negative { .. } | Self::TooLarge { .. } => {
                INVALID_DIMENSIONS
            }
            Self::StrideTooSmall { .. }
            | Self::NoStride { .. }
            | Self::OutOfBounds { .. }
            | Self::OutOfReach { .. } => OUT_OF_BOUNDS,
            Self::BadFd(_)
            | Self::Examine { .. }
            | Self::NotADmaBuf { .. }
            | Self::PlanesOverlap { .. }
            | Self::UnknownFlags(_)
            | Self::Misaligned { .. } => return LinuxDmabufAnswer::Failed,
        };
        LinuxDmabufAnswer::ProtocolError(code)
    }
}

/// What a Wayland server answers to a client whose buffer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinuxDmabufAnswer {
    /// The client broke the protocol: a value of `zwp_linux_buffer_params_v1.error`, which ends the
    /// connection. 3 `incomplete`, 5 `invalid_dimensions`, 6 `out_of_bounds`.
    ProtocolError(u32),
    /// The server cannot use the buffer. `create` is answered by the event `failed`, and `create_immed` by
    /// the same event or by the error [`Self::INVALID_WL_BUFFER`], as the server likes.
    Failed,
}

impl LinuxDmabufAnswer {
    /// `zwp_linux_buffer_params_v1.error.invalid_wl_buffer`
    pub const INVALID_WL_BUFFER: u32 = 7;
}

into_io_error!(Error);
