//! Handing images and buffers over between the outside world and a Vulkan queue.

use arrayvec::ArrayVec;
use ash::vk;

use super::{Buffer, Device, Feature, Image, Use};

/// Transfers in one barrier: so many are described without memory from the heap.
const AT_ONCE: usize = 8;

/// All of an image as it is shared.
pub(super) const WHOLE: vk::ImageSubresourceRange = vk::ImageSubresourceRange {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    base_mip_level: 0,
    level_count: 1,
    base_array_layer: 0,
    layer_count: 1,
};

/// An image or a buffer that changes hands, and what the queue does with it.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    what: What<'a>,
    used: Use,
    unmodified: bool,
}

#[derive(Clone, Copy, Debug)]
enum What<'a> {
    Image(&'a Image),
    Buffer(&'a Buffer),
}

impl<'a> Transfer<'a> {
    /// An image. It must have been imported for this use.
    pub fn image(image: &'a Image, used: Use) -> Self {
        Self {
            what: What::Image(image),
            used,
            unmodified: false,
        }
    }

    /// A buffer, for [`Use::Source`], [`Use::Destination`] or [`Use::Storage`].
    pub fn buffer(buffer: &'a Buffer, used: Use) -> Self {
        Self {
            what: What::Buffer(buffer),
            used,
            unmodified: false,
        }
    }

    /// Says, for an acquisition, that nobody has written to it since this device released it, which
    /// spares work where the device has VK_EXT_external_memory_acquire_unmodified. Untrue, it is
    /// undefined what is read.
    pub fn unmodified(self) -> Self {
        Self {
            unmodified: true,
            ..self
        }
    }

    fn device(&self) -> &'a Device {
        match self.what {
            What::Image(image) => &image.device,
            What::Buffer(buffer) => &buffer.device,
        }
    }
}

