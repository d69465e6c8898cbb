//! What drivers say they can do and cannot, each with its source.

use std::sync::Once;

use ash::vk;

use super::PhysicalDevice;

/// lavapipe lists the DISJOINT feature for multi-planar formats with modifiers and says that it
/// imports such images, but takes every memory plane for the first one when they are bound, and
/// crashes. (Mesa 26.1.6: seen; `lvp_image_aspects_to_plane` in `lvp_private.h` knows PLANE_1 and
/// PLANE_2, and of the aspects that the specification wants here,
/// VUID-VkBindImagePlaneMemoryInfo-planeAspect-02284, none.)
pub(super) fn crashes_on_disjoint(device: &PhysicalDevice) -> bool {
    device.driver_id() == Some(vk::DriverId::MESA_LLVMPIPE)
}

/// lavapipe has one sync file that is signalled and gives dups of it for all that is done, so that an
/// epoll which was given one of them reports it until the device is gone. (Mesa 26.1.6: seen, by
/// `kcmp` of two of them.)
pub(super) fn shares_sync_files(device: &PhysicalDevice) -> bool {
    device.driver_id() == Some(vk::DriverId::MESA_LLVMPIPE)
}

/// venus ends the process (`abort`) if it is given a dma-buf of a classic virtio-gpu resource.
///
/// (Mesa 26.1.6: seen; `virtgpu_bo_create_from_dma_buf` in `vn_renderer_virtgpu.c` takes resources
/// with `blob_mem` 0, "classic 3d", `vn_get_memory_dma_buf_properties` asks the host for their memory
/// types, and the host's renderer, which has no memory behind them, ends the connection.)
pub(super) fn aborts_on_classic_resources(device: &PhysicalDevice) -> bool {
    device.driver_id() == Some(vk::DriverId::MESA_VENUS)
}

/// venus waits for a pending sync file itself, in vkQueueSubmit: `vn_semaphore_wait_external`, called by
/// `vn_queue_submission_fix_batch_semaphores` (Mesa 26.1.6: seen). So it is given none, since nothing
/// here waits for a GPU unless its name says so.
pub(super) fn waits_in_submissions(device: &PhysicalDevice) -> bool {
    device.driver_id() == Some(vk::DriverId::MESA_VENUS)
}

/// Keeps venus's library loaded for good, where `driver` is venus.
///
/// Each thread that has called venus has memory of it, which a function in that library frees when
/// the thread ends. The Vulkan loader unloads the library with the last instance, so that a thread
/// that ends later jumps to where nothing is. (Mesa 26.1.6: seen; `vn_tls_key_create_once` in
/// `vn_common.c` makes a key with a destructor, and nothing deletes it.)
pub(super) fn keep_loaded(driver: Option<vk::DriverId>) {
    static ONCE: Once = Once::new();
    if driver != Some(vk::DriverId::MESA_VENUS) {
        return;
    }
    ONCE.call_once(|| {
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: a library of this name (its `DT_SONAME`) is only looked for among those that are
        // loaded, so that no code of it runs.
        if unsafe { libc::dlopen(c"libvulkan_virtio.so".as_ptr(), flags) }.is_null() {
            log::warn!("venus may be unloaded too early: its library goes by another name");
        }
    });
}
