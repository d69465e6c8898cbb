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

/// The shortest wait for a GPU at a time.
const MOMENT: Duration = Duration::from_millis(100);

/// A queue of a GPU that copies, with all that it keeps from frame to frame.
///
/// Images and buffers live as long as the buffers they are of, so that a frame imports nothing.
/// What is being executed is kept by its slot, whatever becomes of its buffers.
#[derive(Debug)]
pub(in crate::blit) struct CopyQueue {
    device: Device,
    slots: Vec<CommandSlot>,
    /// Used in turn.
    next: usize,
    images: [PerBuffer<Arc<Image>, Error>; 2],
    bytes: [PerBuffer<Buffer, Error>; 2],
    /// What the queue can copy parts of (`minImageTransferGranularity`).
    grid: (u32, u32),
    /// What else it can do.
    queue: vk::QueueFlags,
    /// Kept for its memory.
    rows: Vec<vk::BufferCopy>,
    shader: Shader,
}

#[derive(Debug)]
struct CommandSlot {
    /// Before what it uses: fields are dropped in order.
    commands: Commands,
    used: Option<[Imported; 2]>,
    /// Of the last picture that the shader made, kept for the next.
    scratch: Option<Scratch>,
}

#[derive(Clone, Debug)]
enum Imported {
    Image(Arc<Image>),
    Bytes(Arc<Buffer>),
    /// Its own, rather.
    Host(Arc<HostPicture>),
}

impl Imported {
    /// What it takes to use it, where it is the outside world's.
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

/// A copy being executed: the slot it is in.
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

    /// Lets go of what was imported and of scratch memory, but for what is being executed. It is imported
    /// and made again when it is needed.
    pub(in crate::blit) fn forget_imports(&mut self) {
        self.images = [PerBuffer::new(), PerBuffer::new()];
        self.bytes = [PerBuffer::new(), PerBuffer::new()];
        for slot in &mut self.slots {
            if let Ok(true) = slot.commands.is_done() {
                slot.scratch = None;
            }
        }
    }

    /// Starts a copy, with source and destination imported as said. [`Error::Busy`] while all
    /// slots are being executed.
    pub(in crate::blit) fn submit(
        &mut self,
        ends: Ends<'_>,
        work: Work<'_>,
    ) -> Result<Submitted, Error> {
        let index = self.record(ends, work)?;
        // SAFETY: recorded, and what it uses is the slot's.
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

    /// As [`Self::submit`], to be executed after these sync files; with the copy's own one, `None`
    /// where it is done already. Where that cannot be had, it is being executed all the same.
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

    /// The rectangles, enlarged to what the queue can copy.
    pub(in crate::blit) fn snapped(&self, rects: &Rects, layout: &BufferDesc) -> Rects {
        snap(
            rects.iter().copied(),
            (layout.width, layout.height),
            self.grid,
        )
    }

    /// Records a copy into the next slot, whose index it gives.
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
        // What the slot had before is done.
        slot.used = Some([source, destination]);
        Ok(index)
    }

    /// Scratch memory of a copy that is done: with one copy at a time there is no more than one.
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

    /// Waits for a copy until it is done, at most for the patience and [`DEADLINE`] together: the
    /// patience is for what the copy itself waits for. Until then whatever fails passes, but a lost
    /// device executes nothing any more.
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
                    // Not for the slot's next copy: it goes with the rest.
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
        // A blitter that has nothing to do keeps no memory.
        slot.used = None;
        done
    }

    /// Leaves all that is being executed to itself, with what it uses.
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

    /// As [`Self::wait`], not longer than so: `None` if it is not done by then, and is to be waited for
    /// again.
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
            image.map(|image| Imported::Image(Arc::clone(&image)))
        };
        let bytes = || {
            let import = || {
                let bytes = self.device.import_buffer(buffer, usage);
                bytes.map_err(Refusal::Transient)
            };
            self.bytes[which]
                .get_or_make(buffer, import)
                .map(Imported::Bytes)
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

/// The steps in which the queue family copies parts of images. All graphics and compute families
/// have (1, 1) (VkQueueFamilyProperties); (0, 0) is a family that copies whole images only.
fn granularity(family: &vk::QueueFamilyProperties) -> (u32, u32) {
    let grid = family.min_image_transfer_granularity;
    match (grid.width, grid.height) {
        (0, _) | (_, 0) => (u32::MAX, u32::MAX),
        steps => steps,
    }
}
