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

/// What has to be waited for before a buffer may be used. It is a real fence if the kernel can make one.
///
/// For an event loop: when the fd of [`AsFd`] is readable, ask [`Self::is_signalled`]. If it is not
/// signalled, wait for the fd again.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fence {
    /// A fence.
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
    /// Readable if [`Fence::is_signalled`] should be asked.
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

/// A buffer's dma-bufs, polled until each was seen without a pending fence.
///
/// Not quite a fence: it also waits for work that devices begin after it was made, as long as it has not been
/// seen signalled. Once it has said that it is signalled, it says so for ever, though its fd may not be
/// readable any more. It keeps the dma-bufs, and so their memory. Besides, the kernel keeps a dma-buf that
/// is polled until the pending fence is signalled (`dma_buf_poll`).
#[derive(Debug)]
pub struct Polled {
    epoll: Epoll,
    /// The dma-bufs in the epoll.
    objects: ArrayVec<OwnedFd, MAX_PLANES>,
    /// How many of them are still waited for.
    left: Mutex<usize>,
}

impl Polled {
    /// What an access of this kind has to wait for. Does not wait.
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
    /// Readable if [`Polled::is_signalled`] should be asked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
