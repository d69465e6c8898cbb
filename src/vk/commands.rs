//! One command buffer with its fence.
//!
//! Nothing that the GPU may still use is destroyed: `unfinished.rs` keeps what a deadline left behind.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ash::vk;

use super::semaphore::{left, nanoseconds};
use super::unfinished::{DEADLINE, Unfinished};
use super::{Call, Device, Error, Point, Semaphore};
use crate::sync::{Deadline, SyncFile};

/// A command buffer that is recorded once and submitted as often as wanted, and the fence that
/// tells when it is done.
///
/// Drop waits for that, for 20 s at most. After that an error is logged, and nothing that the commands
/// may use is destroyed while they are executed: objects of the same device that are dropped meanwhile
/// are kept until the commands have ended, and leak with the device if they never do.
#[derive(Debug)]
pub struct Commands {
    device: Device,
    pool: vk::CommandPool,
    buffer: vk::CommandBuffer,
    fence: vk::Fence,
    submitted: bool,
    /// What the submission waits for and signals, kept until it is done.
    points: Vec<Point>,
    /// For sync files, used again and again.
    semaphores: Semaphores,
    /// Kept from submission to submission, so that it allocates nothing.
    after: Vec<Point>,
    lists: Lists,
}

/// Semaphores for sync files: those that come in, and the one that goes out.
#[derive(Debug, Default)]
struct Semaphores {
    waits: Vec<Semaphore>,
    done: Option<Semaphore>,
}

/// The lists that a submission points to, kept so that they are not allocated each time.
#[derive(Debug, Default)]
struct Lists {
    waits: Vec<vk::Semaphore>,
    wait_values: Vec<u64>,
    stages: Vec<vk::PipelineStageFlags>,
    signals: Vec<vk::Semaphore>,
    signal_values: Vec<u64>,
}

impl Lists {
    fn fill(&mut self, after: &[Point], signal: &[Point]) {
        let fill = |raw: &mut Vec<_>, values: &mut Vec<_>, points: &[Point]| {
            raw.clear();
            raw.extend(points.iter().map(Point::raw));
            values.clear();
            values.extend(points.iter().map(Point::value));
        };
        fill(&mut self.waits, &mut self.wait_values, after);
        fill(&mut self.signals, &mut self.signal_values, signal);
        self.stages.clear();
        self.stages
            .resize(after.len(), vk::PipelineStageFlags::ALL_COMMANDS);
    }
}

impl Commands {
    /// An empty command buffer for the device's queue.
    pub fn new(device: &Device) -> Result<Self, Error> {
        let raw = device.raw();
        // Handles are null until made, and destroying null does nothing, so an early return
        // leaves no more than there was.
        let mut commands = Self {
            device: device.clone(),
            pool: vk::CommandPool::null(),
            buffer: vk::CommandBuffer::null(),
            fence: vk::Fence::null(),
            submitted: false,
            points: Vec::new(),
            semaphores: Semaphores::default(),
            after: Vec::new(),
            lists: Lists::default(),
        };
        let pool = vk::CommandPoolCreateInfo::default().queue_family_index(device.queue_family());
        // SAFETY: the family is the device's; each structure lives until its call returns.
        unsafe {
            commands.pool = raw
                .create_command_pool(&pool, None)
                .map_err(device.failed(Call::CreateCommandPool))?;
            let buffers = vk::CommandBufferAllocateInfo::default()
                .command_pool(commands.pool)
                .command_buffer_count(1);
            let buffers = raw
                .allocate_command_buffers(&buffers)
                .map_err(device.failed(Call::AllocateCommandBuffers))?;
            commands.buffer = buffers.first().copied().unwrap_or_default();
            commands.fence = raw
                .create_fence(&vk::FenceCreateInfo::default(), None)
                .map_err(device.failed(Call::CreateFence))?;
        }
        Ok(commands)
    }

    /// Records anew what `record` puts into the command buffer. [`Error::Busy`] while it is being
    /// executed.
    ///
    /// # Safety
    /// What is recorded must be valid on this device, and what it uses must outlive its execution.
    pub unsafe fn record(
        &mut self,
        record: impl FnOnce(&ash::Device, vk::CommandBuffer),
    ) -> Result<(), Error> {
        if !self.is_done()? {
            return Err(Error::Busy);
        }
        let raw = self.device.raw();
        // SAFETY: the pool's only buffer is not being executed.
        unsafe {
            raw.reset_command_pool(self.pool, vk::CommandPoolResetFlags::empty())
                .map_err(self.device.failed(Call::ResetCommandPool))?;
            raw.begin_command_buffer(self.buffer, &vk::CommandBufferBeginInfo::default())
                .map_err(self.device.failed(Call::BeginCommandBuffer))?;
            record(raw, self.buffer);
            raw.end_command_buffer(self.buffer)
                .map_err(self.device.failed(Call::EndCommandBuffer))
        }
    }

