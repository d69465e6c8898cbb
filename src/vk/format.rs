//! DRM formats and Vulkan formats of the same bytes.
//!
//! The two name them in different ways. DRM: from the most significant bit of a little-endian
//! word. Vulkan, of formats with `PACK` in their names: from the most significant bit of a word in
//! the host's byte order (of each word, where there are several); of all others: in the order of
//! memory, each component in the host's byte order (Vulkan specification, "Representation and
//! Texel Block Size"). So on a little-endian host a `PACK` format has DRM's name, and others have
//! it backwards. On a big-endian host only formats of bytes have a counterpart, and packed words
//! have that of the big-endian code.

use std::ffi::CStr;

use ash::{ext, khr, vk};

use crate::buffer::Fourcc;

/// The Vulkan format with the same bytes in memory as a DRM format, and how to see the same
/// colours in it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ImageFormat {
    /// The format. Memory of DRM's formats without alpha is seen as one with alpha.
    pub format: vk::Format,
    /// The format of the same bytes with colours decoded from sRGB. A view of it needs
    /// `VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT`, and with DRM modifiers a list of the view formats.
    pub srgb: Option<vk::Format>,
    /// What a view must do to the components, or where [`Self::ycbcr`] is set, the sampler
    /// conversion (the view must not then: VUID-VkImageViewCreateInfo-pNext-01970). Alpha is forced
    /// to one where the format has none and Vulkan's has.
    ///
    /// Attachments and storage images cannot be swizzled: see [`Self::in_order`].
    pub components: vk::ComponentMapping,
    /// Red is Cr, green Y and blue Cb: sampling needs a `VkSamplerYcbcrConversion`.
    pub ycbcr: bool,
    /// Formats of single planes, for copies and for views of one plane (Vulkan specification,
    /// "Plane Format Compatibility Table"). Empty where there is one plane.
    pub planes: &'static [vk::Format],
    /// The extension that brings the format, where it is not part of Vulkan 1.1. Of a device that
    /// has neither the extension nor [`Self::core`], not even a question about the format is
    /// valid.
    pub extension: Option<&'static CStr>,
    /// The version of Vulkan that has the format without an extension.
    pub core: u32,
}

impl ImageFormat {
    /// Whether colours are where Vulkan expects them, so that the format can be rendered to and
    /// stored to: [`Self::components`] forces alpha at most.
    pub fn in_order(&self) -> bool {
        let map = self.components;
        [map.r, map.g, map.b] == [vk::ComponentSwizzle::IDENTITY; 3]
    }

    /// Whether bytes of one format are the same picture in the other, but for alpha: what a copy
    /// of images needs, which does not look at swizzles.
    pub fn same_colours(&self, other: &Self) -> bool {
        let colours = |map: vk::ComponentMapping| [map.r, map.g, map.b];
        self.format == other.format && colours(self.components) == colours(other.components)
    }
}

/// The Vulkan format with the same bytes in memory. `None` where there is none on this host.
///
/// Formats that Vulkan has no name for are left out, also those whose bytes a shader could sort
/// out: packed 4:4:4 YCbCr, and components in the lower bits of 16 (`R10`, `S010`; Vulkan has them
/// in the upper bits).
pub fn format_of(fourcc: Fourcc) -> Option<&'static ImageFormat> {
    on_host(fourcc, BIG_ENDIAN_HOST)
}

/// The DRM formats whose pixels an image of this format has, with components in Vulkan's order:
/// the one with alpha and the one without, in no order. None for formats that DRM does not have.
/// Formats of sRGB are those of the same bytes: DRM's codes do not say how colours are encoded.
pub fn fourccs_of(format: vk::Format) -> impl Iterator<Item = Fourcc> {
    ROWS.iter()
        .filter(move |row| row.image.format == format || row.image.srgb == Some(format))
        .filter(|row| row.image.in_order())
        .filter_map(|row| row.fourcc_on(BIG_ENDIAN_HOST))
}

const BIG_ENDIAN_HOST: bool = cfg!(target_endian = "big");

fn on_host(fourcc: Fourcc, big_endian: bool) -> Option<&'static ImageFormat> {
    let plain = Fourcc(fourcc.0 & !Fourcc::BIG_ENDIAN);
    let row = ROWS.iter().find(|row| row.fourcc == plain)?;
    (row.fourcc_on(big_endian) == Some(fourcc)).then_some(&row.image)
}

struct Row {
    fourcc: Fourcc,
    unit: Unit,
    image: ImageFormat,
}

/// What Vulkan's format consists of, which decides what the host's byte order does to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Bytes in the order of memory.
    Bytes,
    /// One word of the host for a pixel.
    Word,
    /// Several words of the host for a pixel. In DRM they are one word, which on a big-endian host
    /// has them the other way round: no code names that.
    Words,
}

