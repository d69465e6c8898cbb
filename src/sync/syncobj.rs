//! DRM syncobjs and timelines. Point 0 stands for the binary fence in every function here.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Deadline, Error, Status, SyncFile};
use crate::Errno;
use crate::device::Device;
use crate::sys::process::Owner;
use crate::sys::{poll, syncobj};

/// The longest that one ioctl waits. If a device is unplugged before the point was submitted, nothing wakes
/// the waiter, but the next ioctl is refused.
const SLICE: Duration = Duration::from_secs(1);

/// The binary fence of a syncobj, in place of a point.
const BINARY: u64 = 0;

/// Which kinds of syncobjs a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SyncobjSupport {
    /// None, as vgem and vkms.
    None,
    /// Binary ones.
    Binary,
    /// Timelines too.
    Timeline,
}

/// Which stage of a point to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The work is known: the point has a fence, which can be taken out as a sync_file.
    Submitted,
    /// The work is done.
    Signalled,
}

/// A DRM syncobj of a device: a place for one fence, or for a fence at each point of a timeline
/// (`drivers/gpu/drm/drm_syncobj.c`, Overview).
///
/// Points are growing numbers: once a point is signalled, so are all before it. Point 0 stands for the one
/// fence of a binary syncobj. Use a syncobj either as a binary one or as a timeline. Its handle belongs to
/// the device's file description, as a GEM handle does, and is closed on drop. Other devices and processes
/// get the same syncobj by [`export`](Self::export) and [`import`](Self::import), so that it can be signalled
/// on one and waited for on another.
///
/// Which syncobjs there are is found by trying: [`support`](Self::support). Thread-safe; clones are the
/// same handle.
#[derive(Clone)]
pub struct Syncobj(Arc<Inner>);

struct Inner {
    device: Device,
    handle: u32,
    owner: Owner,
}

impl Syncobj {
    /// A syncobj without a fence, at point 0 of its timeline. [`Error::NoSyncobj`] where the
    /// driver has none.
    pub fn new(device: &Device) -> Result<Self, Error> {
        Self::create(device, false)
    }

    /// A binary syncobj that is signalled.
    pub fn signalled(device: &Device) -> Result<Self, Error> {
        Self::create(device, true)
    }

    fn create(device: &Device, signalled: bool) -> Result<Self, Error> {
        let created = syncobj::create(device.as_fd(), signalled);
        Self::of(device, "SYNCOBJ_CREATE", created)
    }

    /// Which kinds of syncobjs the device has. Found by trying, with two or three ioctls.
    pub fn support(device: &Device) -> Result<SyncobjSupport, Error> {
        match Self::new(device).and_then(|syncobj| syncobj.signal(1)) {
            Ok(()) => Ok(SyncobjSupport::Timeline),
            Err(Error::NoTimeline { .. }) => Ok(SyncobjSupport::Binary),
            Err(Error::NoSyncobj { .. }) => Ok(SyncobjSupport::None),
            Err(error) => Err(error),
        }
    }

    /// The syncobj behind an fd of [`Self::export`], from this or another device or process.
    /// Borrows the fd.
    pub fn import(device: &Device, fd: impl AsFd) -> Result<Self, Error> {
        let imported = syncobj::fd_to_handle(device.as_fd(), fd.as_fd());
        Self::of(device, "SYNCOBJ_FD_TO_HANDLE", imported)
    }

    fn of(device: &Device, ioctl: &'static str, handle: Result<u32, Errno>) -> Result<Self, Error> {
        match handle {
            Ok(handle) => Ok(Self(Arc::new(Inner {
                device: device.clone(),
                handle,
                owner: Owner::current(),
            }))),
            Err(Errno::EOPNOTSUPP) => Err(Error::NoSyncobj {
                device: device.to_string(),
            }),
            Err(errno) => Err(failed(device, ioctl, errno)),
        }
    }

    /// An fd of the syncobj itself, close-on-exec, for [`Self::import`] or an interface such as
    /// `linux-drm-syncobj-v1`. It says nothing to an event loop.
    pub fn export(&self) -> Result<OwnedFd, Error> {
        let exported = syncobj::handle_to_fd(self.0.device.as_fd(), self.0.handle, false);
        self.check("SYNCOBJ_HANDLE_TO_FD", exported)
    }

    /// The device it is of.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Equal for clones, and for nothing else that lives: two imports of one fd are two handles.
    #[cfg(feature = "wayland")]
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The kernel's number for it on this file description, for an ioctl of a driver. It is valid
    /// while the `Syncobj` is alive; never destroy it.
    pub fn handle(&self) -> u32 {
        self.0.handle
    }