/// Records the taking over from the outside world (`VK_QUEUE_FAMILY_FOREIGN_EXT`), contents kept,
/// of images into the layout of their use. One barrier for up to eight of them.
///
/// # Safety
/// `commands` is being recorded, outside a render pass, on the device of all that is given and for
/// its queue family. No other access by the outside happens until [`release`] has been executed.
pub unsafe fn acquire(commands: vk::CommandBuffer, transfers: &[Transfer<'_>]) {
    // The first stage is ALL_COMMANDS so that this follows what earlier submissions released.
    let stages = transfers.iter().map(|t| t.used.stages());
    let stages = (
        vk::PipelineStageFlags::ALL_COMMANDS,
        stages.fold(vk::PipelineStageFlags::empty(), |a, b| a | b),
    );
    for some in transfers.chunks(AT_ONCE) {
        // SAFETY: as the caller promises.
        unsafe { record(commands, some, stages, Direction::Acquire) };
    }
}

/// Records the handing back to the outside world, of images in layout GENERAL.
///
/// # Safety
/// As for [`acquire`], which has been recorded before for each of them, with the same use.
pub unsafe fn release(commands: vk::CommandBuffer, transfers: &[Transfer<'_>]) {
    let stages = transfers.iter().map(|t| t.used.stages());
    let stages = (
        stages.fold(vk::PipelineStageFlags::empty(), |a, b| a | b),
        vk::PipelineStageFlags::ALL_COMMANDS,
    );
    for some in transfers.chunks(AT_ONCE) {
        // SAFETY: as the caller promises.
        unsafe { record(commands, some, stages, Direction::Release) };
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Acquire,
    Release,
}

/// # Safety
/// As for [`acquire`].
unsafe fn record(
    commands: vk::CommandBuffer,
    transfers: &[Transfer<'_>],
    (first, second): (vk::PipelineStageFlags, vk::PipelineStageFlags),
    direction: Direction,
) {
    let Some(device) = transfers.first().map(Transfer::device) else {
        return;
    };
    let family = device.queue_family();
    let knows_unmodified = device.capabilities().has(Feature::AcquireUnmodified);
    let mut said = [vk::ExternalMemoryAcquireUnmodifiedEXT::default()
        .acquire_unmodified_memory(true); AT_ONCE];
    let mut images = ArrayVec::<_, AT_ONCE>::new();
    let mut buffers = ArrayVec::<_, AT_ONCE>::new();
    for (transfer, said) in transfers.iter().zip(&mut said) {
        let says = knows_unmodified && transfer.unmodified && direction == Direction::Acquire;
        match transfer.what {
            What::Image(image) => {
                let barrier = image_barrier(image.raw(), transfer.used, family, direction);
                images.push(match says {
                    true => barrier.push_next(said),
                    false => barrier,
                });
            }
            What::Buffer(buffer) => {
                let barrier = buffer_barrier(buffer.raw(), transfer.used, family, direction);
                buffers.push(match says {
                    true => barrier.push_next(said),
                    false => barrier,
                });
            }
        }
    }
    // SAFETY: the caller promises a command buffer of this device.
    unsafe {
        device.raw().cmd_pipeline_barrier(
            commands,
            first,
            second,
            vk::DependencyFlags::empty(),
            &[],
            &buffers,
            &images,
        );
    }
}

/// The outside's layout is GENERAL and not UNDEFINED, which would allow the contents to be lost.
fn image_barrier<'a>(
    image: vk::Image,
    used: Use,
    family: u32,
    direction: Direction,
) -> vk::ImageMemoryBarrier<'a> {
    let barrier = vk::ImageMemoryBarrier::default()
        .image(image)
        .subresource_range(WHOLE);
    match direction {
        Direction::Acquire => barrier
            .src_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .dst_queue_family_index(family)
            .old_layout(vk::ImageLayout::GENERAL)
            .new_layout(used.layout())
            .dst_access_mask(used.access()),
        Direction::Release => barrier
            .src_queue_family_index(family)
            .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .old_layout(used.layout())
            .new_layout(vk::ImageLayout::GENERAL)
            .src_access_mask(used.access()),
    }
}

fn buffer_barrier<'a>(
    buffer: vk::Buffer,
    used: Use,
    family: u32,
    direction: Direction,
) -> vk::BufferMemoryBarrier<'a> {
    let barrier = vk::BufferMemoryBarrier::default()
        .buffer(buffer)
        .size(vk::WHOLE_SIZE);
    match direction {
        Direction::Acquire => barrier
            .src_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .dst_queue_family_index(family)
            .dst_access_mask(used.access()),
        Direction::Release => barrier
            .src_queue_family_index(family)
            .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .src_access_mask(used.access()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USES: [Use; 5] = [
        Use::Source,
        Use::Destination,
        Use::Sampled,
        Use::Attachment,
        Use::Storage,
    ];

    // lavapipe keeps the contents whatever the barrier says, so no picture shows these.

    #[test]
    fn acquiring_keeps_the_contents() {
        for used in USES {
            let barrier = image_barrier(vk::Image::null(), used, 3, Direction::Acquire);
            assert_eq!(barrier.old_layout, vk::ImageLayout::GENERAL);
            assert_eq!(barrier.new_layout, used.layout());
            let families = (
                barrier.src_queue_family_index,
                barrier.dst_queue_family_index,
            );
            assert_eq!(families, (vk::QUEUE_FAMILY_FOREIGN_EXT, 3));
        }
    }

    #[test]
    fn releasing_undoes_acquiring_and_publishes_writes() {
        for used in USES {
            let acquired = image_barrier(vk::Image::null(), used, 3, Direction::Acquire);
            let released = image_barrier(vk::Image::null(), used, 3, Direction::Release);
            assert_eq!(released.old_layout, acquired.new_layout);
            assert_eq!(released.new_layout, acquired.old_layout);
            assert_eq!(
                (
                    released.src_queue_family_index,
                    released.dst_queue_family_index
                ),
                (
                    acquired.dst_queue_family_index,
                    acquired.src_queue_family_index
                )
            );
            assert_eq!(released.src_access_mask, used.access());
            let bytes = buffer_barrier(vk::Buffer::null(), used, 3, Direction::Release);
            assert_eq!(bytes.src_access_mask, released.src_access_mask);
            assert_eq!(bytes.dst_queue_family_index, vk::QUEUE_FAMILY_FOREIGN_EXT);
        }
    }
}
