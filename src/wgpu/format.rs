//! wgpu's formats and uses for those of DRM and Vulkan.

use ash::vk::{Format as F, ImageUsageFlags};
use wgpu::{TextureFormat as T, TextureUsages, TextureUses};

use crate::buffer::Fourcc;
use crate::vk::{self, Use};

/// wgpu's texture format with the same bytes in memory. `None` if wgpu has none.
///
/// wgpu has no swizzles: formats whose colours are in another order have no texture format, and of
/// formats without alpha (`X`), what a shader samples as alpha is undefined: take it for one.
pub fn format_of(fourcc: Fourcc) -> Option<T> {
    let known = vk::format_of(fourcc).filter(|known| known.in_order())?;
    texture_format(known.format)
}

/// The inverse of `map_texture_format` in `wgpu_hal::vulkan`.
fn texture_format(format: F) -> Option<T> {
    Some(match format {
        F::R8_UNORM => T::R8Unorm,
        F::R8G8_UNORM => T::Rg8Unorm,
        F::R8G8B8A8_UNORM => T::Rgba8Unorm,
        F::B8G8R8A8_UNORM => T::Bgra8Unorm,
        F::A2B10G10R10_UNORM_PACK32 => T::Rgb10a2Unorm,
        F::R16_UNORM => T::R16Unorm,
        F::R16G16_UNORM => T::Rg16Unorm,
        F::R16G16B16A16_UNORM => T::Rgba16Unorm,
        F::R16_SFLOAT => T::R16Float,
        F::R16G16_SFLOAT => T::Rg16Float,
        F::R16G16B16A16_SFLOAT => T::Rgba16Float,
        F::R32_SFLOAT => T::R32Float,
        F::R32G32_SFLOAT => T::Rg32Float,
        F::R32G32B32A32_SFLOAT => T::Rgba32Float,
        F::G8_B8R8_2PLANE_420_UNORM => T::NV12,
        F::G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16 => T::P010,
        _ => return None,
    })
}

/// The uses of shared textures, by wgpu's name, wgpu-hal's name and Vulkan's name.
const USES: [(TextureUsages, TextureUses, Use); 5] = [
    (TextureUsages::COPY_SRC, TextureUses::COPY_SRC, Use::Source),
    (
        TextureUsages::TEXTURE_BINDING,
        TextureUses::RESOURCE,
        Use::Sampled,
    ),
    (
        TextureUsages::RENDER_ATTACHMENT,
        TextureUses::COLOR_TARGET,
        Use::Attachment,
    ),
    (
        TextureUsages::STORAGE_BINDING,
        TextureUses::STORAGE_READ_WRITE,
        Use::Storage,
    ),
    (
        TextureUsages::COPY_DST,
        TextureUses::COPY_DST,
        Use::Destination,
    ),
];

/// The usages that textures are not shared for.
pub(super) fn unknown(usages: TextureUsages) -> TextureUsages {
    USES.iter().fold(usages, |left, (usage, ..)| left - *usage)
}

pub(super) fn image_usage(usages: TextureUsages) -> ImageUsageFlags {
    USES.iter()
        .filter(|(usage, ..)| usages.contains(*usage))
        .fold(ImageUsageFlags::empty(), |flags, (_, _, used)| {
            flags | used.usage()
        })
}

/// The state in which an acquired texture is handed to wgpu, and into which wgpu brings it before the release.
/// Both are the same state. The texture must have been made for it, as Vulkan demands of its layout
/// (VUID-VkImageMemoryBarrier-oldLayout-01208 to -01213).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleState {
    /// wgpu's name for it.
    pub(super) state: TextureUses,
    /// Vulkan's: the same layout, stages and accesses (`derive_image_layout` and
    /// `map_texture_usage_to_barrier` of wgpu-hal).
    pub(super) used: Use,
}

/// The first such state that the texture is made for. `None` without any use.
pub(super) fn idle_state(usages: TextureUsages) -> Option<IdleState> {
    let mut uses = USES.iter();
    let (_, state, used) = uses.find(|(usage, ..)| usages.contains(*usage))?;
    Some(IdleState {
        state: *state,
        used: *used,
    })
}

#[cfg(test)]
mod tests {
    use wgpu::hal::vulkan::conv;

    use super::*;

    #[test]
    fn idle_textures_have_the_layout_that_wgpu_thinks_they_have() {
        for (usage, state, used) in USES {
            assert_eq!(idle_state(usage), Some(IdleState { state, used }));
            let layout = conv::derive_image_layout(state, T::Bgra8Unorm);
            assert_eq!(layout, used.layout(), "{state:?}");
            let all = TextureUses::STORAGE_READ_ONLY | TextureUses::STORAGE_WRITE_ONLY | state;
            assert!(conv::map_texture_usage(all).contains(image_usage(usage)));
        }
        assert_eq!(idle_state(TextureUsages::empty()), None);
    }

    #[test]
    fn formats_keep_their_bytes_and_their_order_of_colours() {
        assert_eq!(format_of(Fourcc::XRGB8888), Some(T::Bgra8Unorm));
        assert_eq!(format_of(Fourcc::ABGR8888), Some(T::Rgba8Unorm));
        assert_eq!(format_of(Fourcc::ABGR2101010), Some(T::Rgb10a2Unorm));
        assert_eq!(format_of(Fourcc::NV12), Some(T::NV12));
        // Red and blue would be exchanged, or Cr and Cb.
        assert_eq!(format_of(Fourcc::ARGB2101010), None);
        assert_eq!(format_of(Fourcc::new(b"NV21")), None);
        assert_eq!(format_of(Fourcc::new(b"????")), None);
    }
}
