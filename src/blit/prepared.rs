//! One copy, prepared once.

use std::time::Duration;

use super::Error;
use super::pixels::{Relation, relation};
use crate::buffer::{DmaBuf, FormatInfo};
use crate::vk::{self, Device, Image, ImageCopy, Use};

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
    super::check(source, destination)?;
    let (from, to) = (source.fourcc(), destination.fourcc());
    if relation(from, to) != Relation::Same {
        return Err(Error::Format { from, to });
    }
    if FormatInfo::of(from).is_some_and(|info| info.planes.len() > 1) {
        return Err(Error::Planar(from));
    }
    Ok(())
}
