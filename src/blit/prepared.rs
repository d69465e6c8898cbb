//! One copy, prepared once.

use std::os::fd::{AsFd, OwnedFd};

use arrayvec::ArrayVec;
use nix::poll::PollFlags;

use super::Error;
use super::copy::pixels::{Relation, relation};
use crate::buffer::{DmaBuf, FormatInfo, MAX_PLANES};
use crate::sync::{self, Access, Deadline, SyncFile, implicit};
use crate::sys::poll::are_ready;
use crate::vk::{self, Commands, Device, Image, Transfer, Use, acquire, ash, release};

/// A copy from one shared buffer to another, prepared once and made as often as wanted.
///
/// The copies of one `Blit` happen in the order of their submission, each after the fences that its
/// buffers carry when it is submitted (implicit synchronisation): the source's writers, and the
/// destination's writers and readers. It leaves none there: wait for the copy before others use the
/// destination or write to the source. Drop waits for copies in flight, as
/// [`Commands`](crate::vk::Commands) does.
#[derive(Debug)]
pub struct Blit {
    /// Declared before the images, which the commands use: fields are dropped in order.
    slots: Vec<Commands>,
    next: usize,
    source: Image,
    destination: Image,
    /// Source and destination, for their fences.
    buffers: [DmaBuf; 2],
}

/// What a copy does with its source and its destination.
const ACCESSES: [Access; 2] = [Access::Read, Access::Write];

impl Blit {
    /// Imports both buffers into `device` and records the copy, for up to `in_flight` (at least
    /// one) copies at a time. Keeps both buffers, and executes nothing.
    ///
    /// [`Error::SameBuffer`], [`Error::Size`], [`Error::Flags`], [`Error::Format`] and [`Error::Planar`] if the pictures do
    /// not go together; [`Error::Source`] and [`Error::Destination`] if the device does not import them.
    pub fn new(
        device: &Device,
        source: &DmaBuf,
        destination: &DmaBuf,
        in_flight: usize,
    ) -> Result<Self, Error> {
        check(source, destination)?;
        super::check_flags(source, destination)?;
        let buffers = [source.clone(), destination.clone()];
        let source = device
            .import_image(source, Use::Source)
            .map_err(Error::Source)?;
        let destination = device
            .import_image(destination, Use::Destination)
            .map_err(Error::Destination)?;
        let slot = |_| {
            let mut commands = Commands::new(device)?;
            // SAFETY: the images are of this device, and outlive the commands as fields.
            unsafe {
                commands.record(|raw, buffer| record(raw, buffer, &source, &destination))?;
            }
            Ok(commands)
        };
        let slots = (0..in_flight.max(1)).map(slot);
        Ok(Self {
            slots: slots.collect::<Result<_, vk::Error>>()?,
            next: 0,
            source,
            destination,
            buffers,
        })
    }

    /// The imported images: source and destination.
    pub fn images(&self) -> (&Image, &Image) {
        (&self.source, &self.destination)
    }

    /// Starts a copy and returns at once; the GPU waits for the fences in the buffers. [`Error::Busy`]
    /// while as many as were asked for are in flight.
    ///
    /// [`Error::Fenced`] if a fence is pending and cannot be left to the GPU: the device takes no
    /// pending sync files ([`Device::takes_pending_sync_files`]), or the kernel gives none (before
    /// Linux 6.0). Then [`Self::wait_for_buffers`] first.
    pub fn submit(&mut self) -> Result<(), Error> {
        let pending = self.pending()?;
        if !pending.is_empty() && !self.source.device().takes_pending_sync_files() {
            return Err(Error::Fenced);
        }
        let files = pending.into_iter().map(OwnedFd::from);
        // SAFETY: the slot was recorded in `new`, and what it uses are fields of `self`.
        let submitted = unsafe { self.slots[self.next].submit_behind(files) };
        submitted.map_err(|error| match error {
            vk::Error::Busy => Error::Busy(self.slots.len()),
            error => error.into(),
        })?;
        self.next = (self.next + 1) % self.slots.len();
        Ok(())
    }

    /// The buffers' fences that are not signalled yet.
    fn pending(&self) -> Result<ArrayVec<SyncFile, 2>, Error> {
        let mut pending = ArrayVec::new();
        if self.is_free()? {
            return Ok(pending);
        }
        for (buffer, access) in self.buffers.iter().zip(ACCESSES) {
            let fence = implicit::fence(buffer, access).map_err(Error::Fences)?;
            if fence.is_signalled().map_err(Error::Fences)? {
                continue;
            }
            match fence {
                sync::Fence::SyncFile(file) => pending.push(file),
                _ => return Err(Error::Fenced),
            }
        }
        Ok(pending)
    }

    /// Whether no fence is pending. One system call answers this, since it is so most of the time.
    fn is_free(&self) -> Result<bool, Error> {
        let mut fds: ArrayVec<_, { 2 * MAX_PLANES }> = ArrayVec::new();
        let events = [PollFlags::POLLIN, PollFlags::POLLOUT];
        for (buffer, events) in self.buffers.iter().zip(events) {
            fds.extend(
                buffer
                    .objects()
                    .iter()
                    .map(|object| (object.as_fd(), events)),
            );
        }
        are_ready(&fds).map_err(|errno| Error::Fences(sync::Error::Poll { errno }))
    }

    /// Waits until the buffers carry no fence that a copy has to wait for. [`Error::Fences`] at the deadline.
    pub fn wait_for_buffers(&self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        let deadline = deadline.into();
        for (buffer, access) in self.buffers.iter().zip(ACCESSES) {
            let fence = implicit::fence(buffer, access).map_err(Error::Fences)?;
            fence.wait(deadline).map_err(Error::Fences)?;
        }
        Ok(())
    }

    /// Whether all copies are made. Does not wait.
    pub fn is_done(&mut self) -> Result<bool, Error> {
        for slot in &mut self.slots {
            if !slot.is_done()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until another copy can be submitted: for the oldest in flight, if all are. At the deadline
    /// [`Error::Commands`] with [`vk::Error::Timeout`].
    pub fn wait_for_slot(&mut self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        Ok(self.slots[self.next].wait(deadline)?)
    }

    /// Waits until all copies are made. At the deadline [`Error::Commands`] with [`vk::Error::Timeout`]; they go on.
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<(), Error> {
        let deadline = deadline.into();
        // The newest first: a fence covers all that was submitted before it, so the others are
        // found signalled, and waiting for them costs nothing.
        let (newer, older) = self.slots.split_at_mut(self.next);
        let newest_first = newer.iter_mut().rev().chain(older.iter_mut().rev());
        for slot in newest_first {
            slot.wait(deadline)?;
        }
        Ok(())
    }
}

/// # Safety
/// As for [`Commands::record`].
unsafe fn record(
    raw: &ash::Device,
    commands: ash::vk::CommandBuffer,
    source: &Image,
    destination: &Image,
) {
    let transfers = [
        Transfer::image(source, Use::Source),
        Transfer::image(destination, Use::Destination),
    ];
    let whole = ash::vk::ImageSubresourceLayers::default()
        .aspect_mask(ash::vk::ImageAspectFlags::COLOR)
        .layer_count(1);
    let region = ash::vk::ImageCopy::default()
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

fn check(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    super::check_sizes(source, destination)?;
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
