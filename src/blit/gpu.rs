//! Copies by one GPU.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use ash::vk;

use super::damage::{MAX_RECTS, Rect, Rects, prepare};
use super::pixels::{Relation, relation};
use crate::buffer::{Attached, DmaBuf, FormatInfo, MAX_PLANES, Modifier};
use crate::vk::{
    Buffer, Commands, Device, Error, Feature, Image, Transfer, Use, acquire, copy_region, release,
};

/// What a buffer is imported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Image,
    Bytes,
    /// An image or, where that is refused, bytes.
    Either,
}

/// A copy to make.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) source: &'a DmaBuf,
    pub(super) destination: &'a DmaBuf,
    /// Inside both pictures, and on the formats' grid.
    pub(super) rects: &'a Rects,
}

/// A GPU that takes part, with all it keeps from frame to frame.
///
/// Images and buffers live as long as the buffers they are of, so that a frame imports nothing.
/// What is being executed is kept by its slot, whatever becomes of its buffers.
#[derive(Debug)]
pub(super) struct Lane {
    device: Device,
    slots: Vec<Slot>,
    /// Used in turn.
    next: usize,
    images: [Attached<Arc<Image>>; 2],
    bytes: [Attached<Buffer>; 2],
    /// What the queue can copy parts of (`minImageTransferGranularity`).
    grid: (u32, u32),
    /// What else it can do.
    queue: vk::QueueFlags,
    /// Kept for its memory.
    rows: Vec<vk::BufferCopy>,
}

#[derive(Debug)]
struct Slot {
    /// Before what it uses: fields are dropped in order.
    commands: Commands,
    used: Option<[Imported; 2]>,
}

#[derive(Clone, Debug)]
enum Imported {
    Image(Arc<Image>),
    Bytes(Arc<Buffer>),
}

impl Imported {
    fn transfer(&self, used: Use) -> Transfer<'_> {
        match self {
            Self::Image(image) => Transfer::image(image, used),
            Self::Bytes(buffer) => Transfer::buffer(buffer, used),
        }
    }
}

/// A copy being executed: the slot it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Submitted(usize);

