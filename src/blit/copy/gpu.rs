//! Copies by one GPU.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use ash::vk;

use super::frame::Frame;
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::pixels::{Relation, relation};
use crate::blit::copy::regions::{
    Picture, aspects, blit_region, byte_regions, image_region, in_plane, mixed_regions,
    scaled_region,
};
use crate::blit::damage::{MAX_RECTS, Rects, snap};
use crate::blit::{Filter, Scaling};
use crate::buffer::{DmaBuf, Layout, Modifier, PerBuffer, Refusal};
use crate::vk::{
    Buffer, Commands, DEADLINE, Device, Error, Image, Transfer, Use, acquire, release,
};

/// The shortest wait for a GPU at a time.
const MOMENT: Duration = Duration::from_millis(100);

/// What a buffer is imported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) enum Shape {
    Image,
    Bytes,
    /// An image or, where that is refused, bytes.
    Either,
}

/// One end of a copy.
#[derive(Clone, Copy)]
pub(in crate::blit) enum Place<'a> {
    Buffer(&'a DmaBuf, Shape),
    /// Memory of the GPU's own device.
    Host(&'a Arc<HostPicture>),
}

impl<'a> Place<'a> {
    fn picture(self) -> Picture<'a> {
        match self {
            Self::Buffer(buffer, _) => buffer.into(),
            Self::Host(host) => host.picture(),
        }
    }
}

/// From where to where.
pub(in crate::blit) type Ends<'a> = [Place<'a>; 2];

/// What of the destination is to be written, and from which part of the source.
#[derive(Clone, Copy)]
pub(in crate::blit) struct Work<'a> {
    rects: &'a Rects,
    scaling: Option<&'a Scaling>,
}

impl<'a> Work<'a> {
    /// From the same place in the source, as it is.
    pub(in crate::blit) fn plain(rects: &'a Rects) -> Self {
        Self {
            rects,
            scaling: None,
        }
    }

    pub(in crate::blit) fn of(frame: &'a Frame) -> Self {
        Self {
            rects: &frame.rects,
            scaling: frame.scaling.as_ref(),
        }
    }
}

/// A GPU that takes part, with all it keeps from frame to frame.
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
}