impl Row {
    /// The code for this row's Vulkan format on a host of this byte order.
    fn fourcc_on(&self, big_endian: bool) -> Option<Fourcc> {
        match (self.unit, big_endian) {
            (_, false) | (Unit::Bytes, true) => Some(self.fourcc),
            (Unit::Word, true) => Some(Fourcc(self.fourcc.0 | Fourcc::BIG_ENDIAN)),
            (Unit::Words, true) => None,
        }
    }

    const fn srgb(mut self, format: vk::Format) -> Self {
        self.image.srgb = Some(format);
        self
    }

    /// Where red, green, blue and alpha are to be found in Vulkan's format.
    const fn seen_as(
        mut self,
        r: vk::ComponentSwizzle,
        g: vk::ComponentSwizzle,
        b: vk::ComponentSwizzle,
        a: vk::ComponentSwizzle,
    ) -> Self {
        self.image.components = vk::ComponentMapping { r, g, b, a };
        self
    }

    /// Alpha is unused in DRM's format, and not absent from Vulkan's.
    const fn opaque(mut self) -> Self {
        self.image.components.a = vk::ComponentSwizzle::ONE;
        self
    }

    /// Cb and Cr are exchanged: what a conversion may undo also where they are subsampled
    /// (VUID-VkSamplerYcbcrConversionCreateInfo-components-02583 to -02585).
    const fn cr_first(self) -> Self {
        self.seen_as(B, SAME, R, SAME)
    }

    const fn ycbcr(mut self, planes: &'static [vk::Format]) -> Self {
        self.image.ycbcr = true;
        self.image.planes = planes;
        self
    }

    /// Not in Vulkan 1.1.
    const fn since(mut self, core: u32, extension: &'static CStr) -> Self {
        self.image.core = core;
        self.image.extension = Some(extension);
        self
    }

    /// VK_EXT_4444_formats
    const fn with_4444(self) -> Self {
        self.since(vk::API_VERSION_1_3, ext::_4444_formats::NAME)
    }

    /// VK_EXT_ycbcr_2plane_444_formats
    const fn with_2plane_444(self) -> Self {
        self.since(vk::API_VERSION_1_3, ext::ycbcr_2plane_444_formats::NAME)
    }

    /// VK_KHR_maintenance5
    const fn with_maintenance5(self) -> Self {
        let version_1_4 = vk::make_api_version(0, 1, 4, 0);
        self.since(version_1_4, khr::maintenance5::NAME)
    }
}

const fn row(fourcc: Fourcc, unit: Unit, format: vk::Format) -> Row {
    let image = ImageFormat {
        format,
        srgb: None,
        components: vk::ComponentMapping {
            r: SAME,
            g: SAME,
            b: SAME,
            a: SAME,
        },
        ycbcr: false,
        planes: &[],
        extension: None,
        core: vk::API_VERSION_1_1,
    };
    Row {
        fourcc,
        unit,
        image,
    }
}

const fn bytes(fourcc: Fourcc, format: vk::Format) -> Row {
    row(fourcc, Unit::Bytes, format)
}

const fn word(fourcc: Fourcc, format: vk::Format) -> Row {
    row(fourcc, Unit::Word, format)
}

const fn words(fourcc: Fourcc, format: vk::Format) -> Row {
    row(fourcc, Unit::Words, format)
}

const SAME: vk::ComponentSwizzle = vk::ComponentSwizzle::IDENTITY;
const R: vk::ComponentSwizzle = vk::ComponentSwizzle::R;
const G: vk::ComponentSwizzle = vk::ComponentSwizzle::G;
const B: vk::ComponentSwizzle = vk::ComponentSwizzle::B;
const A: vk::ComponentSwizzle = vk::ComponentSwizzle::A;
const ONE: vk::ComponentSwizzle = vk::ComponentSwizzle::ONE;

type F = vk::Format;

const PLANES_8: &[F] = &[F::R8_UNORM, F::R8G8_UNORM];
const PLANES_10: &[F] = &[F::R10X6_UNORM_PACK16, F::R10X6G10X6_UNORM_2PACK16];
const PLANES_12: &[F] = &[F::R12X4_UNORM_PACK16, F::R12X4G12X4_UNORM_2PACK16];
const PLANES_16: &[F] = &[F::R16_UNORM, F::R16G16_UNORM];
const THREE_8: &[F] = &[F::R8_UNORM; 3];
const THREE_10: &[F] = &[F::R10X6_UNORM_PACK16; 3];
const THREE_16: &[F] = &[F::R16_UNORM; 3];

