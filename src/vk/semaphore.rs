//! Semaphores that come from, and go as, sync files; and timelines.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use super::{Call, Device, Error, Feature, quirks};
use crate::sync::{Deadline, SyncFile};
use crate::sys::{self, poll, sync_file};

const SEMAPHORE_FD: vk::ExternalSemaphoreHandleTypeFlags =
    vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;

/// A binary semaphore. Cheap to clone; destroyed with the last clone, which submissions keep.
#[derive(Clone, Debug)]
pub struct Semaphore(Arc<Raw>);

/// A timeline semaphore. Cheap to clone; destroyed with the last clone, which submissions keep.
#[derive(Clone, Debug)]
pub struct Timeline(Arc<Raw>);

#[derive(Debug)]
struct Raw {
    device: Device,
    semaphore: vk::Semaphore,
}

impl Drop for Raw {
    fn drop(&mut self) {
        let handle = self.semaphore;
        self.device.destroy(move |raw| {
            // SAFETY: submissions hold it until they are done, so nothing uses it any more.
            unsafe { raw.destroy_semaphore(handle, None) }
        });
    }
}

fn create(device: &Device, info: &vk::SemaphoreCreateInfo<'_>) -> Result<Arc<Raw>, Error> {
    // SAFETY: `info` lives until the call returns.
    let semaphore = unsafe { device.raw().create_semaphore(info, None) }
        .map_err(device.failed(Call::CreateSemaphore))?;
    Ok(Arc::new(Raw {
        device: device.clone(),
        semaphore,
    }))
}

impl Semaphore {
    /// An unsignalled semaphore, whose signal can be exported.
    pub fn new(device: &Device) -> Result<Self, Error> {
        device.require(Feature::SyncFdSemaphores)?;
        let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(SEMAPHORE_FD);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut export);
        create(device, &info).map(Self)
    }

    /// A semaphore that is signalled when the sync file is; `None` is signalled already, which is
    /// -1 in Vulkan. To be waited for once.
    ///
    /// [`Error::PendingSyncFile`] for one that is not signalled yet, if the driver would wait for it in
    /// vkQueueSubmit: see [`Device::takes_pending_sync_files`].
    pub fn from_sync_file(device: &Device, file: Option<SyncFile>) -> Result<Self, Error> {
        Self::from_fd(device, file.map(OwnedFd::from))
    }

    /// As [`Self::from_sync_file`]. [`Error::NotASyncFile`] for any other file, which drivers need not
    /// tell: lavapipe takes them all.
    pub(super) fn from_fd(device: &Device, file: Option<OwnedFd>) -> Result<Self, Error> {
        device.require(Feature::SyncFdSemaphores)?;
        let semaphore = create(device, &vk::SemaphoreCreateInfo::default()).map(Self)?;
        semaphore.replace(file)?;
        Ok(semaphore)
    }

    /// Makes it signalled, for one wait, when the sync file is; before that wait and after it the
    /// semaphore is what it was. As [`Self::from_fd`] otherwise.
    ///
    /// Not while a submission that waits for it is pending, which callers see to.
    pub(super) fn replace(&self, file: Option<OwnedFd>) -> Result<(), Error> {
        check(&file)?;
        let device = &self.0.device;
        if quirks::waits_in_submissions(device.physical()) && is_pending(&file)? {
            return Err(Error::PendingSyncFile {
                device: device.physical().name().to_owned(),
            });
        }
        // VUID-VkImportSemaphoreFdInfoKHR-handleType-07307: the temporary kind only.
        let info = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(self.raw())
            .flags(vk::SemaphoreImportFlags::TEMPORARY)
            .handle_type(SEMAPHORE_FD)
            .fd(number(&file));
        // SAFETY: the semaphore is alive and not in use; the fd is ours to give, or -1.
        unsafe { device.functions().semaphore_fd.import_semaphore_fd(&info) }
            .map_err(device.failed(Call::ImportSemaphoreFd))?;
        given(file);
        Ok(())
    }

    /// The sync file of the semaphore's pending signal; `None` where that has happened already and
    /// the driver says so by -1. The semaphore is unsignalled afterwards, as by a wait.
    ///
    /// # Safety
    /// The semaphore is signalled, or a submission that signals it has been made, and nothing
    /// waits for it (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254 and -01135).
    pub unsafe fn export(&self) -> Result<Option<SyncFile>, Error> {
        let device = &self.0.device;
        let info = vk::SemaphoreGetFdInfoKHR::default()
            .semaphore(self.raw())
            .handle_type(SEMAPHORE_FD);
        // SAFETY: as the caller promises.
        let fd = unsafe { device.functions().semaphore_fd.get_semaphore_fd(&info) }
            .map_err(device.failed(Call::GetSemaphoreFd))?;
        taken(device, fd)
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::Semaphore {
        self.0.semaphore
    }
}

impl Timeline {
    /// A timeline at `value`.
    pub fn new(device: &Device, value: u64) -> Result<Self, Error> {
        device.require(Feature::Timeline)?;
        let mut kind = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(value);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        create(device, &info).map(Self)
    }

