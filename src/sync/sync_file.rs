//! Sync files: fences as fds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::{Deadline, Error, implicit, poll};
use crate::Errno;
use crate::sys::poll::Event;
use crate::sys::sync_file::FenceInfo as RawFence;
use crate::sys::{self, udmabuf};

/// Room for the fences of nearly every sync_file, so that asking for them allocates nothing.
const FEW: usize = 8;

/// A fence as an fd. It stands for work that a device was given, and is signalled once that work is done
/// (`Documentation/driver-api/sync_file.rst`).
///
/// A fence is signalled once and stays so, with an error if the work failed. The kernel demands of
/// drivers that they signal it in finite time, whatever becomes of the device
/// (`Documentation/driver-api/dma-buf.rst`, DMA Fence Cross-Driver Contract). Still, every wait here takes a
/// deadline.
///
/// For an event loop: the fd is readable once the fence is signalled. Close-on-exec; thread-safe.
/// vkGetSemaphoreFdKHR gives such an fd as `SYNC_FD`, or -1 for a fence that is signalled, and
/// vkImportSemaphoreFdKHR takes one.
#[derive(Debug)]
pub struct SyncFile(OwnedFd);

/// The state of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Not signalled yet.
    Pending,
    /// The work is done.
    Signalled,
    /// Signalled, but the work failed or was given up.
    Failed(Errno),
}

/// What the kernel tells of a sync_file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its name, for debugging.
    pub name: String,
    /// The status of all its fences together.
    pub status: Status,
    /// The fences that it was made from, except those that were signalled by then.
    pub fences: Vec<FenceInfo>,
}

/// What the kernel tells of one fence in a sync_file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceInfo {
    /// The kernel driver it comes from; `detached-driver` once signalled, since Linux 6.17.
    pub driver: String,
    /// The timeline it lies on: a ring or context of that driver; `signaled-timeline` once
    /// signalled, since Linux 6.17.
    pub timeline: String,
    /// Its state.
    pub status: Status,
    /// When it was signalled, on CLOCK_MONOTONIC.
    pub timestamp: Option<Duration>,
}

impl Status {
    fn of(status: i32) -> Self {
        match status {
            0 => Self::Pending,
            1.. => Self::Signalled,
            _ => Self::Failed(Errno::from_raw(status.saturating_neg())),
        }
    }

    /// The status of two fences together: pending while one is, then failed if one is.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
            (Self::Failed(errno), _) | (_, Self::Failed(errno)) => Self::Failed(errno),
            _ => Self::Signalled,
        }
    }
}

impl SyncFile {
    /// Takes an fd that came from elsewhere, such as a Vulkan semaphore or another process.
    ///
    /// The fd is closed with the `SyncFile`, or before an error returns: [`Error::NotASyncFile`]
    /// for everything else.
    pub fn new(fd: OwnedFd) -> Result<Self, Error> {
        match sys::sync_file::check(fd.as_fd()) {
            Ok(()) => Ok(Self(fd)),
            Err(Errno::ENOTTY) => Err(Error::NotASyncFile),
            // Some other file that has an ioctl of the same number.
            Err(Errno::EINVAL) => Err(Error::NotASyncFile),
            Err(errno) => Err(Error::Info { errno }),
        }
    }

    /// Takes an fd that the kernel gave as a sync file.
    pub(crate) fn of_kernel(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// A fence that is signalled already, for an interface that insists on one.
    ///
    /// The kernel gives one for a dma-buf that no device uses, so this needs `/dev/udmabuf`; on a
    /// device with syncobjs, [`Syncobj::signalled`](super::Syncobj::signalled) and
    /// [`export_sync_file`](super::Syncobj::export_sync_file) do it too. Make one and
    /// [`try_clone`](Self::try_clone) it.
    pub fn signalled() -> Result<Self, Error> {
        let memory = || {
            let size = udmabuf::page_size();
            let memory = udmabuf::memory(size)?;
            udmabuf::create(udmabuf::open()?.as_fd(), memory.as_fd(), 0, size)
        };
        let memory = memory().map_err(|errno| Error::NoSignalled { errno })?;
        implicit::export_sync_file_fd(memory, super::Access::Write)
    }

    /// Another fd of the same fence.
    pub fn try_clone(&self) -> Result<Self, Error> {
        duplicate(self.0.as_fd()).map(Self)
    }

    /// Waits until the fence is signalled. [`Error::TimedOut`] if it is not by the deadline,
    /// [`Error::Failed`] if it was signalled with an error.
    ///
    /// Signals do not end the wait. Allocates nothing unless more than eight fences were merged.
    pub fn wait(&self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        poll::wait(self.0.as_fd(), Event::In, deadline.into())?;
        match self.status()? {
            Status::Failed(errno) => Err(Error::Failed { errno }),
            // The kernel has said that it is signalled.
            Status::Pending | Status::Signalled => Ok(()),
        }
    }

    /// Whether the fence is signalled, with an error or not. Does not wait.
    pub fn is_signalled(&self) -> Result<bool, Error> {
        poll::is_ready(self.0.as_fd(), Event::In)
    }

    /// The state of the fence. Does not wait.
    ///
    /// A fence that failed before it was merged, or exported from a dma-buf, is not part of the result any
    /// more (`dma_fence_unwrap_merge`, `dma_resv_get_fences`), and neither is its error. If that matters, ask
    /// before merging.
    pub fn status(&self) -> Result<Status, Error> {
        // Without room for the fences the kernel needs no memory to answer.
        let info = sys::sync_file::info(self.0.as_fd(), &mut []);
        let info = info.map_err(|errno| Error::Info { errno })?;
        match Status::of(info.status) {
            // The kernel's answer leaves out errors: see `status_of`.
            Status::Signalled if info.num_fences > 1 => {
                with_fences(self.0.as_fd(), |_, fences| status_of(fences))
            }
            status => Ok(status),
        }
    }

    /// What the kernel tells of the fence, for debugging. Does not wait.
    pub fn info(&self) -> Result<Info, Error> {
        with_fences(self.0.as_fd(), |name, fences| Info {
            name: text(name),
            status: status_of(fences),
            fences: fences.iter().map(FenceInfo::of).collect(),
        })
    }

    /// A fence that is signalled when both are.
    pub fn merge(&self, other: &Self) -> Result<Self, Error> {
        sys::sync_file::merge(self.0.as_fd(), other.0.as_fd())
            .map(Self)
            .map_err(|errno| Error::Merge { errno })
    }

    /// A fence that is signalled when all are. `None` if none were given, so that there is nothing to wait
    /// for.
    pub fn merge_all(fences: impl IntoIterator<Item = Self>) -> Result<Option<Self>, Error> {
        let mut fences = fences.into_iter();
        let Some(first) = fences.next() else {
            return Ok(None);
        };
        fences
            .try_fold(first, |merged, fence| merged.merge(&fence))
            .map(Some)
    }
}

impl AsFd for SyncFile {
    /// Readable once the fence is signalled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<SyncFile> for OwnedFd {
    fn from(fence: SyncFile) -> Self {
        fence.0
    }
}

impl TryFrom<OwnedFd> for SyncFile {
    type Error = Error;