#[derive(Debug)]
struct CommandSlot {
    /// Before what it uses: fields are dropped in order.
    commands: Commands,
    used: Option<[Imported; 2]>,
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

/// What a copy command is given.
enum Form<'a> {
    Image(&'a Image),
    Bytes(vk::Buffer),
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
            })
        };
        let family = family(device);
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
        })
    }

    pub(in crate::blit) fn device(&self) -> &Device {
        &self.device
    }

    /// Lets go of what was imported, but for what is being executed. It is imported again when it is
    /// needed.
    pub(in crate::blit) fn forget_imports(&mut self) {
        self.images = [PerBuffer::new(), PerBuffer::new()];
        self.bytes = [PerBuffer::new(), PerBuffer::new()];
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
    pub(in crate::blit) fn snapped(&self, rects: &Rects, layout: &Layout) -> Rects {
        snap(
            rects.iter().copied(),
            (layout.width, layout.height),
            self.grid,
        )
    }

    /// Records a copy into the next slot, whose index it gives.
    fn record(&mut self, ends: Ends<'_>, work: Work<'_>) -> Result<usize, Error> {
        let Work { rects, scaling } = work;
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
        let (slot, rows, queue) = (&mut self.slots[index], &mut self.rows, self.queue);
        if !slot.commands.is_done()? {
            return Err(Error::Busy);
        }
        let mut recorded = Ok(());
        let both = [
            source.transfer(Use::Source),
            destination.transfer(Use::Destination),
        ];
        let both: ArrayVec<_, 2> = both.into_iter().flatten().collect();
        // SAFETY: both are of this device and, as the slot's, outlive the execution; they are
        // acquired and released around the copy where they are the outside world's; regions are
        // inside both.
        unsafe {
            slot.commands.record(|raw, commands| {
                acquire(commands, &both);
                let ends = (source.form(), destination.form());
                let work = Work { rects, scaling };
                recorded = record(raw, commands, pictures, work, ends, queue, rows);
                release(commands, &both);
                if let Imported::Host(_) = destination {
                    show_to_host(raw, commands);
                }
            })?;
        }
        drop(both);
        recorded?;
        // What the slot had before is done.
        slot.used = Some([source, destination]);
        Ok(index)
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

fn family(device: &Device) -> vk::QueueFamilyProperties {
    let physical = device.physical();
    // SAFETY: the physical device is of this instance.
    let families = unsafe {
        let instance = physical.instance().raw();
        instance.get_physical_device_queue_family_properties(physical.raw())
    };
    let family = families.get(device.queue_family() as usize);
    family.copied().unwrap_or_default()
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

/// Makes what a copy has written visible to the CPU, once the submission is done
/// (Vulkan specification, "Host Access to Device Memory Objects").
///
/// # Safety
/// As for [`Commands::record`].
unsafe fn show_to_host(raw: &ash::Device, commands: vk::CommandBuffer) {
    let barrier = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    // SAFETY: as the caller promises.
    unsafe {
        raw.cmd_pipeline_barrier(
            commands,
            vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::HOST,
            vk::DependencyFlags::empty(),
            &[barrier],
            &[],
            &[],
        );
    }
}

/// # Safety
/// As for [`Commands::record`]; both are acquired for this, and the rectangles are inside both.
unsafe fn record(
    raw: &ash::Device,
    commands: vk::CommandBuffer,
    [source, destination]: [Picture<'_>; 2],
    Work { rects, scaling }: Work<'_>,
    ends: (Form<'_>, Form<'_>),
    queue: vk::QueueFlags,
    rows: &mut Vec<vk::BufferCopy>,
) -> Result<(), Error> {
    use Form::{Bytes, Image};
    let layouts = (Use::Source.layout(), Use::Destination.layout());
    let formats = (source.layout.fourcc, destination.layout.fourcc);
    let planes = aspects(formats.0);
    match ends {
        (Image(from), Image(to)) => {
            let changes_pixels = relation(formats.0, formats.1) != Relation::Same;
            if changes_pixels || scaling.is_some() {
                // Parts of a scaled picture begin between the source's pixels: all of it is made.
                let regions: ArrayVec<_, MAX_RECTS> = match scaling {
                    Some(scaling) => [scaled_region(scaling)].into_iter().collect(),
                    None => rects.iter().map(blit_region).collect(),
                };
                let filter = match scaling {
                    Some(scaling) if scaling.filter == Filter::Linear && !scaling.is_plain() => {
                        vk::Filter::LINEAR
                    }
                    _ => vk::Filter::NEAREST,
                };
                from.require_blit(to, queue, filter)?;
                let (from, to) = (from.raw(), to.raw());
                // SAFETY: as the caller promises; the formats can be blitted with the filter.
                unsafe {
                    raw.cmd_blit_image(commands, from, layouts.0, to, layouts.1, &regions, filter);
                }
                return Ok(());
            }
            let (from, to) = (from.raw(), to.raw());
            for (plane, aspect) in planes.into_iter().enumerate() {
                let region = |rect| image_region(aspect, in_plane(formats.0, plane, rect));
                let regions: ArrayVec<_, MAX_RECTS> = rects.iter().map(region).collect();
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_image(commands, from, layouts.0, to, layouts.1, &regions);
                }
            }
        }
        (Bytes(from), Image(to)) => {
            for plane in 0..planes.len() {
                let regions = mixed_regions(source, plane, rects, queue)?;
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_buffer_to_image(commands, from, to.raw(), layouts.1, &regions);
                }
            }
        }
        (Image(from), Bytes(to)) => {
            for plane in 0..planes.len() {
                let regions = mixed_regions(destination, plane, rects, queue)?;
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_image_to_buffer(commands, from.raw(), layouts.0, to, &regions);
                }
            }
        }
        (Bytes(from), Bytes(to)) => {
            byte_regions(source, destination, rects, rows)?;
            // SAFETY: as the caller promises.
            unsafe { raw.cmd_copy_buffer(commands, from, to, rows) };
        }
    }
    Ok(())
}