    /// The point it has reached.
    pub fn value(&self) -> Result<u64, Error> {
        let device = &self.0.device;
        let ask = device.functions().timeline.get_semaphore_counter_value_khr;
        let mut value = 0;
        // SAFETY: the semaphore is a timeline, of a device that has them.
        unsafe { ask(device.raw().handle(), self.raw(), &mut value) }
            .result()
            .map_err(device.failed(Call::GetSemaphoreCounterValue))?;
        Ok(value)
    }

    /// Moves it on to `value`, from the CPU.
    ///
    /// # Safety
    /// It has not reached that value, and no pending submission signals that or a lower one
    /// (VUID-VkSemaphoreSignalInfo-value-03258 to -03260).
    pub unsafe fn signal(&self, value: u64) -> Result<(), Error> {
        let device = &self.0.device;
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.raw())
            .value(value);
        // SAFETY: as the caller promises.
        unsafe { (device.functions().timeline.signal_semaphore_khr)(device.raw().handle(), &info) }
            .result()
            .map_err(device.failed(Call::SignalSemaphore))
    }

    /// Waits until it has reached `value`. [`Error::Timeout`] if it has not at the deadline.
    pub fn wait(&self, value: u64, deadline: impl Into<Deadline>) -> Result<(), Error> {
        let timeout = left(deadline.into());
        let device = &self.0.device;
        let (semaphores, values) = ([self.raw()], [value]);
        let info = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        let wait = device.functions().timeline.wait_semaphores_khr;
        // SAFETY: the semaphore is a timeline, of a device that has them.
        unsafe { wait(device.raw().handle(), &info, nanoseconds(timeout)) }
            .result()
            .map_err(|result| device.waited(Call::WaitSemaphores, timeout, result))
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::Semaphore {
        self.0.semaphore
    }
}

/// Something that a submission waits for or signals.
#[derive(Clone, Debug)]
pub enum Point {
    /// A binary semaphore.
    Binary(Semaphore),
    /// A value of a timeline.
    Timeline(Timeline, u64),
}

impl Point {
    pub(super) fn raw(&self) -> vk::Semaphore {
        match self {
            Self::Binary(semaphore) => semaphore.raw(),
            Self::Timeline(timeline, _) => timeline.raw(),
        }
    }

    /// Passed over for binary ones.
    pub(super) fn value(&self) -> u64 {
        match self {
            Self::Binary(_) => 0,
            Self::Timeline(_, value) => *value,
        }
    }

    pub(super) fn is_timeline(&self) -> bool {
        matches!(self, Self::Timeline(..))
    }
}

/// What Vulkan takes for ever is the longest time it knows.
pub(super) fn left(deadline: Deadline) -> Duration {
    deadline.left().unwrap_or(Duration::MAX)
}

pub(super) fn nanoseconds(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
}

impl Device {
    /// Whether submissions may wait for sync files that are not signalled yet, without the caller
    /// waiting too. If not, wait for them (poll) before submitting.
    pub fn takes_pending_sync_files(&self) -> bool {
        self.capabilities().has(Feature::SyncFdSemaphores)
            && !quirks::waits_in_submissions(self.physical())
    }

    /// The error of a wait that failed or ran out of time.
    pub(super) fn waited(&self, call: Call, timeout: Duration, result: vk::Result) -> Error {
        match result {
            vk::Result::TIMEOUT => Error::Timeout {
                device: self.physical().name().to_owned(),
                // A deadline has come nearer since it was set.
                milliseconds: timeout.as_nanos().div_ceil(1_000_000),
            },
            result => self.failed(call)(result),
        }
    }
}

fn check(file: &Option<OwnedFd>) -> Result<(), Error> {
    let checked = file
        .as_ref()
        .map_or(Ok(()), |file| sync_file::check(file.as_fd()));
    checked.map_err(Error::NotASyncFile)
}

fn is_pending(file: &Option<OwnedFd>) -> Result<bool, Error> {
    let Some(file) = file else {
        return Ok(false);
    };
    let ready =
        sys::uninterrupted(|| poll::wait(file.as_fd(), poll::Event::In, Some(Duration::ZERO)));
    Ok(!ready.map_err(Error::NotASyncFile)?)
}

fn number(file: &Option<OwnedFd>) -> i32 {
    file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}

/// After a successful import the fd is the driver's.
fn given(file: Option<OwnedFd>) {
    let _ = file.map(IntoRawFd::into_raw_fd);
}

/// A driver's export, in a file description of its own.
fn taken(device: &Device, fd: i32) -> Result<Option<SyncFile>, Error> {
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: the export succeeded, so this is a new fd that nobody else knows.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if quirks::shares_sync_files(device.physical())
        && let Ok(own) = sync_file::merge(fd.as_fd(), fd.as_fd())
    {
        return Ok(Some(SyncFile::of_kernel(own)));
    }
    super::memory::close_on_exec(&fd)?;
    Ok(Some(SyncFile::of_kernel(fd)))
}
