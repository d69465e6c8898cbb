use std::path::PathBuf;

use crate::Errno;
use crate::buffer::{self, Fourcc, Modifier};
use crate::{device, export, gem};

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
    #[error("{allocator} has none of the modifiers {modifiers:?}")]
    Modifiers {
        /// The allocator.
        allocator: &'static str,
        /// What was asked for.
        modifiers: Vec<Modifier>,
    },
    /// The size makes no buffer.
    #[error(transparent)]
    Layout(#[from] buffer::Error),
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
    /// `gbm_create_device` failed.
    #[error("gbm has no backend for {device}: {errno}")]
    GbmDevice {
        /// The device.
        device: String,
        /// Mesa's reason.
        errno: Errno,
    },
    /// gbm does not allocate this.
    #[error("gbm_bo_create of {width}x{height} {fourcc} on {device}: {errno}")]
    GbmCreate {
        /// The device.
        device: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Format.
        fourcc: Fourcc,
        /// Mesa's reason.
        errno: Errno,
    },
    /// Mesa did not export the new buffer. So its driver may believe that nobody shares the memory
    /// and make other buffers of it, and the buffer was not handed out.
    #[error("gbm_bo_get_fd_for_plane of plane {plane} on {device}: {reason}", reason = reason(*errno))]
    GbmExport {
        /// The device.
        device: String,
        /// The memory plane.
        plane: u32,
        /// Mesa's reason. `None` if it gives none.
        errno: Option<Errno>,
    },
    /// The driver behind gbm made the new buffer in the memory of one that gbm made before and
    /// that is in use. It was not handed out: each would show what is written to the other.
    #[error("gbm on {device} made a buffer in the memory of another that is in use, {id:?}")]
    GbmReused {
        /// The device.
        device: String,
        /// The dma-buf of both.
        id: buffer::BufferId,
    },
    /// Vulkan does not allocate this; [`vk::Exporter::create_wait`](crate::vk::Exporter::create_wait) tells why as a type.
    #[error("Vulkan: {0}")]
    Vulkan(String),
    /// gbm's buffer has a number of planes that no buffer has.
    #[error("gbm made a buffer of {0} planes")]
    GbmPlanes(u32),
}

fn reason(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "no reason given".to_owned(), |errno| errno.to_string())
}
