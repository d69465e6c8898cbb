//! Handing images over between the outside world and a Vulkan queue.

use ash::vk;

use super::Image;

/// Records the taking over of images from the outside world (`VK_QUEUE_FAMILY_FOREIGN_EXT`),
/// contents kept, each into the layout of its use. One barrier for all of them.
///
/// # Safety
/// `commands` is being recorded, on the device of the images and for its queue family. No other
/// access by the outside happens until [`release`] has been executed.
pub unsafe fn acquire<const N: usize>(commands: vk::CommandBuffer, images: [&Image; N]) {
    // The old layout is GENERAL and not UNDEFINED, which would allow the contents to be lost. The
    // first stage is ALL_COMMANDS so that this follows what earlier submissions released.
    let barriers = images.map(|image| {
        barrier(image)
            .src_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .dst_queue_family_index(image.device.queue_family())
            .old_layout(vk::ImageLayout::GENERAL)
            .new_layout(image.used_as().layout())
            .dst_access_mask(image.used_as().access())
    });
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
    let barriers = images.map(|image| {
        barrier(image)
            .src_queue_family_index(image.device.queue_family())
            .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT)
            .old_layout(image.used_as().layout())
            .new_layout(vk::ImageLayout::GENERAL)
            .src_access_mask(image.used_as().access())
    });
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

fn barrier(image: &Image) -> vk::ImageMemoryBarrier<'static> {
    vk::ImageMemoryBarrier::default()
        .image(image.raw())
        .subresource_range(
            vk::ImageSubresourceRange::default()
                .aspect_mask(vk::ImageAspectFlags::COLOR)
                .level_count(1)
                .layer_count(1),
        )
}
