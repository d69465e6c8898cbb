//! Why a fence or a CPU access failed.

use crate::buffer::{Fourcc, Modifier};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a fence could not be had or waited for, or CPU access failed. Nothing was leaked, and no fd
/// of the caller was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The fd could not be duplicated or asked for its size.
    #[error("cannot examine the dma-buf: {errno}")]
    Examine {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The fd is open but not a dma-buf.
    #[error("the fd is not a dma-buf")]
    NotADmaBuf,
    /// `mmap` failed.
    #[error("cannot map a dma-buf of {size} bytes: {errno}")]
    Map {
        /// Bytes of the dma-buf.
        size: u64,
        /// EACCES: exported without `DRM_RDWR`, so it is read-only for good.
        errno: Errno,
    },
    /// The memory cannot be read, and reading it would end the process (SIGBUS): video memory that
    /// the CPU does not reach (a small BAR), or memory of a device that is gone.
    #[error("the mapped memory cannot be read: {errno}")]
    Unreadable {
        /// EFAULT.
        errno: Errno,
    },
    /// The picture is on the host of a virtual machine (a classic resource of virtio-gpu with 3D), and
    /// the memory in the guest may be out of date.
    ///
    /// [`Mapping::of_object`](super::Mapping::of_object) and
    /// [`BufferMapping`](super::BufferMapping) transfer pictures of one plane from and to the host.
    #[error("the picture is on the virtual machine's host, and the memory here may be out of date")]
    OnHost,
    /// Whether the host of a virtual machine has the picture could not be found out, since no render
    /// node of virtio-gpu could be opened or asked.
    #[error("cannot find out whether the virtual machine's host has the picture: {0}")]
    HostUnknown(Box<crate::device::Error>),
    /// VIRTGPU_TRANSFER_FROM_HOST failed.
    #[error("VIRTGPU_TRANSFER_FROM_HOST: {errno}")]
    FromHost {
        /// The kernel's reason.
        errno: Errno,
    },
    /// VIRTGPU_TRANSFER_TO_HOST failed at the end of an access: the host and its GPU do not see what
    /// was written.
    #[error("VIRTGPU_TRANSFER_TO_HOST: {errno}")]
    ToHost {
        /// The kernel's reason.
        errno: Errno,
    },
    /// DMA_BUF_IOCTL_SYNC failed at the start of an access: it may not go ahead.
    #[error("DMA_BUF_IOCTL_SYNC: {errno}")]
    Sync {
        /// The kernel's reason.
        errno: Errno,
    },
    /// DMA_BUF_IOCTL_SYNC failed at the end of an access: devices may not see what was written.
    #[error("DMA_BUF_IOCTL_SYNC at the end: {errno}")]
    SyncEnd {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The bytes asked for are not all inside the buffer.
    #[error("bytes {start}..{end} are not all in a mapping of {size}")]
    Range {
        /// First byte.
        start: u64,
        /// First byte after.
        end: u64,
        /// Bytes mapped.
        size: u64,
    },
    /// Writing to what was mapped, or access that was begun, for reading only.
    #[error("mapped or begun for reading only")]
    ReadOnly,
    /// Reading by an access that was begun for writing only.
    #[error("begun for writing only")]
    WriteOnly,
    /// The buffer has fewer dma-bufs.
    #[error("there is no dma-buf {object}: the buffer has {objects}")]
    NoSuchObject {
        /// The index asked for.
        object: usize,
        /// How many there are.
        objects: usize,
    },
    /// The buffer has fewer planes.
    #[error("there is no plane {plane}: the buffer has {planes}")]
    NoSuchPlane {
        /// The plane asked for.
        plane: usize,
        /// How many there are.
        planes: usize,
    },
    /// Only LINEAR buffers of known formats have rows that one can go by.
    #[error(
        "only LINEAR buffers of known formats have rows for the CPU, and this one is {fourcc} with {modifier}"
    )]
    RowsUnknown {
        /// Format.
        fourcc: Fourcc,
        /// Modifier.
        modifier: Modifier,
    },
    /// The fd is open but not a sync_file.
    #[error("the fd is not a sync_file")]
    NotASyncFile,
    /// SYNC_IOC_FILE_INFO failed.
    #[error("SYNC_IOC_FILE_INFO: {errno}")]
    Info {
        /// The kernel's reason.
        errno: Errno,
    },
    /// SYNC_IOC_MERGE failed.
    #[error("SYNC_IOC_MERGE: {errno}")]
    Merge {
        /// The kernel's reason.
        errno: Errno,
    },
    /// An fd could not be duplicated.
    #[error("cannot duplicate an fd: {errno}")]
    Duplicate {
        /// EMFILE: the process has too many.
        errno: Errno,
    },
    /// `poll` or `epoll` failed.
    #[error("cannot poll: {errno}")]
    Poll {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The deadline passed first.
    #[error("not signalled by the deadline")]
    TimedOut,
    /// The fence was signalled with an error: the work it stands for failed or was given up, as
    /// when its device was lost.
    #[error("the fence was signalled with an error: {errno}")]
    Failed {
        /// The driver's reason.
        errno: Errno,
    },
    /// The kernel is too old for an ioctl, or a sandbox forbids it.
    #[error("{ioctl} is not to be had here: {errno}")]
    Unsupported {
        /// Which one.
        ioctl: &'static str,
        /// ENOTTY: the kernel does not know it. ENOSYS, EPERM: forbidden.
        errno: Errno,
    },
    /// DMA_BUF_IOCTL_EXPORT_SYNC_FILE failed.
    #[error("DMA_BUF_IOCTL_EXPORT_SYNC_FILE: {errno}")]
    ExportSyncFile {
        /// The kernel's reason.
        errno: Errno,
    },
    /// DMA_BUF_IOCTL_IMPORT_SYNC_FILE failed.
    #[error("DMA_BUF_IOCTL_IMPORT_SYNC_FILE: {errno}")]
    ImportSyncFile {
        /// The kernel's reason.
        errno: Errno,
    },
    /// No device or heap could give the memory for a fence that is signalled.
    #[error("no dma-buf to make a signalled fence from: {errno}")]
    NoSignalled {
        /// Why `/dev/udmabuf`, the last way tried, gave none.
        errno: Errno,
    },
    /// The device was unplugged. Nothing will signal what its driver did not signal before.
    #[error("{device} was unplugged")]
    Lost {
        /// The device.
        device: String,
    },
    /// The device's driver has no syncobjs.
    #[error("{device} has no syncobjs")]
    NoSyncobj {
        /// The device.
        device: String,
    },
    /// The device's driver has binary syncobjs, but no timelines.
    #[error("{device} has no timeline syncobjs")]
    NoTimeline {
        /// The device.
        device: String,
    },
    /// The syncobjs are of two file descriptions.
    #[error("{device}: the other syncobj belongs to another file description")]
    OtherDevice {
        /// The device.
        device: String,
    },
    /// Nobody has submitted the point yet, so it has no fence that could be taken out.
    #[error("{device}: point {point} has not been submitted")]
    NotSubmitted {
        /// The device.
        device: String,
        /// The point; 0 for a binary syncobj.
        point: u64,
    },
    /// A syncobj ioctl failed.
    #[error("{device}: {ioctl}: {errno}")]
    Syncobj {
        /// The device.
        device: String,
        /// Which one.
        ioctl: &'static str,
        /// ENOENT: the handle is not open, so somebody destroyed it behind the library's back.
        errno: Errno,
    },
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost { .. } => ErrorKind::Lost,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::HostUnknown(error) => error.kind(),
            Self::OnHost | Self::Unreadable { .. } => ErrorKind::Refused,
            Self::NoSyncobj { .. }
            | Self::NoTimeline { .. }
            | Self::Unsupported { .. }
            | Self::RowsUnknown { .. } => ErrorKind::Unsupported,
            Self::NotSubmitted { .. } => ErrorKind::Busy,
            // The work failed, not the call.
            Self::Failed { .. } => ErrorKind::Other,
            Self::NotADmaBuf
            | Self::NotASyncFile
            | Self::Range { .. }
            | Self::ReadOnly
            | Self::WriteOnly
            | Self::NoSuchObject { .. }
            | Self::NoSuchPlane { .. }
            | Self::OtherDevice { .. } => ErrorKind::Invalid,
            _ => self.errno().map_or(ErrorKind::Other, ErrorKind::of),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Examine { errno }
            | Self::Map { errno, .. }
            | Self::Unreadable { errno }
            | Self::FromHost { errno }
            | Self::ToHost { errno }
            | Self::Sync { errno }
            | Self::SyncEnd { errno }
            | Self::Info { errno }
            | Self::Merge { errno }
            | Self::Duplicate { errno }
            | Self::Poll { errno }
            | Self::Failed { errno }
            | Self::Unsupported { errno, .. }
            | Self::ExportSyncFile { errno }
            | Self::ImportSyncFile { errno }
            | Self::NoSignalled { errno }
            | Self::Syncobj { errno, .. } => Some(*errno),
            Self::HostUnknown(error) => error.errno(),
            Self::NotADmaBuf
            | Self::OnHost
            | Self::Range { .. }
            | Self::ReadOnly
            | Self::WriteOnly
            | Self::NoSuchObject { .. }
            | Self::NoSuchPlane { .. }
            | Self::RowsUnknown { .. }
            | Self::NotASyncFile
            | Self::TimedOut
            | Self::Lost { .. }
            | Self::NoSyncobj { .. }
            | Self::NoTimeline { .. }
            | Self::OtherDevice { .. }
            | Self::NotSubmitted { .. } => None,
        }
    }
}

into_io_error!(Error);