    /// Puts a fence at a point, or in the place of the binary fence (0). Does not wait. Whoever waits for the
    /// point waits for the fence from now on.
    pub fn import_sync_file(&self, point: u64, fence: &SyncFile) -> Result<(), Error> {
        if point != BINARY {
            // The kernel does this in one step, but only since Linux 6.16.
            let binary = Self::new(&self.0.device)?;
            binary.import_sync_file(BINARY, fence)?;
            return binary.transfer(BINARY, self, point);
        }
        let fd = self.0.device.as_fd();
        let imported = syncobj::import_sync_file(fd, self.0.handle, fence.as_fd());
        self.check("SYNCOBJ_FD_TO_HANDLE", imported)
    }

    /// The fence that is now at a point, or the binary fence (0). Does not wait: [`Error::NotSubmitted`] if
    /// there is none yet.
    pub fn export_sync_file(&self, point: u64) -> Result<SyncFile, Error> {
        if point != BINARY {
            let binary = Self::new(&self.0.device)?;
            self.transfer(point, &binary, BINARY)?;
            return binary.export_sync_file(BINARY);
        }
        match syncobj::handle_to_fd(self.0.device.as_fd(), self.0.handle, true) {
            Err(Errno::EINVAL) => Err(self.not_submitted(point)),
            exported => self
                .check("SYNCOBJ_HANDLE_TO_FD", exported)
                .map(SyncFile::of_kernel),
        }
    }

    /// Puts the fence of one of its points at a point of another syncobj of the same file
    /// description; 0 is the binary one of either. Does not wait: [`Error::NotSubmitted`] where
    /// there is no fence yet. Needs timelines.
    pub fn transfer(&self, point: u64, to: &Self, to_point: u64) -> Result<(), Error> {
        if !self.0.device.shares_handles_with(&to.0.device) {
            return Err(Error::OtherDevice {
                device: self.0.device.to_string(),
            });
        }
        let places = ((self.0.handle, point), (to.0.handle, to_point));
        match syncobj::transfer(self.0.device.as_fd(), places.0, places.1) {
            Err(Errno::EINVAL) => Err(self.not_submitted(point)),
            transferred => self.check("SYNCOBJ_TRANSFER", transferred),
        }
    }

    /// Signals a point from the CPU, and with it those before; or the binary fence (0).
    pub fn signal(&self, point: u64) -> Result<(), Error> {
        let fd = self.0.device.as_fd();
        if point == BINARY {
            self.check("SYNCOBJ_SIGNAL", syncobj::signal(fd, self.0.handle))
        } else {
            let signalled = syncobj::timeline_signal(fd, self.0.handle, point);
            self.check("SYNCOBJ_TIMELINE_SIGNAL", signalled)
        }
    }

    /// Removes all its fences. Waits that have begun still wait for them.
    pub fn reset(&self) -> Result<(), Error> {
        let reset = syncobj::reset(self.0.device.as_fd(), self.0.handle);
        self.check("SYNCOBJ_RESET", reset)
    }

    /// The last point of the timeline that has reached the stage. Does not wait.
    pub fn query(&self, stage: Stage) -> Result<u64, Error> {
        let submitted = stage == Stage::Submitted;
        let point = syncobj::query(self.0.device.as_fd(), self.0.handle, submitted);
        self.check("SYNCOBJ_QUERY", point)
    }

    /// Waits until a point, or the binary fence (0), has reached the stage. If need be, this also waits for
    /// the point to be submitted.
    ///
    /// [`Error::TimedOut`] if that has not happened at the deadline. [`Error::Lost`] within a second
    /// after the device was unplugged. [`Error::Failed`] if a binary fence was signalled with an error.
    /// A timeline does not remember the errors of its points: to learn of them, wait for
    /// [`Stage::Submitted`], and then for the fence of [`Self::export_sync_file`]. Signals do not end
    /// the wait.
    pub fn wait(
        &self,
        point: u64,
        stage: Stage,
        deadline: impl Into<Deadline>,
    ) -> Result<(), Error> {
        let deadline = deadline.into();
        loop {
            let left = deadline.left();
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            match self.wait_once(point, stage, slice) {
                Ok(()) => break,
                Err((_, Errno::ETIME)) if left.is_some_and(|left| left <= slice) => {
                    return Err(Error::TimedOut);
                }
                Err((_, Errno::ETIME)) => {}
                Err((ioctl, errno)) => return Err(self.failed(ioctl, errno)),
            }
        }
        if point != BINARY || stage == Stage::Submitted {
            return Ok(());
        }
        match self.export_sync_file(BINARY).map(|fence| fence.status()) {
            Ok(Ok(Status::Failed(errno))) => Err(Error::Failed { errno }),
            // The fence has been replaced or removed since.
            Ok(Ok(_)) | Err(Error::NotSubmitted { .. }) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(error),
        }
    }

