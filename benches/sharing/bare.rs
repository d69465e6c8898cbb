//! The baselines: the same copies without the library around them.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use primeshare::DmaBuf;
use primeshare::vk::ash::{self, vk};
use primeshare::vk::{Device, Image, Transfer, Use, acquire};

/// vkCmdCopyImage and nothing else, in command buffers recorded once, with a fence each.
pub(crate) struct Copies {
    raw: ash::Device,
    pool: vk::CommandPool,
    slots: Vec<(vk::CommandBuffer, vk::Fence)>,
    next: usize,
    /// Used by the commands, so dropped after `drop` below has waited for them.
    _images: (Image, Image),
    device: Device,
}

impl Copies {
    pub(crate) fn new(
        device: &Device,
        from: &DmaBuf,
        to: &DmaBuf,
        in_flight: usize,
    ) -> Result<Self> {
        let images = (
            device.import_image(from, Use::Source)?,
            device.import_image(to, Use::Destination)?,
        );
        let raw = device.raw().clone();
        let slots_and_setup = in_flight as u32 + 1;
        // SAFETY: plain creation; everything is destroyed in `drop`. (A failure half-way ends
        // the benchmark, and with it the process.)
        let (pool, buffers, fences) = unsafe {
            let pool = raw.create_command_pool(
                &vk::CommandPoolCreateInfo::default().queue_family_index(device.queue_family()),
                None,
            )?;
            let buffers = raw.allocate_command_buffers(
                &vk::CommandBufferAllocateInfo::default()
                    .command_pool(pool)
                    .command_buffer_count(slots_and_setup),
            )?;
            let signaled = vk::FenceCreateInfo::default().flags(vk::FenceCreateFlags::SIGNALED);
            let fences = (0..in_flight)
                .map(|_| raw.create_fence(&signaled, None))
                .collect::<Result<Vec<_>, _>>()?;
            (pool, buffers, fences)
        };
        let (setup, buffers) = buffers.split_first().context("no command buffers")?;
        let begin = vk::CommandBufferBeginInfo::default();
        // SAFETY: the images are of the device; the images stay acquired, in their layouts, for
        // all copies.
        unsafe {
            raw.begin_command_buffer(*setup, &begin)?;
            acquire(
                *setup,
                &[
                    Transfer::image(&images.0, Use::Source),
                    Transfer::image(&images.1, Use::Destination),
                ],
            );
            raw.end_command_buffer(*setup)?;
            let setup = [*setup];
            let submission = [vk::SubmitInfo::default().command_buffers(&setup)];
            device
                .with_queue(|queue| raw.queue_submit(queue, &submission, vk::Fence::null()))??;
            for buffer in buffers {
                raw.begin_command_buffer(*buffer, &begin)?;
                record(&raw, *buffer, &images);
                raw.end_command_buffer(*buffer)?;
            }
        }
        Ok(Self {
            raw,
            pool,
            slots: buffers.iter().copied().zip(fences).collect(),
            next: 0,
            _images: images,
            device: device.clone(),
        })
    }

    pub(crate) fn run(&mut self, frames: u32) -> Result<()> {
        for _ in 0..frames {
            let (buffer, fence) = self.slots[self.next];
            self.next = (self.next + 1) % self.slots.len();
            let buffers = [buffer];
            let submission = [vk::SubmitInfo::default().command_buffers(&buffers)];
            // SAFETY: the fence was waited for, so the buffer is not being executed.
            unsafe {
                self.raw.wait_for_fences(&[fence], true, u64::MAX)?;
                self.raw.reset_fences(&[fence])?;
                self.device
                    .with_queue(|queue| self.raw.queue_submit(queue, &submission, fence))??;
            }
        }
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let fences: Vec<_> = self.slots.iter().map(|slot| slot.1).collect();
        // SAFETY: the fences are alive.
        unsafe { self.raw.wait_for_fences(&fences, true, u64::MAX)? };
        Ok(())
    }
}

unsafe fn record(raw: &ash::Device, commands: vk::CommandBuffer, images: &(Image, Image)) {
    let whole = vk::ImageSubresourceLayers::default()
        .aspect_mask(vk::ImageAspectFlags::COLOR)
        .layer_count(1);
    let region = vk::ImageCopy::default()
        .src_subresource(whole)
        .dst_subresource(whole)
        .extent(images.0.extent());
    // SAFETY: the caller's buffer is being recorded, and both images are of its device.
    unsafe {
        raw.cmd_copy_image(
            commands,
            images.0.raw(),
            vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            images.1.raw(),
            vk::ImageLayout::TRANSFER_DST_OPTIMAL,
            &[region],
        );
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let waited = self.wait();
        debug_assert!(waited.is_ok());
        // SAFETY: the copies are done; the buffers go with their pool.
        unsafe {
            for (_, fence) in &self.slots {
                self.raw.destroy_fence(*fence, None);
            }
            self.raw.destroy_command_pool(self.pool, None);
        }
    }
}

/// One thread's memcpy between mappings of both dma-bufs.
pub(crate) struct Memcpy {
    from: NonNull<u8>,
    to: NonNull<u8>,
    from_size: NonZeroUsize,
    to_size: NonZeroUsize,
    bytes: usize,
}

impl Memcpy {
    pub(crate) fn new(from: &DmaBuf, to: &DmaBuf) -> Result<Self> {
        let (from_map, from_size) = map(from)?;
        let (to_map, to_size) = map(to)?;
        let bytes = from.planes()[0].stride as usize * from.height() as usize;
        anyhow::ensure!(bytes <= from_size.get() && bytes <= to_size.get());
        Ok(Self {
            from: from_map,
            to: to_map,
            from_size,
            to_size,
            bytes,
        })
    }

    pub(crate) fn copy(&mut self) {
        // SAFETY: both mappings are at least this long (see `new`) and of different memory.
        unsafe {
            std::ptr::copy_nonoverlapping(self.from.as_ptr(), self.to.as_ptr(), self.bytes);
        }
    }
}

fn map(buffer: &DmaBuf) -> Result<(NonNull<u8>, NonZeroUsize)> {
    let object = &buffer.objects()[0];
    let size = NonZeroUsize::new(usize::try_from(object.size())?).context("an empty dma-buf")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
    let address = unsafe {
        mmap(
            None,
            size,
            protection,
            MapFlags::MAP_SHARED,
            object.as_fd(),
            0,
        )?
    };
    Ok((address.cast(), size))
}

impl Drop for Memcpy {
    fn drop(&mut self) {
        // SAFETY: the mappings made in `new`; nobody keeps their addresses.
        let unmapped = unsafe {
            munmap(self.from.cast(), self.from_size.get())
                .and(munmap(self.to.cast(), self.to_size.get()))
        };
        debug_assert!(unmapped.is_ok());
    }
}
