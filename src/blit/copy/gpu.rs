//! Copies by one GPU.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use ash::vk;

use super::place::{Ends, Place, Shape};
use super::record::{Form, Recorder, Way, way};
use super::shader::{Scratch, Shader};
use crate::blit::copy::host::HostPicture;
pub(in crate::blit) use crate::blit::copy::record::Work;
use crate::blit::damage::{Rects, snap};
use crate::buffer::{BufferDesc, Modifier, PerBuffer, Refusal};
use crate::vk::{
    Buffer, Commands, DEADLINE, Device, Error, Image, Transfer, Use, acquire, release,
};

/// How long one wait for the GPU lasts at most.
const MOMENT: Duration = Duration::from_millis(100);

/// A queue of a GPU that copies, with all that it keeps from frame to frame.
///
/// Images and buffers live as long as the dma-bufs that they were imported from, so that a frame imports
/// nothing. A command slot keeps what its submission uses until it is done, even if the buffers are dropped.
#[derive(Debug)]
pub(in crate::blit) struct CopyQueue {
    device: Device,
    slots: Vec<CommandSlot>,
    /// The index of the next slot. Slots are used in turn.
    next: usize,
    images: [PerBuffer<Arc<Image>, Error>; 2],
    bytes: [PerBuffer<Buffer, Error>; 2],
    /// The grid on which the queue copies parts of images (`minImageTransferGranularity`).
    grid: (u32, u32),
    /// What else the queue can do.
    queue: vk::QueueFlags,
    /// Kept from frame to frame, so that it allocates nothing.
    rows: Vec<vk::BufferCopy>,
    shader: Shader,
}

#[derive(Debug)]
struct CommandSlot {
    /// Declared before what the commands use: fields are dropped in order.
    commands: Commands,
    used: Option<[Imported; 2]>,
    /// The memory of the last picture that the shader made, kept for the next one.
    scratch: Option<Scratch>,
}

#[derive(Clone, Debug)]
enum Imported {
    Image(Arc<Image>),
    Bytes(Arc<Buffer>),
    /// Not imported: host memory of the device.
    Host(Arc<HostPicture>),
}

impl Imported {
    /// The ownership transfer that it needs, if others use it, too.
    fn transfer(&self, used: Use) -> Option<Transfer<'_>> {
        match self {
            Self::Image(image) => Some(Transfer::image(image, used)),
            Self::Bytes(buffer) => Some(Transfer::buffer(buffer, used)),
            Self::Host(_) => None,
        }
    }

    fn form(&self) -> Form<'_> {
        match self {
            Self::Image(image) => Form::Image(image),
            Self::Bytes(buffer) => Form::Bytes(buffer.raw()),
            Self::Host(host) => Form::Bytes(host.raw()),
        }
    }
}

/// A copy that was submitted, by the index of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) struct Submitted(usize);

impl CopyQueue {
    pub(in crate::blit) fn new(device: &Device, in_flight: usize) -> Result<Self, Error> {
        let slot = |_| {
            Ok(CommandSlot {
                commands: Commands::new(device)?,
                used: None,
                scratch: None,
            })
        };
        let family = device.queue_properties();
        Ok(Self {
            device: device.clone(),
            slots: (0..in_flight.max(1))
                .map(slot)
                .collect::<Result<_, Error>>()?,
            next: 0,
            images: [PerBuffer::new(), PerBuffer::new()],
            bytes: [PerBuffer::new(), PerBuffer::new()],
            grid: granularity(&family),
            queue: family.queue_flags,
            rows: Vec::new(),
            shader: Shader::default(),
        })
    }

    pub(in crate::blit) fn device(&self) -> &Device {
        &self.device
    }

    /// Drops imports and scratch memory, except what submissions still use. They are made again when they
    /// are needed.
    pub(in crate::blit) fn forget_imports(&mut self) {
        self.images = [PerBuffer::new(), PerBuffer::new()];
        self.bytes = [PerBuffer::new(), PerBuffer::new()];
        for slot in &mut self.slots {
            if let Ok(true) = slot.commands.is_done() {
                slot.scratch = None;
            }
        }
    }

    /// Submits a copy between these ends. [`Error::Busy`] while all slots are in use.
    pub(in crate::blit) fn submit(
        &mut self,
        ends: Ends<'_>,
        work: Work<'_>,
    ) -> Result<Submitted, Error> {
        let index = self.record(ends, work)?;
        // SAFETY: the commands were recorded, and the slot keeps what they use.
        let submitted = unsafe { self.slots[index].commands.submit() };
        self.submitted(index, submitted)
    }