    fn wait_once(
        &self,
        point: u64,
        stage: Stage,
        time: Duration,
    ) -> Result<(), (&'static str, Errno)> {
        let fd = self.0.device.as_fd();
        let until = syncobj::monotonic_ns()
            .map(|now| now.saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)))
            .map_err(|errno| ("clock_gettime", errno))?;
        // Drivers without timelines have only this first ioctl.
        if point == BINARY && stage == Stage::Signalled {
            syncobj::wait(fd, self.0.handle, until).map_err(|errno| ("SYNCOBJ_WAIT", errno))
        } else {
            let available = stage == Stage::Submitted;
            syncobj::timeline_wait(fd, self.0.handle, point, until, available)
                .map_err(|errno| ("SYNCOBJ_TIMELINE_WAIT", errno))
        }
    }

    /// Whether a point, or the binary fence (0), has reached the stage. Does not wait.
    pub fn has_come(&self, point: u64, stage: Stage) -> Result<bool, Error> {
        match self.wait_once(point, stage, Duration::ZERO) {
            Ok(()) => Ok(true),
            Err((_, Errno::ETIME)) => Ok(false),
            Err((ioctl, errno)) => Err(self.failed(ioctl, errno)),
        }
    }

    /// A new eventfd, close-on-exec and non-blocking, that is readable once a point, or the binary fence (0),
    /// has reached the stage. For event loops. The point need not be submitted yet.
    ///
    /// If the device is unplugged before, the eventfd may never be readable. Needs timelines and Linux 6.6
    /// ([`Error::Unsupported`] before).
    pub fn eventfd(&self, point: u64, stage: Stage) -> Result<OwnedFd, Error> {
        let eventfd = poll::event().map_err(|errno| Error::Poll { errno })?;
        self.notify(point, stage, &eventfd)?;
        Ok(eventfd.into())
    }

    /// As [`Self::eventfd`], for an eventfd of the caller's, which is borrowed: one is added to it.
    pub fn notify(&self, point: u64, stage: Stage, eventfd: impl AsFd) -> Result<(), Error> {
        const IOCTL: &str = "SYNCOBJ_EVENTFD";
        let (fd, available) = (self.0.device.as_fd(), stage == Stage::Submitted);
        match syncobj::eventfd(fd, self.0.handle, point, eventfd.as_fd(), available) {
            // What DRM says to ioctls that it does not know.
            Err(errno @ (Errno::EINVAL | Errno::ENOTTY)) => Err(Error::Unsupported {
                ioctl: IOCTL,
                errno,
            }),
            registered => self.check(IOCTL, registered),
        }
    }

    fn check<T>(&self, ioctl: &'static str, result: Result<T, Errno>) -> Result<T, Error> {
        result.map_err(|errno| self.failed(ioctl, errno))
    }

    fn failed(&self, ioctl: &'static str, errno: Errno) -> Error {
        match errno {
            Errno::EOPNOTSUPP => Error::NoTimeline {
                device: self.0.device.to_string(),
            },
            _ => failed(&self.0.device, ioctl, errno),
        }
    }

    fn not_submitted(&self, point: u64) -> Error {
        Error::NotSubmitted {
            device: self.0.device.to_string(),
            point,
        }
    }
}

/// The error for an errno. The kernel answers ENODEV to everything once the device was unplugged, and no
/// syncobj ioctl answers it otherwise.
fn failed(device: &Device, ioctl: &'static str, errno: Errno) -> Error {
    let device = device.to_string();
    match errno {
        Errno::ENODEV => Error::Lost { device },
        _ => Error::Syncobj {
            device,
            ioctl,
            errno,
        },
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            return;
        }
        match syncobj::destroy(self.device.as_fd(), self.handle) {
            // An unplugged device's handles are gone when its file description is closed.
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(errno) => log::error!("{}: SYNCOBJ_DESTROY: {errno}", self.device),
        }
    }
}

impl fmt::Debug for Syncobj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Syncobj({} on {})", self.0.handle, self.0.device)
    }
}