#[rustfmt::skip]
static ROWS: &[Row] = &[
    bytes(Fourcc::R8, F::R8_UNORM).srgb(F::R8_SRGB),
    bytes(Fourcc::GR88, F::R8G8_UNORM).srgb(F::R8G8_SRGB),
    bytes(Fourcc::RG88, F::R8G8_UNORM).srgb(F::R8G8_SRGB).seen_as(G, R, SAME, SAME),
    bytes(Fourcc::BGR888, F::R8G8B8_UNORM).srgb(F::R8G8B8_SRGB),
    bytes(Fourcc::RGB888, F::B8G8R8_UNORM).srgb(F::B8G8R8_SRGB),
    bytes(Fourcc::ARGB8888, F::B8G8R8A8_UNORM).srgb(F::B8G8R8A8_SRGB),
    bytes(Fourcc::XRGB8888, F::B8G8R8A8_UNORM).srgb(F::B8G8R8A8_SRGB).opaque(),
    bytes(Fourcc::ABGR8888, F::R8G8B8A8_UNORM).srgb(F::R8G8B8A8_SRGB),
    bytes(Fourcc::XBGR8888, F::R8G8B8A8_UNORM).srgb(F::R8G8B8A8_SRGB).opaque(),
    // Alpha, or nothing, comes first in memory, which is no format of Vulkan's. Not with sRGB,
    // which would decode it and leave the last colour as it is.
    bytes(Fourcc::RGBA8888, F::R8G8B8A8_UNORM).seen_as(A, B, G, R),
    bytes(Fourcc::RGBX8888, F::R8G8B8A8_UNORM).seen_as(A, B, G, ONE),
    bytes(Fourcc::BGRA8888, F::R8G8B8A8_UNORM).seen_as(G, B, A, R),
    bytes(Fourcc::BGRX8888, F::R8G8B8A8_UNORM).seen_as(G, B, A, ONE),

    word(Fourcc::RGBA4444, F::R4G4B4A4_UNORM_PACK16),
    word(Fourcc::RGBX4444, F::R4G4B4A4_UNORM_PACK16).opaque(),
    word(Fourcc::BGRA4444, F::B4G4R4A4_UNORM_PACK16),
    word(Fourcc::BGRX4444, F::B4G4R4A4_UNORM_PACK16).opaque(),
    word(Fourcc::ARGB4444, F::A4R4G4B4_UNORM_PACK16).with_4444(),
    word(Fourcc::XRGB4444, F::A4R4G4B4_UNORM_PACK16).with_4444().opaque(),
    word(Fourcc::ABGR4444, F::A4B4G4R4_UNORM_PACK16).with_4444(),
    word(Fourcc::XBGR4444, F::A4B4G4R4_UNORM_PACK16).with_4444().opaque(),
    word(Fourcc::RGBA5551, F::R5G5B5A1_UNORM_PACK16),
    word(Fourcc::RGBX5551, F::R5G5B5A1_UNORM_PACK16).opaque(),
    word(Fourcc::BGRA5551, F::B5G5R5A1_UNORM_PACK16),
    word(Fourcc::BGRX5551, F::B5G5R5A1_UNORM_PACK16).opaque(),
    word(Fourcc::ARGB1555, F::A1R5G5B5_UNORM_PACK16),
    word(Fourcc::XRGB1555, F::A1R5G5B5_UNORM_PACK16).opaque(),
    word(Fourcc::ABGR1555, F::A1B5G5R5_UNORM_PACK16_KHR).with_maintenance5(),
    word(Fourcc::XBGR1555, F::A1B5G5R5_UNORM_PACK16_KHR).with_maintenance5().opaque(),
    word(Fourcc::RGB565, F::R5G6B5_UNORM_PACK16),
    word(Fourcc::BGR565, F::B5G6R5_UNORM_PACK16),
    word(Fourcc::ARGB2101010, F::A2R10G10B10_UNORM_PACK32),
    word(Fourcc::XRGB2101010, F::A2R10G10B10_UNORM_PACK32).opaque(),
    word(Fourcc::ABGR2101010, F::A2B10G10R10_UNORM_PACK32),
    word(Fourcc::XBGR2101010, F::A2B10G10R10_UNORM_PACK32).opaque(),
    word(Fourcc::R16, F::R16_UNORM),

    words(Fourcc::GR1616, F::R16G16_UNORM),
    words(Fourcc::RG1616, F::R16G16_UNORM).seen_as(G, R, SAME, SAME),
    words(Fourcc::BGR161616, F::R16G16B16_UNORM),
    words(Fourcc::RGB161616, F::R16G16B16_UNORM).seen_as(B, SAME, R, SAME),
    words(Fourcc::ABGR16161616, F::R16G16B16A16_UNORM),
    words(Fourcc::XBGR16161616, F::R16G16B16A16_UNORM).opaque(),
    words(Fourcc::ARGB16161616, F::R16G16B16A16_UNORM).seen_as(B, SAME, R, SAME),
    words(Fourcc::XRGB16161616, F::R16G16B16A16_UNORM).seen_as(B, SAME, R, ONE),
    words(Fourcc::ABGR16161616F, F::R16G16B16A16_SFLOAT),
    words(Fourcc::XBGR16161616F, F::R16G16B16A16_SFLOAT).opaque(),
    words(Fourcc::ARGB16161616F, F::R16G16B16A16_SFLOAT).seen_as(B, SAME, R, SAME),
    words(Fourcc::XRGB16161616F, F::R16G16B16A16_SFLOAT).seen_as(B, SAME, R, ONE),
    words(Fourcc::AXBXGXRX106106106106, F::R10X6G10X6B10X6A10X6_UNORM_4PACK16),

    bytes(Fourcc::YUYV, F::G8B8G8R8_422_UNORM).ycbcr(&[]),
    bytes(Fourcc::YVYU, F::G8B8G8R8_422_UNORM).ycbcr(&[]).cr_first(),
    bytes(Fourcc::UYVY, F::B8G8R8G8_422_UNORM).ycbcr(&[]),
    bytes(Fourcc::VYUY, F::B8G8R8G8_422_UNORM).ycbcr(&[]).cr_first(),
    words(Fourcc::Y210, F::G10X6B10X6G10X6R10X6_422_UNORM_4PACK16).ycbcr(&[]),
    words(Fourcc::Y212, F::G12X4B12X4G12X4R12X4_422_UNORM_4PACK16).ycbcr(&[]),
    words(Fourcc::Y216, F::G16B16G16R16_422_UNORM).ycbcr(&[]),

    bytes(Fourcc::NV12, F::G8_B8R8_2PLANE_420_UNORM).ycbcr(PLANES_8),
    bytes(Fourcc::NV21, F::G8_B8R8_2PLANE_420_UNORM).ycbcr(PLANES_8).cr_first(),
    bytes(Fourcc::NV16, F::G8_B8R8_2PLANE_422_UNORM).ycbcr(PLANES_8),
    bytes(Fourcc::NV61, F::G8_B8R8_2PLANE_422_UNORM).ycbcr(PLANES_8).cr_first(),
    bytes(Fourcc::NV24, F::G8_B8R8_2PLANE_444_UNORM).ycbcr(PLANES_8).with_2plane_444(),
    bytes(Fourcc::NV42, F::G8_B8R8_2PLANE_444_UNORM).ycbcr(PLANES_8).with_2plane_444().cr_first(),
    words(Fourcc::P010, F::G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16).ycbcr(PLANES_10),
    words(Fourcc::P012, F::G12X4_B12X4R12X4_2PLANE_420_UNORM_3PACK16).ycbcr(PLANES_12),
    words(Fourcc::P016, F::G16_B16R16_2PLANE_420_UNORM).ycbcr(PLANES_16),
    words(Fourcc::P210, F::G10X6_B10X6R10X6_2PLANE_422_UNORM_3PACK16).ycbcr(PLANES_10),

    bytes(Fourcc::YUV420, F::G8_B8_R8_3PLANE_420_UNORM).ycbcr(THREE_8),
    bytes(Fourcc::YVU420, F::G8_B8_R8_3PLANE_420_UNORM).ycbcr(THREE_8).cr_first(),
    bytes(Fourcc::YUV422, F::G8_B8_R8_3PLANE_422_UNORM).ycbcr(THREE_8),
    bytes(Fourcc::YVU422, F::G8_B8_R8_3PLANE_422_UNORM).ycbcr(THREE_8).cr_first(),
    bytes(Fourcc::YUV444, F::G8_B8_R8_3PLANE_444_UNORM).ycbcr(THREE_8),
    bytes(Fourcc::YVU444, F::G8_B8_R8_3PLANE_444_UNORM).ycbcr(THREE_8).cr_first(),
    words(Fourcc::Q410, F::G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16).ycbcr(THREE_10),
    words(Fourcc::Q401, F::G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16).ycbcr(THREE_10).cr_first(),
    words(Fourcc::S016, F::G16_B16_R16_3PLANE_420_UNORM).ycbcr(THREE_16),
    words(Fourcc::S216, F::G16_B16_R16_3PLANE_422_UNORM).ycbcr(THREE_16),
    words(Fourcc::S416, F::G16_B16_R16_3PLANE_444_UNORM).ycbcr(THREE_16),
];

#[cfg(test)]
mod tests;
