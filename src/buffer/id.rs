//! The identity of a dma-buf. Nothing else in the library may compare buffers: an fd number is no identity.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Errno;
use crate::sys;

/// The device number of the one file system that dma-bufs are on, once one was met; 0 until then,
/// which is none.
static FILE_SYSTEM: AtomicU64 = AtomicU64::new(0);

/// The identity of a dma-buf: its device and inode number on the kernel's private dma-buf file
/// system.
///
/// It is the same through every fd, in every process. Compare ids only while an fd (or a GEM
/// handle) of the buffer is held open. The fd *number* says nothing: numbers are recycled at once.
///
/// # Where inodes are not to be trusted
/// An identity rests on the file system that dma-bufs have had since Linux 5.3, so [`Self::of`]
/// looks for it and gives none elsewhere: before, all dma-bufs were one inode, and on FreeBSD's drm
/// they have had random ones or 0 (freebsd/drm-kmod pull request 401). Since Linux 5.19 an inode is
/// a 64-bit counter (`dma_buf_getfile`). In between it came from the kernel's 32-bit one
/// (`get_next_ino`), and the identity of a buffer that lives while four thousand million others,
/// pipes and sockets come may be given again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId {
    device: u64,
    inode: u64,
}

impl fmt::Display for BufferId {
    /// `device:inode`, as [`fmt::Debug`] has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl BufferId {
    /// Asks the kernel for the identity behind an fd: one `fstat`, and the process's first time a
    /// `fstatfs`.
    ///
    /// EINVAL: it is no dma-buf, or of a kernel that does not tell them apart.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        // Asked once: a caller's `AsFd` may answer with another fd the next time, and what is
        // remembered of one must not be said of the other.
        let fd = fd.as_fd();
        let stat = sys::file::stat(fd)?;
        if FILE_SYSTEM.load(Ordering::Relaxed) != stat.st_dev {
            if !sys::dma_buf::is_dma_buf(fd)? {
                return Err(Errno::EINVAL);
            }
            FILE_SYSTEM.store(stat.st_dev, Ordering::Relaxed);
        }
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// The device number of the file system: `st_dev` of `fstat`.
    pub fn dev_t(self) -> u64 {
        self.device
    }

    /// The inode number: `st_ino` of `fstat`, which `/proc/PID/fdinfo` and debugfs's list of dma-bufs show.
    pub fn inode(self) -> u64 {
        self.inode
    }

    /// An identity for models of the kernel.
    #[cfg(test)]
    pub(crate) const fn model(inode: u64) -> Self {
        Self { device: 0, inode }
    }
}

impl fmt::Debug for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferId({}:{})", self.device, self.inode)
    }
}
