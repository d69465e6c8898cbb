use ash::vk;

use crate::buffer::Fourcc;

/// The Vulkan format with the same bytes in memory. `None` where there is none.
///
/// DRM names components from the most significant bit of a little-endian word, Vulkan in memory
/// order for byte-sized components, and from the most significant bit for `PACK` formats. Formats
/// without alpha have the one with alpha: views must force it to one.
pub fn format_of(fourcc: Fourcc) -> Option<vk::Format> {
    Some(match fourcc {
        Fourcc::XRGB8888 | Fourcc::ARGB8888 => vk::Format::B8G8R8A8_UNORM,
        Fourcc::XBGR8888 | Fourcc::ABGR8888 => vk::Format::R8G8B8A8_UNORM,
        Fourcc::RGB565 => vk::Format::R5G6B5_UNORM_PACK16,
        Fourcc::XRGB2101010 | Fourcc::ARGB2101010 => vk::Format::A2R10G10B10_UNORM_PACK32,
        Fourcc::XBGR2101010 | Fourcc::ABGR2101010 => vk::Format::A2B10G10R10_UNORM_PACK32,
        Fourcc::XBGR16161616F | Fourcc::ABGR16161616F => vk::Format::R16G16B16A16_SFLOAT,
        Fourcc::R8 => vk::Format::R8_UNORM,
        Fourcc::GR88 => vk::Format::R8G8_UNORM,
        Fourcc::NV12 => vk::Format::G8_B8R8_2PLANE_420_UNORM,
        Fourcc::P010 => vk::Format::G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16,
        _ => return None,
    })
}
