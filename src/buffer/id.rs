use std::fmt;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::sys;

/// The identity of a dma-buf: its device and inode number on the kernel's private dma-buf file
/// system.
///
/// Since Linux 5.3 the inode is a 64-bit counter that is never reused, and it is the same through
/// every fd, in every process. Compare ids only while an fd (or a GEM handle) of the buffer is
/// held open. The fd *number* says nothing: numbers are recycled at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId {
    device: u64,
    inode: u64,
}

impl BufferId {
    /// Asks the kernel for the identity behind an fd: one `fstat`.
    ///
    /// Does not check that it is a dma-buf; [`DmaBuf::new`](super::DmaBuf::new) does.
    pub fn of(fd: impl AsFd) -> Result<Self, Errno> {
        sys::file::stat(fd.as_fd()).map(|stat| Self::from_stat(&stat))
    }

    pub(crate) fn inode(self) -> u64 {
        self.inode
    }

    /// An identity for models of the kernel.
    #[cfg(test)]
    pub(crate) const fn model(inode: u64) -> Self {
        Self { device: 0, inode }
    }

    pub(crate) fn from_stat(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

impl fmt::Debug for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferId({}:{})", self.device, self.inode)
    }
}
