use std::time::Duration;

use ash::vk;

use super::{Call, Device, Error};

/// A command buffer that is recorded once and submitted as often as wanted, and the fence that
/// tells when it is done. Waits for that on drop.
#[derive(Debug)]
pub struct Commands {
    device: Device,
    pool: vk::CommandPool,
    buffer: vk::CommandBuffer,
    fence: vk::Fence,
    submitted: bool,
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
        if !self.is_done()? {
            return Err(Error::Busy);
        }
        let buffers = [self.buffer];
        let submission = [vk::SubmitInfo::default().command_buffers(&buffers)];
        // SAFETY: the fence is not in use, and the queue is locked for the call.
        unsafe {
            let raw = self.device.raw();
            raw.reset_fences(&[self.fence])
                .map_err(self.device.failed(Call::ResetFences))?;
            raw.queue_submit(*self.device.queue(), &submission, self.fence)
                .map_err(self.device.failed(Call::QueueSubmit))?;
        }
        self.submitted = true;
        Ok(())
    }

    /// Whether nothing submitted is being executed. Does not wait.
    pub fn is_done(&mut self) -> Result<bool, Error> {
        if self.submitted {
            // SAFETY: the fence is alive.
            let done = unsafe { self.device.raw().get_fence_status(self.fence) };
            self.submitted = !done.map_err(self.device.failed(Call::GetFenceStatus))?;
        }
        Ok(!self.submitted)
    }

    /// Waits until nothing submitted is being executed, for as long as `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        if self.submitted {
            let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            // SAFETY: the fence is alive.
            unsafe {
                self.device
                    .raw()
                    .wait_for_fences(&[self.fence], true, nanoseconds)
                    .map_err(|result| match result {
                        vk::Result::TIMEOUT => Error::Timeout {
                            device: self.device.physical().name().to_owned(),
                            milliseconds: timeout.as_millis(),
                        },
                        result => self.device.failed(Call::WaitForFences)(result),
                    })?;
            }
            self.submitted = false;
        }
        Ok(())
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // What is being executed must not be destroyed, so there is no way on but waiting. A lost
        // device executes nothing any more; other failures are a lack of memory, and pass.
        while let Err(error) = self.wait(Duration::MAX) {
            log::error!("{error}");
            if matches!(
                error,
                Error::Call {
                    result: vk::Result::ERROR_DEVICE_LOST,
                    ..
                }
            ) {
                break;
            }
            std::thread::yield_now();
        }
        // SAFETY: nothing is being executed; the buffer goes with its pool.
        unsafe {
            self.device.raw().destroy_fence(self.fence, None);
            self.device.raw().destroy_command_pool(self.pool, None);
        }
    }
}