    fn submitted(&mut self, index: usize, result: Result<(), Error>) -> Result<Submitted, Error> {
        if let Err(error) = result {
            self.slots[index].used = None;
            return Err(error);
        }
        self.next = (index + 1) % self.slots.len();
        Ok(Submitted(index))
    }

    /// As [`Self::submit`], to be executed after these sync files. Gives the copy's own sync file, `None` if
    /// the copy is done already. If the file cannot be had, the copy is executed all the same.
    pub(in crate::blit) fn submit_after(
        &mut self,
        ends: Ends<'_>,
        work: Work<'_>,
        after: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(Submitted, Result<Option<OwnedFd>, Error>), Error> {
        let index = self.record(ends, work)?;
        // SAFETY: as above.
        let submitted = unsafe { self.slots[index].commands.start_after(after) };
        let submitted = self.submitted(index, submitted)?;
        // SAFETY: started above.
        let file = unsafe { self.slots[index].commands.sync_file() };
        Ok((submitted, file))
    }

    /// The rectangles, enlarged to the grid on which the queue copies.
    pub(in crate::blit) fn snapped(&self, rects: &Rects, layout: &BufferDesc) -> Rects {
        snap(
            rects.iter().copied(),
            (layout.width, layout.height),
            self.grid,
        )
    }

    /// Records a copy into the next slot. Gives the slot's index.
    fn record(&mut self, ends: Ends<'_>, work: Work<'_>) -> Result<usize, Error> {
        let Work { rects, .. } = work;
        let source = self.imported(ends[0], Use::Source)?;
        let destination = self.imported(ends[1], Use::Destination)?;
        let pictures = ends.map(Place::picture);
        let coarse;
        let rects = match self.grid {
            (1, 1) => rects,
            _ => {
                coarse = self.snapped(rects, pictures[1].layout);
                &coarse
            }
        };
        let index = self.next;
        if !self.slots[index].commands.is_done()? {
            return Err(Error::Busy);
        }
        let queue = self.queue;
        let work = Work { rects, ..work };
        let way = way(pictures, work, (source.form(), destination.form()), queue)?;
        let prepared = match way {
            Way::Copy | Way::Blit(_) => None,
            Way::Shader => {
                let mut spare = self.spare_scratch();
                let made = self
                    .shader
                    .prepare(&self.device, &mut spare, pictures, work);
                self.slots[index].scratch = spare;
                Some(made?)
            }
        };
        let (slot, rows) = (&mut self.slots[index], &mut self.rows);
        let made = slot.scratch.as_ref().zip(prepared);
        let mut recorded = Ok(());
        let both = [
            source.transfer(Use::Source),
            destination.transfer(Use::Destination),
        ];
        let both: ArrayVec<_, 2> = both.into_iter().flatten().collect();
        // SAFETY: both are of this device and, as the slot's, outlive the execution, as its scratch memory
        // does; they are acquired and released around the copy where they are the outside world's;
        // regions are inside both.
        unsafe {
            slot.commands.record(|raw, commands| {
                acquire(commands, &both);
                let mut recorder = Recorder {
                    raw,
                    commands,
                    queue,
                    rows,
                };
                let ends = (source.form(), destination.form());
                recorded = match (&made, way) {
                    (Some((scratch, parameters)), _) => {
                        recorder.shader(pictures, work, ends, scratch, parameters)
                    }
                    (None, Way::Blit(filter)) => recorder.blit(work, ends, filter),
                    (None, _) => recorder.copy(pictures, work.rects, ends),
                };
                release(commands, &both);
                if let Imported::Host(_) = destination {
                    recorder.show_to_host();
                }
            })?;
        }
        drop(both);
        recorded?;
        // Drops what the slot's last copy used, which is done.
        slot.used = Some([source, destination]);
        Ok(index)
    }

    /// The scratch memory of a copy that is done, if there is any. So if copies come one at a time, one
    /// scratch memory suffices.
    fn spare_scratch(&mut self) -> Option<Scratch> {
        self.slots.iter_mut().find_map(|slot| {
            let is_spare = slot.scratch.is_some() && matches!(slot.commands.is_done(), Ok(true));
            slot.scratch.take_if(|_| is_spare)
        })
    }

    /// Bytes of scratch memory that is kept.
    pub(in crate::blit) fn scratch_bytes(&self) -> u64 {
        let kept = self.slots.iter().filter_map(|slot| slot.scratch.as_ref());
        kept.map(Scratch::bytes).sum()
    }

    /// Waits for a copy, at most for the patience and [`DEADLINE`] together. The patience is for the fences
    /// that the copy itself waits for. Until then, errors of a wait count as transient, unless the device is
    /// lost, on which nothing is executed any more.
    ///
    /// [`Error::Hung`] after that: the copy is left to itself, with what it uses.
    pub(in crate::blit) fn wait(
        &mut self,
        submitted: Submitted,
        patience: Duration,
        warn: impl Fn(&Error),
    ) -> Result<(), Error> {
        let start = Instant::now();
        let most = patience.saturating_add(DEADLINE);
        let slot = &mut self.slots[submitted.0];
        let done = loop {
            let left = most.saturating_sub(start.elapsed());
            match slot.commands.wait_for(patience.max(MOMENT).min(left)) {
                Err(error) if error.is_device_lost() => break Err(error),
                Err(_) if left.is_zero() => {
                    let hung = Error::Hung {
                        device: self.device.physical().name().to_owned(),
                        milliseconds: most.as_millis(),
                    };
                    let fresh = Commands::new(&self.device)?;
                    std::mem::replace(&mut slot.commands, fresh).abandon(&hung);
                    // The hung copy still uses it, so the slot's next copy must not.
                    slot.scratch = None;
                    break Err(hung);
                }
                Err(error) => {
                    warn(&error);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(()) => break Ok(()),
            }
        };
        // A blitter without copies under way keeps no buffers alive.
        slot.used = None;
        done
    }

    /// Leaves all submissions to themselves, with what they use.
    pub(in crate::blit) fn abandon(self, patience: Duration) -> Error {
        let hung = Error::Hung {
            device: self.device.physical().name().to_owned(),
            milliseconds: patience.saturating_add(DEADLINE).as_millis(),
        };
        for slot in self.slots {
            slot.commands.abandon(&hung);
        }
        hung
    }

    /// As [`Self::wait`], at most for this time. `None` if the copy is not done by then; it has to be waited
    /// for again.
    pub(in crate::blit) fn wait_in(
        &mut self,
        submitted: Submitted,
        time: Duration,
    ) -> Option<Result<(), Error>> {
        let slot = &mut self.slots[submitted.0];
        match slot.commands.wait_for(time) {
            Ok(()) => {
                slot.used = None;
                Some(Ok(()))
            }
            Err(error) if error.is_device_lost() => Some(Err(error)),
            Err(_) => None,
        }
    }

    /// Whether a copy is done, or will never be. Does not wait.
    pub(in crate::blit) fn is_over(&mut self, submitted: Submitted) -> bool {
        self.slots[submitted.0].commands.is_done().unwrap_or(true)
    }

    fn imported(&self, place: Place<'_>, used: Use) -> Result<Imported, Error> {
        let (buffer, shape) = match place {
            Place::Buffer(buffer, shape) => (buffer, shape),
            Place::Host(host) => return Ok(Imported::Host(Arc::clone(host))),
        };
        let (which, usage) = match used {
            Use::Source => (0, vk::BufferUsageFlags::TRANSFER_SRC),
            _ => (1, vk::BufferUsageFlags::TRANSFER_DST),
        };
        let image = || {
            let import = || {
                let image = self.device.image(buffer, used);
                image.map_err(Refusal::Transient)
            };
            let image = self.images[which].get_or_make(buffer, import);
            image
                .map(|image| Imported::Image(Arc::clone(&image)))
                .map_err(Arc::unwrap_or_clone)
        };
        let bytes = || {
            let import = || {
                let bytes = self.device.import_buffer(buffer, usage);
                bytes.map_err(Refusal::Transient)
            };
            self.bytes[which]
                .get_or_make(buffer, import)
                .map(Imported::Bytes)
                .map_err(Arc::unwrap_or_clone)
        };
        match shape {
            Shape::Image => image(),
            Shape::Bytes => bytes(),
            Shape::Either => image().or_else(|refused| match buffer.modifier() {
                Modifier::LINEAR => bytes().map_err(|_| refused),
                _ => Err(refused),
            }),
        }
    }
}

/// The grid on which a queue family copies parts of images. It is (1, 1) for all graphics and compute
/// families (VkQueueFamilyProperties). A family with (0, 0) copies whole images only.
fn granularity(family: &vk::QueueFamilyProperties) -> (u32, u32) {
    let grid = family.min_image_transfer_granularity;
    match (grid.width, grid.height) {
        (0, _) | (_, 0) => (u32::MAX, u32::MAX),
        steps => steps,
    }
}