    /// Submits what was recorded. Returns at once. [`Error::Busy`] while the submission before is
    /// being executed.
    ///
    /// # Safety
    /// Something has been recorded, and all it uses is alive until it is done.
    pub unsafe fn submit(&mut self) -> Result<(), Error> {
        // SAFETY: as the caller promises.
        unsafe { self.submit_with(&[], &[]) }
    }

    /// As [`Self::submit`], to be executed after the first points and to signal the second ones.
    /// They are kept until then.
    ///
    /// # Safety
    /// As for [`Self::submit`]. Points are of the same device; binary ones to wait for are
    /// signalled or about to be, by a submission made before, and nothing else waits for them;
    /// those to signal are unsignalled, or a value not reached by then
    /// (VUID-vkQueueSubmit-pWaitSemaphores-03238, -pSignalSemaphores-00067,
    /// VUID-VkSubmitInfo-pSignalSemaphores-03242).
    pub unsafe fn submit_with(&mut self, after: &[Point], signal: &[Point]) -> Result<(), Error> {
        if !self.is_done()? {
            return Err(Error::Busy);
        }
        self.lists.fill(after, signal);
        let lists = &self.lists;
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&lists.wait_values)
            .signal_semaphore_values(&lists.signal_values);
        let buffers = [self.buffer];
        let mut submission = vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .wait_semaphores(&lists.waits)
            .wait_dst_stage_mask(&lists.stages)
            .signal_semaphores(&lists.signals);
        if after.iter().chain(signal).any(Point::is_timeline) {
            submission = submission.push_next(&mut timeline);
        }
        // SAFETY: the fence is not in use, and the queue is locked for the call; the rest is as
        // the caller promises.
        unsafe {
            let raw = self.device.raw();
            raw.reset_fences(&[self.fence])
                .map_err(self.device.failed(Call::ResetFences))?;
            self.device
                .with_queue(|queue| raw.queue_submit(queue, &[submission], self.fence))?
                .map_err(self.device.failed(Call::QueueSubmit))?;
        }
        self.submitted = true;
        self.points.clear();
        self.points.extend(after.iter().chain(signal).cloned());
        Ok(())
    }

    /// As [`Self::submit`], to be executed after these sync files, and with a sync file that is
    /// signalled when it is done; `None` where it is already.
    ///
    /// Where the sync file cannot be had (vkGetSemaphoreFdKHR,
    /// for lack of fds), the work is submitted all the same: [`Self::is_done`] tells. lavapipe, up
    /// to 26.1 at least, gives a sync file only when it is signalled, and so waits here.
    ///
    /// # Safety
    /// As for [`Self::submit`]. On a queue of the host program's, what was submitted before must
    /// not wait for what is yet to be (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254).
    pub unsafe fn submit_after(
        &mut self,
        files: impl IntoIterator<Item = SyncFile>,
    ) -> Result<Option<SyncFile>, Error> {
        // SAFETY: as the caller promises.
        unsafe {
            self.start_after(files.into_iter().map(OwnedFd::from))?;
            Ok(self.sync_file()?.map(SyncFile::of_kernel))
        }
    }

    /// The first half of [`Self::submit_after`]. After an error nothing was submitted.
    ///
    /// # Safety
    /// As for that.
    pub(crate) unsafe fn start_after(
        &mut self,
        files: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(), Error> {
        if !self.is_done()? {
            return Err(Error::Busy);
        }
        let (waits, after) = self.semaphores_for(files)?;
        let done = match self.semaphores.done.take() {
            Some(known) => known,
            None => Semaphore::new(&self.device)?,
        };
        // SAFETY: imported semaphores are signalled or about to be, and no submission is pending
        // that uses them; so is `done`, which nothing waits for, and which its export has reset.
        unsafe { self.submit_with(&after, &[Point::Binary(done.clone())])? };
        self.after = after;
        self.semaphores = Semaphores {
            waits,
            done: Some(done),
        };
        Ok(())
    }

    /// As [`Self::submit`], to be executed after these sync files.
    ///
    /// # Safety
    /// As for [`Self::submit`].
    pub(crate) unsafe fn submit_behind(
        &mut self,
        files: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(), Error> {
        if !self.is_done()? {
            return Err(Error::Busy);
        }
        let (waits, after) = self.semaphores_for(files)?;
        // SAFETY: imported semaphores are signalled or about to be, and nothing else waits for them.
        unsafe { self.submit_with(&after, &[])? };
        self.after = after;
        self.semaphores.waits = waits;
        Ok(())
    }

    /// The semaphores of these sync files, as points to wait for. The caller gives them back after the
    /// submission. If it fails before, their state is unknown, so they are dropped and made anew.
    fn semaphores_for(
        &mut self,
        files: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(Vec<Semaphore>, Vec<Point>), Error> {
        let mut waits = std::mem::take(&mut self.semaphores.waits);
        let mut after = std::mem::take(&mut self.after);
        after.clear();
        for (index, file) in files.into_iter().enumerate() {
            match waits.get(index) {
                Some(known) => known.replace(Some(file))?,
                None => waits.push(Semaphore::from_fd(&self.device, Some(file))?),
            }
            after.push(Point::Binary(waits[index].clone()));
        }
        Ok((waits, after))
    }

    /// The second half of [`Self::submit_after`]. To be called at most once for each submission.
    ///
    /// # Safety
    /// As for [`Self::submit_after`], after [`Self::start_after`] has succeeded.
    pub(crate) unsafe fn sync_file(&mut self) -> Result<Option<OwnedFd>, Error> {
        let Some(done) = self.semaphores.done.take() else {
            return Ok(None);
        };
        // SAFETY: the submission that signals it has been made.
        let file = unsafe { done.export()? }.map(OwnedFd::from);
        self.semaphores.done = Some(done);
        Ok(file)
    }

    /// Whether nothing submitted is being executed. Does not wait.
    pub fn is_done(&mut self) -> Result<bool, Error> {
        if self.submitted {
            // SAFETY: the fence is alive.
            let done = unsafe { self.device.raw().get_fence_status(self.fence) };
            self.submitted = !done.map_err(self.device.failed(Call::GetFenceStatus))?;
            if !self.submitted {
                self.points.clear();
            }
        }
        Ok(!self.submitted)
    }

    /// Leaves a submission to itself instead of waiting for it, and keeps what it uses.
    pub(crate) fn abandon(mut self, why: &Error) {
        if self.submitted {
            self.leave(why);
            self.submitted = false;
            (self.pool, self.fence) = Default::default();
        }
    }

    fn leave(&mut self, why: &Error) {
        log::error!("{why}: what the work may use is kept");
        self.device.unfinished().add(Unfinished {
            device: self.device.clone(),
            pool: self.pool,
            fence: self.fence,
            _points: std::mem::take(&mut self.points),
        });
    }

    /// As [`Self::wait`], but goes on after a transient lack of memory. Ends if the device is lost, which
    /// executes nothing any more.
    fn wait_to_the_end(&mut self, timeout: Duration) -> Result<(), Error> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.wait_for(left) {
                Err(error) if error.is_device_lost() => return Ok(()),
                Err(error) if left.is_zero() => return Err(error),
                Err(Error::Timeout { device, .. }) => {
                    return Err(Error::Timeout {
                        device,
                        milliseconds: timeout.as_millis(),
                    });
                }
                Err(error) => log::warn!("{error}"),
                Ok(()) => return Ok(()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing submitted is being executed. [`Error::Timeout`] at the deadline: it goes on then.
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        self.wait_for(left(deadline.into()))
    }

    /// As [`Self::wait`], without asking for the time.
    pub(crate) fn wait_for(&mut self, timeout: Duration) -> Result<(), Error> {
        if self.submitted {
            // SAFETY: the fence is alive.
            unsafe {
                self.device
                    .raw()
                    .wait_for_fences(&[self.fence], true, nanoseconds(timeout))
                    .map_err(|result| self.device.waited(Call::WaitForFences, timeout, result))?;
            }
            self.submitted = false;
            self.points.clear();
        }
        Ok(())
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if !self.device.is_here() {
            return;
        }
        match self.wait_to_the_end(DEADLINE) {
            // SAFETY: nothing is being executed; the buffer goes with its pool.
            Ok(()) => unsafe {
                self.device.raw().destroy_fence(self.fence, None);
                self.device.raw().destroy_command_pool(self.pool, None);
            },
            Err(error) => self.leave(&error),
        }
    }
}
