//! What drivers say they can do and cannot, each with its source.

use ash::vk;

use super::PhysicalDevice;

/// lavapipe lists the DISJOINT feature for multi-planar formats with modifiers and says that it
/// imports such images, but takes every memory plane for the first one when they are bound, and
/// crashes. (Mesa 26.1.6: seen; `lvp_image_aspects_to_plane` in `lvp_private.h` knows PLANE_1 and
/// PLANE_2, and of the aspects that the specification wants here,
/// VUID-VkBindImagePlaneMemoryInfo-planeAspect-02284, none.)
pub(super) fn crashes_on_disjoint(device: &PhysicalDevice) -> bool {
    device.driver() == Some(vk::DriverId::MESA_LLVMPIPE)
}
