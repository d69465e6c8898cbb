//! Handing images over between the outside world and a Vulkan queue.

use ash::vk;

use super::{Image, Use};

/// Records the taking over of images from the outside world (`VK_QUEUE_FAMILY_FOREIGN_EXT`),
/// contents kept, each into the layout of its use. One barrier for all of them.
///
/// # Safety
/// `commands` is being recorded, on the device of the images and for its queue family. No other
/// access by the outside happens until [`release`] has been executed.
pub unsafe fn acquire<const N: usize>(commands: vk::CommandBuffer, images: [&Image; N]) {
    // The first stage is ALL_COMMANDS so that this follows what earlier submissions released.
    let barriers =
        images.map(|image| from_foreign(image.raw(), image.used_as(), image.device.queue_family()));
    let stages = [
        vk::PipelineStageFlags::ALL_COMMANDS,
        vk::PipelineStageFlags::TRANSFER,
    ];
    // SAFETY: as the caller promises.
    unsafe { record(commands, images, stages, &barriers) };
}

/// Records the handing back of images to the outside world, in layout GENERAL.
///
/// # Safety
/// As for [`acquire`], which has been recorded before for each of them.
pub unsafe fn release<const N: usize>(commands: vk::CommandBuffer, images: [&Image; N]) {
    let barriers =
        images.map(|image| to_foreign(image.raw(), image.used_as(), image.device.queue_family()));
    let stages = [
        vk::PipelineStageFlags::TRANSFER,
        vk::PipelineStageFlags::ALL_COMMANDS,
    ];
    // SAFETY: as the caller promises.
    unsafe { record(commands, images, stages, &barriers) };
}

/// # Safety
/// As for [`acquire`].
unsafe fn record<const N: usize>(
    commands: vk::CommandBuffer,
    images: [&Image; N],
    [first, second]: [vk::PipelineStageFlags; 2],
    barriers: &[vk::ImageMemoryBarrier<'_>],
) {
    let Some(image) = images.first() else {
        return;
    };
    // SAFETY: the caller promises a command buffer of the images' device.
    unsafe {
        image.device.raw().cmd_pipeline_barrier(
            commands,
            first,
            second,
            vk::DependencyFlags::empty(),
            &[],
            &[],
            barriers,
        );
    }
}

/// The old layout is GENERAL and not UNDEFINED, which would allow the contents to be lost.
fn from_foreign(image: vk::Image, used_as: Use, family: u32) -> vk::ImageMemoryBarrier<'static> {
    barrier(image)
        .src_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
        .dst_queue_family_index(family)
        .old_layout(vk::ImageLayout::GENERAL)
        .new_layout(used_as.layout())
        .dst_access_mask(used_as.access())
}

fn to_foreign(image: vk::Image, used_as: Use, family: u32) -> vk::ImageMemoryBarrier<'static> {
    barrier(image)
        .src_queue_family_index(family)
        .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
        .old_layout(used_as.layout())
        .new_layout(vk::ImageLayout::GENERAL)
        .src_access_mask(used_as.access())
}

fn barrier(image: vk::Image) -> vk::ImageMemoryBarrier<'static> {
    vk::ImageMemoryBarrier::default()
        .image(image)
        .subresource_range(
            vk::ImageSubresourceRange::default()
                .aspect_mask(vk::ImageAspectFlags::COLOR)
                .level_count(1)
                .layer_count(1),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    // lavapipe keeps the contents whatever the barrier says, so no picture shows these.

    #[test]
    fn acquiring_keeps_the_contents() {
        for used_as in [Use::Source, Use::Destination] {
            let barrier = from_foreign(vk::Image::null(), used_as, 3);
            assert_eq!(barrier.old_layout, vk::ImageLayout::GENERAL);
            assert_eq!(barrier.new_layout, used_as.layout());
            let families = (
                barrier.src_queue_family_index,
                barrier.dst_queue_family_index,
            );
            assert_eq!(families, (vk::QUEUE_FAMILY_FOREIGN_EXT, 3));
        }
    }

    #[test]
    fn releasing_undoes_acquiring_and_publishes_writes() {
        let acquired = from_foreign(vk::Image::null(), Use::Destination, 3);
        let released = to_foreign(vk::Image::null(), Use::Destination, 3);
        assert_eq!(released.old_layout, acquired.new_layout);
        assert_eq!(released.new_layout, acquired.old_layout);
        assert_eq!(
            released.src_queue_family_index,
            acquired.dst_queue_family_index
        );
        assert_eq!(
            released.dst_queue_family_index,
            acquired.src_queue_family_index
        );
        assert_eq!(released.src_access_mask, vk::AccessFlags::TRANSFER_WRITE);
    }
}
