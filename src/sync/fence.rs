//! Fences of buffers on kernels with and without `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use arrayvec::ArrayVec;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

use super::sync_file::duplicate;
use super::{Access, Deadline, Error, SyncFile, poll};
use crate::buffer::{DmaBuf, MAX_PLANES};
use crate::sys::errno;
use crate::sys::poll::{Event, add, epoll};

/// What has to be waited for before a buffer may be used: a fence if the kernel can make one.
///
/// Ready for an event loop: when the fd of [`AsFd`] is readable ask [`Self::is_signalled`], and
/// where it says no, wait for the fd again.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fence {
    /// A fence of its own.
    SyncFile(SyncFile),
    /// The dma-bufs, polled: on kernels without `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`.
    Polled(Polled),
}

impl Fence {
    /// Waits until the fence is signalled, as [`SyncFile::wait`]. Only a `SyncFile` can say that
    /// the work failed.
    pub fn wait(&self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        match self {
            Self::SyncFile(fence) => fence.wait(deadline),
            Self::Polled(fence) => fence.wait(deadline),
        }
    }

    /// Whether the fence is signalled. Does not wait.
    pub fn is_signalled(&self) -> Result<bool, Error> {
        match self {
            Self::SyncFile(fence) => fence.is_signalled(),
            Self::Polled(fence) => fence.is_signalled(),
        }
    }
}

impl AsFd for Fence {
    /// Readable when it is worth asking [`Fence::is_signalled`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::SyncFile(fence) => fence.as_fd(),
            Self::Polled(fence) => fence.as_fd(),
        }
    }
}

impl From<SyncFile> for Fence {
    fn from(fence: SyncFile) -> Self {
        Self::SyncFile(fence)
    }
}

/// A buffer's dma-bufs, polled until each was seen without a device in the way.
///
/// Not quite a fence: what devices begin to do with the buffer before it was asked for counts too.
/// Once it has said that it is signalled, it says so for ever, though its fd need not. It keeps the dma-bufs, and so their
/// memory; and the kernel keeps a dma-buf that was polled until the fence in the way is signalled
/// (`dma_buf_poll`).
#[derive(Debug)]
pub struct Polled {
    epoll: Epoll,
    /// What the epoll looks at.
    objects: ArrayVec<OwnedFd, MAX_PLANES>,
    /// How many of them it still waits for.
    left: Mutex<usize>,
}

impl Polled {
    /// What somebody has to wait for who is about to use the buffer so. Does not wait.
    pub fn new(buffer: &DmaBuf, access: Access) -> Result<Self, Error> {
        let failed = |errno| Error::Poll { errno };
        let epoll = epoll().map_err(failed)?;
        let mut objects = ArrayVec::new();
        for (number, object) in buffer.objects().iter().enumerate() {
            let object = duplicate(object.as_fd())?;
            add(&epoll, &object, access.event(), number as u64).map_err(failed)?;
            objects.push(object);
        }
        Ok(Self {
            epoll,
            left: Mutex::new(objects.len()),
            objects,
        })
    }

    /// As [`Fence::wait`].
    pub fn wait(&self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        let deadline = deadline.into();
        while !self.is_signalled()? {
            poll::wait(self.epoll.0.as_fd(), Event::In, deadline)?;
        }
        Ok(())
    }

    /// As [`Fence::is_signalled`].
    pub fn is_signalled(&self) -> Result<bool, Error> {
        let failed = |errno| Error::Poll { errno };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return Ok(true);
        }
        let mut events = [EpollEvent::empty(); MAX_PLANES];
        let ready = crate::sys::uninterrupted(|| self.epoll.wait(&mut events, EpollTimeout::ZERO))
            .map_err(failed)?;
        // The last ones are left in, so that the epoll stays readable.
        if ready == *left {
            *left = 0;
            return Ok(true);
        }
        for event in &events[..ready] {
            if let Some(object) = self.objects.get(event.data() as usize) {
                self.epoll.delete(object).map_err(errno).map_err(failed)?;
                *left -= 1;
            }
        }
        Ok(false)
    }
}

impl AsFd for Polled {
    /// Readable when it is worth asking [`Polled::is_signalled`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
