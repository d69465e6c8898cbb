//! Copies between shared buffers on a GPU.
//!
//! So far one way: a Vulkan device imports both buffers and copies image to image. With the
//! destination's device that is a direct pull, with the source's a direct push.

use std::time::Duration;

use ash::vk as ash_vk;

use crate::buffer::{DmaBuf, Fourcc};
use crate::vk::{self, Commands, Device, Image, Use};

/// Why a copy cannot be made or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pictures are not of one size.
    #[error("the source is {source_width}x{source_height}, the destination {width}x{height}")]
    Size {
        /// Width of the source in pixels.
        source_width: u32,
        /// Height of the source in pixels.
        source_height: u32,
        /// Width of the destination in pixels.
        width: u32,
        /// Height of the destination in pixels.
        height: u32,
    },
    /// The pixels differ in memory, so that a copy would not be the same picture.
    #[error("{from} cannot be copied to {to} as it is")]
    Format {
        /// Format of the source.
        from: Fourcc,
        /// Format of the destination.
        to: Fourcc,
    },
    /// The device does not take the source.
    #[error("source: {0}")]
    Source(#[source] vk::Error),
    /// The device does not take the destination.
    #[error("destination: {0}")]
    Destination(#[source] vk::Error),
    /// The copy could not be recorded, submitted or waited for.
    #[error(transparent)]
    Commands(#[from] vk::Error),
    /// As many copies as were asked for are in flight: wait for one.
    #[error("all {0} copies are in flight")]
    Busy(usize),
}

/// A copy from one shared buffer to another, prepared once and made as often as wanted.
///
/// The copies of one `Blit` happen in the order of their submission. Drop waits for those in
/// flight.
#[derive(Debug)]
pub struct Blit {
    /// Before the images, which they use: fields are dropped in order.
    slots: Vec<Commands>,
    next: usize,
    source: Image,
    destination: Image,
}

impl Blit {
    /// Imports both buffers into `device` and records the copy, for up to `in_flight` (at least
    /// one) copies at a time.
    pub fn new(
        device: &Device,
        source: &DmaBuf,
        destination: &DmaBuf,
        in_flight: usize,
    ) -> Result<Self, Error> {
        check(source, destination)?;
        let source = device
            .import_image(source, Use::Source)
            .map_err(Error::Source)?;
        let destination = device
            .import_image(destination, Use::Destination)
            .map_err(Error::Destination)?;
        let slots = (0..in_flight.max(1))
            .map(|_| {
                let mut commands = Commands::new(device)?;
                // SAFETY: the images are of this device, and outlive the commands as fields.
                unsafe {
                    commands.record(|raw, buffer| record(raw, buffer, &source, &destination))?;
                }
                Ok(commands)
            })
            .collect::<Result<_, vk::Error>>()?;
        Ok(Self {
            slots,
            next: 0,
            source,
            destination,
        })
    }

    /// The imported images: source and destination.
    pub fn images(&self) -> (&Image, &Image) {
        (&self.source, &self.destination)
    }

    /// Starts a copy and returns at once. [`Error::Busy`] while all slots are in flight.
    pub fn submit(&mut self) -> Result<(), Error> {
        let in_flight = self.slots.len();
        // SAFETY: the slot was recorded in `new`, and what it uses are fields of `self`.
        match unsafe { self.slots[self.next].submit() } {
            Err(vk::Error::Busy) => return Err(Error::Busy(in_flight)),
            submitted => submitted?,
        }
        self.next = (self.next + 1) % in_flight;
        Ok(())
    }

    /// Waits until another copy can be submitted: for the oldest in flight, if all are.
    pub fn wait_for_slot(&mut self, timeout: Duration) -> Result<(), Error> {
        Ok(self.slots[self.next].wait(timeout)?)
    }

    /// Waits until all copies are made, for up to `timeout` each.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        for slot in &mut self.slots {
            slot.wait(timeout)?;
        }
        Ok(())
    }
}

fn check(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    let size = |buffer: &DmaBuf| (buffer.width(), buffer.height());
    if size(source) != size(destination) {
        return Err(Error::Size {
            source_width: source.width(),
            source_height: source.height(),
            width: destination.width(),
            height: destination.height(),
        });
    }
    let (from, to) = (source.fourcc(), destination.fourcc());
    if vk::format_of(from) != vk::format_of(to) {
        return Err(Error::Format { from, to });
    }
    Ok(())
}

/// # Safety
/// As for [`Commands::record`].
unsafe fn record(
    raw: &ash::Device,
    commands: ash_vk::CommandBuffer,
    source: &Image,
    destination: &Image,
) {
    let whole = ash_vk::ImageSubresourceLayers::default()
        .aspect_mask(ash_vk::ImageAspectFlags::COLOR)
        .layer_count(1);
    let region = ash_vk::ImageCopy::default()
        .src_subresource(whole)
        .dst_subresource(whole)
        .extent(source.extent());
    // SAFETY: the caller promises valid images and commands; `check` made the extents equal.
    unsafe {
        vk::acquire(commands, [source, destination]);
        raw.cmd_copy_image(
            commands,
            source.raw(),
            source.used_as().layout(),
            destination.raw(),
            destination.used_as().layout(),
            &[region],
        );
        vk::release(commands, [source, destination]);
    }
}