    /// As [`SyncFile::new`].
    fn try_from(fd: OwnedFd) -> Result<Self, Error> {
        Self::new(fd)
    }
}

impl FenceInfo {
    fn of(raw: &RawFence) -> Self {
        let timestamp = Duration::from_nanos(raw.timestamp_ns);
        Self {
            driver: text(&raw.driver),
            timeline: text(&raw.timeline),
            status: Status::of(raw.status),
            timestamp: (!timestamp.is_zero()).then_some(timestamp),
        }
    }
}

pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().map_err(|error| Error::Duplicate {
        errno: sys::errno(error),
    })
}

/// The status of a merged fence, computed from the fences in it. The kernel's own answer leaves out their
/// errors if nothing has waited for the merged fence (`dma_fence_array_signaled`).
fn status_of(fences: &[RawFence]) -> Status {
    let statuses = fences.iter().map(|fence| Status::of(fence.status));
    statuses.fold(Status::Signalled, Status::and)
}

/// Gives `with` the name and fences of a sync_file.
fn with_fences<R>(
    fd: BorrowedFd<'_>,
    with: impl FnOnce(&[u8; 32], &[RawFence]) -> R,
) -> Result<R, Error> {
    let failed = |errno| Error::Info { errno };
    let mut few = [RawFence::default(); FEW];
    match sys::sync_file::info(fd, &mut few) {
        Ok(info) => return Ok(with(&info.name, filled(&few, info.num_fences))),
        // There is no room for all fences.
        Err(Errno::EINVAL) => {}
        Err(errno) => return Err(failed(errno)),
    }
    // From call to call there may be fewer fences, since the kernel forgets signalled ones of a chain, but
    // never more.
    let count = sys::sync_file::info(fd, &mut [])
        .map_err(failed)?
        .num_fences;
    let mut fences = vec![RawFence::default(); count as usize];
    let info = sys::sync_file::info(fd, &mut fences).map_err(failed)?;
    Ok(with(&info.name, filled(&fences, info.num_fences)))
}

fn filled(fences: &[RawFence], count: u32) -> &[RawFence] {
    fences.get(..count as usize).unwrap_or(fences)
}

/// The text that the kernel wrote, up to the first zero.
fn text(bytes: &[u8; 32]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pending_fence_keeps_all_pending_and_one_failed_fails_them() {
        use Status::*;
        let failed = Failed(Errno::EIO);
        assert_eq!(Signalled.and(Signalled), Signalled);
        assert_eq!(Signalled.and(Pending), Pending);
        assert_eq!(failed.and(Pending), Pending);
        assert_eq!(failed.and(Signalled), failed);
    }

    #[test]
    fn the_kernels_status_is_an_errno_or_a_yes_or_no() {
        assert_eq!(Status::of(0), Status::Pending);
        assert_eq!(Status::of(1), Status::Signalled);
        assert_eq!(Status::of(-2), Status::Failed(Errno::ENOENT));
        // Nonsense is no panic.
        assert!(matches!(Status::of(i32::MIN), Status::Failed(_)));
    }

    #[test]
    fn names_end_at_the_zero_or_the_end() {
        let mut bytes = [b'x'; 32];
        assert_eq!(text(&bytes), "x".repeat(32));
        bytes[3] = 0;
        assert_eq!(text(&bytes), "xxx");
    }
}
