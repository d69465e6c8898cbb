//! Copies between shared buffers on a GPU.
//!
//! So far one way: a Vulkan device imports both buffers and copies image to image. With the
//! destination's device that is a direct pull, with the source's a direct push.

use std::time::Duration;

use crate::buffer::{DmaBuf, FormatInfo, Fourcc};
use crate::vk::{self, Device, Image, ImageCopy, Use};

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
    /// Formats of several planes are not copied yet.
    #[error("{0} has several planes, which are not copied")]
    Planar(Fourcc),
    /// Source and destination share memory.
    #[error("source and destination are in the same dma-buf")]
    SameBuffer,
    /// The device does not take the source.
    #[error("source: {0}")]
    Source(vk::Error),
    /// The device does not take the destination.
    #[error("destination: {0}")]
    Destination(vk::Error),
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
/// flight. Nothing orders them with what others do to the buffers: wait for a writer of the source
/// before [`Self::submit`], and for the copy before the destination is used. (A fence in the
/// dma-buf is neither waited for nor left.)
#[derive(Debug)]
pub struct Blit {
    copy: ImageCopy,
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
        Ok(Self {
            copy: ImageCopy::new(device, source, destination, in_flight)?,
        })
    }

    /// The imported images: source and destination.
    pub fn images(&self) -> (&Image, &Image) {
        self.copy.images()
    }

    /// Starts a copy and returns at once. [`Error::Busy`] while as many as were asked for are in
    /// flight.
    pub fn submit(&mut self) -> Result<(), Error> {
        self.copy.submit().map_err(|error| match error {
            vk::Error::Busy => Error::Busy(self.copy.slots()),
            error => error.into(),
        })
    }

    /// Whether all copies are made. Does not wait.
    pub fn is_done(&mut self) -> Result<bool, Error> {
        Ok(self.copy.is_done()?)
    }

    /// Waits until another copy can be submitted: for the oldest in flight, if all are.
    pub fn wait_for_slot(&mut self, timeout: Duration) -> Result<(), Error> {
        Ok(self.copy.wait_for_slot(timeout)?)
    }

    /// Waits until all copies are made, for up to `timeout` each.
    pub fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        Ok(self.copy.wait(timeout)?)
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
    let same = match (vk::format_of(from), vk::format_of(to)) {
        (Some(from), Some(to)) => from.same_colours(to),
        // Refused by the import, which says that Vulkan has no such format.
        _ => from == to,
    };
    if !same {
        return Err(Error::Format { from, to });
    }
    if FormatInfo::of(from).is_some_and(|info| info.planes.len() > 1) {
        return Err(Error::Planar(from));
    }
    let mut objects = source.objects().iter();
    if objects.any(|a| destination.objects().iter().any(|b| a.id() == b.id())) {
        return Err(Error::SameBuffer);
    }
    Ok(())
}
