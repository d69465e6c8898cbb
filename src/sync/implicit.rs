//! From the fences in dma-bufs (implicit synchronisation) to sync files (explicit), and back.
//!
//! Drivers with implicit synchronisation leave a fence in each dma-buf that they use, and wait for the fences
//! that they find there. Vulkan does neither. So before Vulkan work on a buffer that such a driver uses, call
//! [`export_sync_file`] and wait for its fence; after the work, call [`import_sync_file`]
//! (`Documentation/driver-api/dma-buf.rst`, Implicit Fence Poll Support, and the comments on
//! `dma_buf_export_sync_file` in `include/uapi/linux/dma-buf.h`).

use std::os::fd::{AsFd, BorrowedFd};

use super::{Access, Deadline, Error, Fence, Polled, SyncFile};
use crate::Errno;
use crate::buffer::DmaBuf;
use crate::sys::dma_buf;

const EXPORT: &str = "DMA_BUF_IOCTL_EXPORT_SYNC_FILE";
const IMPORT: &str = "DMA_BUF_IOCTL_IMPORT_SYNC_FILE";

/// A fence for the pending work that must finish before `access`: writers for reading, everyone for
/// writing. One fence for all dma-bufs of the buffer, as they are now.
///
/// Does not wait. If nothing is pending, the fence is signalled already. [`Error::Unsupported`] before
/// Linux 6.0, and if a sandbox forbids the ioctl: use [`fence`] then.
pub fn export_sync_file(buffer: &DmaBuf, access: Access) -> Result<SyncFile, Error> {
    // Planes in one dma-buf share one object.
    let (first, others) = match buffer.objects() {
        [first, others @ ..] => (first, others),
        [] => return SyncFile::signalled(),
    };
    let first = export_sync_file_fd(first, access)?;
    others.iter().try_fold(first, |merged, object| {
        merged.merge(&export_sync_file_fd(object, access)?)
    })
}

/// As [`export_sync_file`], for one dma-buf by its fd, which is borrowed. [`Error::NotADmaBuf`] for other
/// files.
pub fn export_sync_file_fd(dma_buf: impl AsFd, access: Access) -> Result<SyncFile, Error> {
    let dma_buf = dma_buf.as_fd();
    match dma_buf::export_sync_file(dma_buf, access.flags()) {
        Ok(fence) => Ok(SyncFile::of_kernel(fence)),
        Err(errno) if is_missing(errno) => Err(missing(dma_buf, EXPORT, errno)),
        Err(errno) => Err(Error::ExportSyncFile { errno }),
    }
}

/// As [`export_sync_file`], but without the ioctl the fence polls the dma-bufs themselves.
pub fn fence(buffer: &DmaBuf, access: Access) -> Result<Fence, Error> {
    match export_sync_file(buffer, access) {
        Ok(fence) => Ok(Fence::SyncFile(fence)),
        Err(Error::Unsupported { .. }) => Polled::new(buffer, access).map(Fence::Polled),
        Err(error) => Err(error),
    }
}

/// Leaves a fence in each dma-buf of the buffer. Writers wait for the fence of a reader, and everyone
/// waits for the fence of a writer.
///
/// Does not wait. After an error some of the dma-bufs may have the fence already; that makes
/// others wait for it, and does no other harm. [`Error::Unsupported`] before Linux 6.0 and where
/// a sandbox forbids the ioctl: wait for the fence, then, before others are given the buffer, as
/// [`import_or_wait`] does.
pub fn import_sync_file(buffer: &DmaBuf, fence: &SyncFile, access: Access) -> Result<(), Error> {
    let mut objects = buffer.objects().iter();
    objects.try_for_each(|object| import_sync_file_fd(object, fence, access))
}

/// As [`import_sync_file`], into one dma-buf by its fd, which is borrowed. [`Error::NotADmaBuf`] for other
/// files.
pub fn import_sync_file_fd(
    dma_buf: impl AsFd,
    fence: &SyncFile,
    access: Access,
) -> Result<(), Error> {
    let dma_buf = dma_buf.as_fd();
    match dma_buf::import_sync_file(dma_buf, fence.as_fd(), access.flags()) {
        Ok(()) => Ok(()),
        Err(errno) if is_missing(errno) => Err(missing(dma_buf, IMPORT, errno)),
        Err(errno) => Err(Error::ImportSyncFile { errno }),
    }
}

/// As [`import_sync_file`], but without the ioctl it waits for the fence instead.
pub fn import_or_wait(
    buffer: &DmaBuf,
    fence: &SyncFile,
    access: Access,
    deadline: impl Into<Deadline>,
) -> Result<(), Error> {
    match import_sync_file(buffer, fence, access) {
        Err(Error::Unsupported { .. }) => fence.wait(deadline),
        imported => imported,
    }
}

/// ENOTTY is the answer of a kernel that does not know the ioctl, and of every other kind of file;
/// ENOSYS and EPERM are a sandbox's.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOTTY | Errno::ENOSYS | Errno::EPERM)
}

fn missing(fd: BorrowedFd<'_>, ioctl: &'static str, errno: Errno) -> Error {
    match dma_buf::is_dma_buf(fd) {
        Ok(false) => Error::NotADmaBuf,
        _ => Error::Unsupported { ioctl, errno },
    }
}
