//! Copies and blits between two images, for the blitter.

use std::os::fd::OwnedFd;

use ash::vk;

use super::{Commands, Device, Error, Image, Transfer, Use, acquire, format_of, query, release};
use crate::sync::Deadline;

/// A copy of one image to another of the same size and format, recorded once and made as often as
/// wanted. Drop waits for the copies in flight.
#[derive(Debug)]
pub(crate) struct ImageCopy {
    /// Before the images, which they use: fields are dropped in order.
    slots: Vec<Commands>,
    next: usize,
    source: Image,
    destination: Image,
}

impl ImageCopy {
    /// Images of one plane, imported for this, of different memory; for up to `in_flight` (at
    /// least one) copies at a time.
    pub(crate) fn new(
        device: &Device,
        source: Image,
        destination: Image,
        in_flight: usize,
    ) -> Result<Self, Error> {
        let slots = (0..in_flight.max(1))
            .map(|_| {
                let mut commands = Commands::new(device)?;
                // SAFETY: the images are of this device, and outlive the commands as fields.
                unsafe {
                    commands.record(|raw, buffer| record(raw, buffer, &source, &destination))?;
                }
                Ok(commands)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            slots,
            next: 0,
            source,
            destination,
        })
    }

    pub(crate) fn images(&self) -> (&Image, &Image) {
        (&self.source, &self.destination)
    }

    /// Whether a copy can be given sync files that are not signalled yet.
    pub(crate) fn takes_pending_sync_files(&self) -> bool {
        self.source.device.takes_pending_sync_files()
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Starts a copy, to be executed after these sync files, and returns at once. [`Error::Busy`] while
    /// all slots are in flight.
    pub(crate) fn submit(&mut self, after: impl IntoIterator<Item = OwnedFd>) -> Result<(), Error> {
        // SAFETY: the slot was recorded in `new`, and what it uses are fields of `self`.
        unsafe { self.slots[self.next].submit_behind(after)? };
        self.next = (self.next + 1) % self.slots.len();
        Ok(())
    }

    /// Whether all copies are made. Does not wait.
    pub(crate) fn is_done(&mut self) -> Result<bool, Error> {
        for slot in &mut self.slots {
            if !slot.is_done()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for the oldest copy if all slots are in flight.
    pub(crate) fn wait_for_slot(&mut self, deadline: Deadline) -> Result<(), Error> {
        self.slots[self.next].wait(deadline)
    }

    /// Waits until all copies are made.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), Error> {
        // The newest first: a fence covers all that was submitted before it, so the others are
        // found signalled, and waiting for them costs nothing.
        let (newer, older) = self.slots.split_at_mut(self.next);
        let newest_first = newer.iter_mut().rev().chain(older.iter_mut().rev());
        newest_first
            .into_iter()
            .try_for_each(|slot| slot.wait(deadline))
    }
}

/// # Safety
/// As for [`Commands::record`].
unsafe fn record(
    raw: &ash::Device,
    commands: vk::CommandBuffer,
    source: &Image,
    destination: &Image,
) {
    let transfers = [
        Transfer::image(source, Use::Source),
        Transfer::image(destination, Use::Destination),
    ];
    let whole = vk::ImageSubresourceLayers::default()
        .aspect_mask(vk::ImageAspectFlags::COLOR)
        .layer_count(1);
    let region = vk::ImageCopy::default()
        .src_subresource(whole)
        .dst_subresource(whole)
        .extent(source.extent());
    // SAFETY: the caller promises valid images, of one size, and commands.
    unsafe {
        acquire(commands, &transfers);
        raw.cmd_copy_image(
            commands,
            source.raw(),
            Use::Source.layout(),
            destination.raw(),
            Use::Destination.layout(),
            &[region],
        );
        release(commands, &transfers);
    }
}

impl Image {
    /// Whether this image can be blitted to the other: their formats and modifiers allow it.
    ///
    /// `queue`: VUID-vkCmdBlitImage-commandBuffer-cmdpool wants one for graphics. `filter`: linear ones
    /// are not for all formats (VUID-vkCmdBlitImage-filter-02001).
    pub(crate) fn require_blit(
        &self,
        destination: &Image,
        queue: vk::QueueFlags,
        filter: vk::Filter,
    ) -> Result<(), Error> {
        let mut read = vk::FormatFeatureFlags::BLIT_SRC;
        if filter == vk::Filter::LINEAR {
            read |= vk::FormatFeatureFlags::SAMPLED_IMAGE_FILTER_LINEAR;
        }
        let draws = queue.contains(vk::QueueFlags::GRAPHICS);
        let ends = [
            (self, read),
            (destination, vk::FormatFeatureFlags::BLIT_DST),
        ];
        for (image, feature) in ends {
            let modifier = image.desc().modifier;
            let listed = query::modifiers(&image.device, image.format());
            let able = listed.iter().any(|properties| {
                properties.drm_format_modifier == modifier.0
                    && properties
                        .drm_format_modifier_tiling_features
                        .contains(feature)
            });
            // Blits go by the components' names, which must then be the right ones.
            let in_order = format_of(image.desc().fourcc).is_some_and(|f| f.in_order());
            if !able || !in_order || !draws {
                return Err(Error::Blit {
                    device: image.device.physical().name().to_owned(),
                    fourcc: image.desc().fourcc,
                    modifier,
                });
            }
        }
        Ok(())
    }
}