impl Lane {
    pub(super) fn new(device: &Device, in_flight: usize) -> Result<Self, Error> {
        let slot = |_| {
            Ok(Slot {
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
            images: [Attached::new(), Attached::new()],
            bytes: [Attached::new(), Attached::new()],
            grid: granularity(&family),
            queue: family.queue_flags,
            rows: Vec::new(),
        })
    }

    /// Whether copies can be ordered by sync files.
    pub(super) fn has_sync_files(&self) -> bool {
        self.device.capabilities().has(Feature::SyncFdSemaphores)
    }

    /// Whether it is the processor.
    pub(super) fn is_software(&self) -> bool {
        self.device.physical().is_software()
    }

    /// Starts a copy, with source and destination imported as said. [`Error::Busy`] while all
    /// slots are being executed.
    pub(super) fn submit(
        &mut self,
        work: Work<'_>,
        shapes: [Shape; 2],
    ) -> Result<Submitted, Error> {
        let index = self.record(work, shapes)?;
        // SAFETY: recorded, and what it uses is the slot's.
        unsafe { self.slots[index].commands.submit()? };
        self.next = (index + 1) % self.slots.len();
        Ok(Submitted(index))
    }

    /// As [`Self::submit`], to be executed after these sync files; with the copy's own one, `None`
    /// where it is done already.
    pub(super) fn submit_after(
        &mut self,
        work: Work<'_>,
        shapes: [Shape; 2],
        after: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(Submitted, Option<OwnedFd>), Error> {
        let index = self.record(work, shapes)?;
        // SAFETY: as above.
        let file = unsafe { self.slots[index].commands.submit_after(after)? };
        self.next = (index + 1) % self.slots.len();
        Ok((Submitted(index), file))
    }

    /// Records a copy into the next slot, whose index it gives.
    fn record(&mut self, work: Work<'_>, shapes: [Shape; 2]) -> Result<usize, Error> {
        let [from, to] = shapes;
        let source = self.imported(work.source, Use::Source, from)?;
        let destination = self.imported(work.destination, Use::Destination, to)?;
        let coarse;
        let rects = match self.grid {
            (1, 1) => work.rects,
            grid => {
                let size = (work.destination.width(), work.destination.height());
                coarse = prepare(work.rects, size, grid);
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
        // SAFETY: both are of this device and, as the slot's, outlive the execution; they are
        // acquired and released around the copy; regions are inside both.
        unsafe {
            slot.commands.record(|raw, commands| {
                acquire(commands, &both);
                let ends = (&source, &destination);
                recorded = record(raw, commands, work, rects, ends, queue, rows);
                release(commands, &both);
            })?;
        }
        recorded?;
        // What the slot had before is done.
        slot.used = Some([source, destination]);
        Ok(index)
    }

    pub(super) fn wait(&mut self, submitted: Submitted, timeout: Duration) -> Result<(), Error> {
        let slot = &mut self.slots[submitted.0];
        slot.commands.wait(timeout)?;
        // A blitter that has nothing to do keeps no memory.
        slot.used = None;
        Ok(())
    }

    fn imported(&self, buffer: &DmaBuf, used: Use, shape: Shape) -> Result<Imported, Error> {
        let (which, usage) = match used {
            Use::Source => (0, vk::BufferUsageFlags::TRANSFER_SRC),
            _ => (1, vk::BufferUsageFlags::TRANSFER_DST),
        };
        let image = || {
            let image = self.images[which].get_or_make(buffer, || self.device.image(buffer, used));
            image.map(|image| Imported::Image(Arc::clone(&image)))
        };
        let bytes = || {
            let import = || self.device.import_buffer(buffer, usage);
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

/// # Safety
/// As for [`Commands::record`]; both are acquired for this, and the rectangles are inside both.
unsafe fn record(
    raw: &ash::Device,
    commands: vk::CommandBuffer,
    work: Work<'_>,
    rects: &Rects,
    (source, destination): (&Imported, &Imported),
    queue: vk::QueueFlags,
    rows: &mut Vec<vk::BufferCopy>,
) -> Result<(), Error> {
    use Imported::{Bytes, Image};
    let (from, to) = (Use::Source.layout(), Use::Destination.layout());
    match (source, destination) {
        (Image(source), Image(destination)) => {
            let reorders = matches!(
                relation(work.source.fourcc(), work.destination.fourcc()),
                Relation::Rearranged(_)
            );
            if reorders {
                source.require_blit(destination, queue)?;
                let regions: ArrayVec<_, MAX_RECTS> = rects.iter().map(blit_region).collect();
                // SAFETY: as the caller promises; the formats can be blitted.
                unsafe {
                    raw.cmd_blit_image(
                        commands,
                        source.raw(),
                        from,
                        destination.raw(),
                        to,
                        &regions,
                        vk::Filter::NEAREST,
                    );
                }
                return Ok(());
            }
            for (plane, aspect) in aspects(work.source).into_iter().enumerate() {
                let regions: ArrayVec<_, MAX_RECTS> = rects
                    .iter()
                    .map(|rect| image_region(aspect, in_plane(work.source, plane, rect)))
                    .collect();
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_image(
                        commands,
                        source.raw(),
                        from,
                        destination.raw(),
                        to,
                        &regions,
                    );
                }
            }
        }
        (Bytes(source), Image(destination)) => {
            for plane in 0..aspects(work.source).len() {
                let regions = mixed_regions(work.source, plane, rects, queue)?;
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_buffer_to_image(
                        commands,
                        source.raw(),
                        destination.raw(),
                        to,
                        &regions,
                    );
                }
            }
        }
        (Image(source), Bytes(destination)) => {
            for plane in 0..aspects(work.source).len() {
                let regions = mixed_regions(work.destination, plane, rects, queue)?;
                // SAFETY: as the caller promises.
                unsafe {
                    raw.cmd_copy_image_to_buffer(
                        commands,
                        source.raw(),
                        from,
                        destination.raw(),
                        &regions,
                    );
                }
            }
        }
        (Bytes(source), Bytes(destination)) => {
            byte_regions(work, rects, rows)?;
            // SAFETY: as the caller promises.
            unsafe { raw.cmd_copy_buffer(commands, source.raw(), destination.raw(), rows) };
        }
    }
    Ok(())
}

/// The aspects of the format's planes.
fn aspects(buffer: &DmaBuf) -> ArrayVec<vk::ImageAspectFlags, MAX_PLANES> {
    let planes = FormatInfo::of(buffer.fourcc()).map_or(1, |info| info.planes.len());
    let each = [
        vk::ImageAspectFlags::PLANE_0,
        vk::ImageAspectFlags::PLANE_1,
        vk::ImageAspectFlags::PLANE_2,
    ];
    match planes {
        1 => ArrayVec::from_iter([vk::ImageAspectFlags::COLOR]),
        planes => each.into_iter().take(planes).collect(),
    }
}

/// The rectangle in a plane's own pixels.
pub(super) fn in_plane(buffer: &DmaBuf, plane: usize, rect: &Rect) -> Rect {
    let info = FormatInfo::of(buffer.fourcc()).and_then(|info| info.planes.get(plane));
    let (across, down) = info.map_or((1, 1), |info| (info.horizontal, info.vertical));
    let (right, bottom) = (rect.x + rect.width, rect.y + rect.height);
    let (x, y) = (rect.x / across, rect.y / down);
    Rect {
        x,
        y,
        width: right.div_ceil(across) - x,
        height: bottom.div_ceil(down) - y,
    }
}

fn layers(aspect: vk::ImageAspectFlags) -> vk::ImageSubresourceLayers {
    vk::ImageSubresourceLayers::default()
        .aspect_mask(aspect)
        .layer_count(1)
}

fn offset(rect: &Rect) -> vk::Offset3D {
    // Pictures are smaller than 2^31: the driver's limits have been asked for.
    vk::Offset3D {
        x: rect.x as i32,
        y: rect.y as i32,
        z: 0,
    }
}

fn extent(rect: &Rect) -> vk::Extent3D {
    vk::Extent3D {
        width: rect.width,
        height: rect.height,
        depth: 1,
    }
}

fn image_region(aspect: vk::ImageAspectFlags, rect: Rect) -> vk::ImageCopy {
    vk::ImageCopy::default()
        .src_subresource(layers(aspect))
        .src_offset(offset(&rect))
        .dst_subresource(layers(aspect))
        .dst_offset(offset(&rect))
        .extent(extent(&rect))
}

fn blit_region(rect: &Rect) -> vk::ImageBlit {
    let corners = [
        offset(rect),
        vk::Offset3D {
            x: (rect.x + rect.width) as i32,
            y: (rect.y + rect.height) as i32,
            z: 1,
        },
    ];
    vk::ImageBlit::default()
        .src_subresource(layers(vk::ImageAspectFlags::COLOR))
        .src_offsets(corners)
        .dst_subresource(layers(vk::ImageAspectFlags::COLOR))
        .dst_offsets(corners)
}

/// Regions between an image and the bytes of a plane of `buffer`.
fn mixed_regions(
    buffer: &DmaBuf,
    plane: usize,
    rects: &Rects,
    queue: vk::QueueFlags,
) -> Result<ArrayVec<vk::BufferImageCopy, MAX_RECTS>, Error> {
    let whole = copy_region(buffer, plane)?;
    let regions = rects.iter().map(|rect| {
        let rect = in_plane(buffer, plane, rect);
        let (start, _) = bytes_of(buffer, plane, &rect)?;
        // VUID-vkCmdCopyBufferToImage-commandBuffer-07737, for queues that only copy.
        let draws = queue.intersects(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE);
        if !draws && !start.is_multiple_of(4) {
            return Err(Error::Misaligned {
                plane,
                offset: start as u32,
                stride: buffer.planes()[plane].stride,
                unit: 4,
            });
        }
        Ok(whole
            .buffer_offset(start)
            .image_offset(offset(&rect))
            .image_extent(extent(&rect)))
    });
    regions.collect()
}

/// Where a rectangle, in the plane's own pixels, begins in the dma-buf, and bytes of its rows.
pub(super) fn bytes_of(buffer: &DmaBuf, plane: usize, rect: &Rect) -> Result<(u64, u64), Error> {
    let info = FormatInfo::of(buffer.fourcc()).ok_or(Error::Format(buffer.fourcc()))?;
    let (Some(info), Some(place)) = (info.planes.get(plane), buffer.planes().get(plane)) else {
        return Err(Error::NoPlane {
            fourcc: buffer.fourcc(),
            plane,
            planes: info.planes.len(),
        });
    };
    // No overflow: the rectangle lies inside the picture, whose rows fit into the stride.
    let blocks = |pixels: u32| u64::from(pixels.div_ceil(info.block_width));
    let block = u64::from(info.block_bytes);
    let start = u64::from(place.offset)
        + u64::from(rect.y) * u64::from(place.stride)
        + u64::from(rect.x / info.block_width) * block;
    Ok((start, blocks(rect.width) * block))
}

/// Regions between bytes, one for each row unless rows lie without gaps in both.
fn byte_regions(
    work: Work<'_>,
    rects: &Rects,
    rows: &mut Vec<vk::BufferCopy>,
) -> Result<(), Error> {
    rows.clear();
    for plane in 0..aspects(work.source).len() {
        for rect in rects {
            let rect = in_plane(work.source, plane, rect);
            let (source, length) = bytes_of(work.source, plane, &rect)?;
            let (destination, _) = bytes_of(work.destination, plane, &rect)?;
            let stride = |buffer: &DmaBuf| u64::from(buffer.planes()[plane].stride);
            let (from, to) = (stride(work.source), stride(work.destination));
            let rows_here = u64::from(rect.height);
            let without_gaps = from == length && to == length;
            let (count, size) = match without_gaps {
                true => (1, length * rows_here),
                false => (rows_here, length),
            };
            rows.extend((0..count).map(|row| vk::BufferCopy {
                src_offset: source + row * from,
                dst_offset: destination + row * to,
                size,
            }));
        }
    }
    Ok(())
}
