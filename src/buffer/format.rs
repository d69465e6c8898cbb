//! What is known of each pixel format. The table is sorted by code, because lookups are binary searches; a test
//! checks the order.

use super::Fourcc;

/// One format plane: its blocks of pixels, and its subsampling against the picture.
///
/// Most formats have blocks of one pixel. Formats that hold several pixels in one word, such as
/// YUYV, or do not align pixels to bytes, such as NV15, have blocks of several pixels side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaneInfo {
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Pixels of this plane that a block is wide. All are one pixel high.
    pub block_width: u32,
    /// Horizontal subsampling: pixels of the picture to one of this plane (1: none).
    pub horizontal: u32,
    /// Vertical subsampling (1: none).
    pub vertical: u32,
}

impl PlaneInfo {
    /// Bytes of one pixel of this plane; `None` where blocks have several.
    pub fn bytes_per_pixel(&self) -> Option<u32> {
        (self.block_width == 1).then_some(self.block_bytes)
    }

    /// Bytes of one row of a picture `width` pixels wide: whole blocks. `None` where it overflows.
    pub fn row_bytes(&self, width: u32) -> Option<u32> {
        width
            .div_ceil(self.horizontal)
            .div_ceil(self.block_width)
            .checked_mul(self.block_bytes)
    }

    /// Rows of a picture `height` pixels high.
    pub fn rows(&self, height: u32) -> u32 {
        height.div_ceil(self.vertical)
    }
}

/// What the components of a format are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Colour {
    /// Red, green and blue, or the first one or two of them.
    Rgb,
    /// The same as IEEE 754 half floats.
    RgbFloat,
    /// Luma and colour differences. Which of their many meanings, the format does not say.
    YCbCr,
    /// Indices of a palette.
    Indexed,
}

/// What is known of a pixel format.
///
/// The numbers are those of the kernel's `drm_fourcc.c` and `drm_fourcc.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FormatInfo {
    /// Its code.
    pub fourcc: Fourcc,
    /// Its format planes, in order. A modifier can add memory planes to them.
    pub planes: &'static [PlaneInfo],
    /// Whether it carries alpha. Formats that do not, but have room for it, must be viewed with
    /// alpha forced to one.
    pub alpha: bool,
    /// What its components are.
    pub colour: Colour,
    /// Bits of the widest component that is not alpha.
    pub depth: u8,
    /// Pixels across and down that share their colour differences; (1, 1) without subsampling.
    /// Vulkan has only pictures of multiples of these (VUID-VkImageCreateInfo-format-04712 and
    /// -04713).
    pub chroma: (u32, u32),
}

impl FormatInfo {
    /// Looks a format up. `None` for codes this library does not know the layout of; they can
    /// still be carried in a [`DmaBuf`](super::DmaBuf). Among those are the big-endian codes, the
    /// formats that are never LINEAR (`YUV420_8BIT`, `YUV420_10BIT`, `VUY101010`), and those of
    /// 2x2 blocks (`X0L2` and its like), of whose stride the kernel and the hardware have
    /// different ideas.
    pub fn of(fourcc: Fourcc) -> Option<&'static FormatInfo> {
        let found = TABLE.binary_search_by_key(&fourcc, |info| info.fourcc);
        found.ok().map(|index| &TABLE[index])
    }

    /// All formats whose layout is known, ordered by their codes.
    pub fn all() -> impl Iterator<Item = &'static FormatInfo> {
        TABLE.iter()
    }

    /// The format of the same bytes whose alpha is unused: `XRGB8888` for `ARGB8888`. `None` for
    /// formats that have none, and for those that are without alpha themselves.
    pub fn opaque_twin(&self) -> Option<Fourcc> {
        let twins = TWINS.iter().find(|(_, alpha)| *alpha == self.fourcc);
        twins.map(|(opaque, _)| *opaque)
    }

    /// The format of the same bytes whose unused bits are alpha: `ARGB8888` for `XRGB8888`.
    pub fn alpha_twin(&self) -> Option<Fourcc> {
        let twins = TWINS.iter().find(|(opaque, _)| *opaque == self.fourcc);
        twins.map(|(_, alpha)| *alpha)
    }
}

const fn plane(block_bytes: u32, block_width: u32, (horizontal, vertical): Chroma) -> PlaneInfo {
    PlaneInfo {
        block_bytes,
        block_width,
        horizontal,
        vertical,
    }
}

const fn full(bytes: u32) -> PlaneInfo {
    plane(bytes, 1, FULL)
}

type Chroma = (u32, u32);
const FULL: Chroma = (1, 1);
/// 4:2:2
const WIDE: Chroma = (2, 1);
/// 4:2:0
const HALF: Chroma = (2, 2);

type Planes = &'static [PlaneInfo];
const ONE_BYTE: Planes = &[full(1)];
const TWO_BYTES: Planes = &[full(2)];
const THREE_BYTES: Planes = &[full(3)];
const FOUR_BYTES: Planes = &[full(4)];
const SIX_BYTES: Planes = &[full(6)];
const EIGHT_BYTES: Planes = &[full(8)];

const fn row(
    fourcc: Fourcc,
    planes: Planes,
    colour: Colour,
    depth: u8,
    chroma: Chroma,
) -> FormatInfo {
    FormatInfo {
        fourcc,
        planes,
        alpha: false,
        colour,
        depth,
        chroma,
    }
}

const fn rgb(fourcc: Fourcc, planes: Planes, depth: u8) -> FormatInfo {
    row(fourcc, planes, Colour::Rgb, depth, FULL)
}

const fn half_float(fourcc: Fourcc) -> FormatInfo {
    row(fourcc, EIGHT_BYTES, Colour::RgbFloat, 16, FULL)
}

const fn indexed(fourcc: Fourcc, planes: Planes, depth: u8) -> FormatInfo {
    row(fourcc, planes, Colour::Indexed, depth, FULL)
}

const fn yuv(fourcc: Fourcc, planes: Planes, depth: u8, chroma: Chroma) -> FormatInfo {
    row(fourcc, planes, Colour::YCbCr, depth, chroma)
}

const fn alpha(mut info: FormatInfo) -> FormatInfo {
    info.alpha = true;
    info
}

#[rustfmt::skip]
const ROWS: &[FormatInfo] = &[
    indexed(Fourcc::C1, &[plane(1, 8, FULL)], 1),
    indexed(Fourcc::C2, &[plane(1, 4, FULL)], 2),
    indexed(Fourcc::C4, &[plane(1, 2, FULL)], 4),
    indexed(Fourcc::C8, ONE_BYTE, 8),
    rgb(Fourcc::R1, &[plane(1, 8, FULL)], 1),
    rgb(Fourcc::R2, &[plane(1, 4, FULL)], 2),
    rgb(Fourcc::R4, &[plane(1, 2, FULL)], 4),
    rgb(Fourcc::R8, ONE_BYTE, 8),
    rgb(Fourcc::R10, TWO_BYTES, 10),
    rgb(Fourcc::R12, TWO_BYTES, 12),
    rgb(Fourcc::R16, TWO_BYTES, 16),
    rgb(Fourcc::RG88, TWO_BYTES, 8),
    rgb(Fourcc::GR88, TWO_BYTES, 8),
    rgb(Fourcc::RG1616, FOUR_BYTES, 16),
    rgb(Fourcc::GR1616, FOUR_BYTES, 16),
    rgb(Fourcc::RGB332, ONE_BYTE, 3),
    rgb(Fourcc::BGR233, ONE_BYTE, 3),
    rgb(Fourcc::XRGB4444, TWO_BYTES, 4), alpha(rgb(Fourcc::ARGB4444, TWO_BYTES, 4)),
    rgb(Fourcc::XBGR4444, TWO_BYTES, 4), alpha(rgb(Fourcc::ABGR4444, TWO_BYTES, 4)),
    rgb(Fourcc::RGBX4444, TWO_BYTES, 4), alpha(rgb(Fourcc::RGBA4444, TWO_BYTES, 4)),
    rgb(Fourcc::BGRX4444, TWO_BYTES, 4), alpha(rgb(Fourcc::BGRA4444, TWO_BYTES, 4)),
    rgb(Fourcc::XRGB1555, TWO_BYTES, 5), alpha(rgb(Fourcc::ARGB1555, TWO_BYTES, 5)),
    rgb(Fourcc::XBGR1555, TWO_BYTES, 5), alpha(rgb(Fourcc::ABGR1555, TWO_BYTES, 5)),
    rgb(Fourcc::RGBX5551, TWO_BYTES, 5), alpha(rgb(Fourcc::RGBA5551, TWO_BYTES, 5)),
    rgb(Fourcc::BGRX5551, TWO_BYTES, 5), alpha(rgb(Fourcc::BGRA5551, TWO_BYTES, 5)),
    rgb(Fourcc::RGB565, TWO_BYTES, 6),
    rgb(Fourcc::BGR565, TWO_BYTES, 6),
    rgb(Fourcc::RGB888, THREE_BYTES, 8),
    rgb(Fourcc::BGR888, THREE_BYTES, 8),
    rgb(Fourcc::XRGB8888, FOUR_BYTES, 8), alpha(rgb(Fourcc::ARGB8888, FOUR_BYTES, 8)),
    rgb(Fourcc::XBGR8888, FOUR_BYTES, 8), alpha(rgb(Fourcc::ABGR8888, FOUR_BYTES, 8)),
    rgb(Fourcc::RGBX8888, FOUR_BYTES, 8), alpha(rgb(Fourcc::RGBA8888, FOUR_BYTES, 8)),
    rgb(Fourcc::BGRX8888, FOUR_BYTES, 8), alpha(rgb(Fourcc::BGRA8888, FOUR_BYTES, 8)),
    rgb(Fourcc::XRGB2101010, FOUR_BYTES, 10), alpha(rgb(Fourcc::ARGB2101010, FOUR_BYTES, 10)),
    rgb(Fourcc::XBGR2101010, FOUR_BYTES, 10), alpha(rgb(Fourcc::ABGR2101010, FOUR_BYTES, 10)),
    rgb(Fourcc::RGBX1010102, FOUR_BYTES, 10), alpha(rgb(Fourcc::RGBA1010102, FOUR_BYTES, 10)),
    rgb(Fourcc::BGRX1010102, FOUR_BYTES, 10), alpha(rgb(Fourcc::BGRA1010102, FOUR_BYTES, 10)),
    rgb(Fourcc::RGB161616, SIX_BYTES, 16),
    rgb(Fourcc::BGR161616, SIX_BYTES, 16),
    rgb(Fourcc::XRGB16161616, EIGHT_BYTES, 16), alpha(rgb(Fourcc::ARGB16161616, EIGHT_BYTES, 16)),
    rgb(Fourcc::XBGR16161616, EIGHT_BYTES, 16), alpha(rgb(Fourcc::ABGR16161616, EIGHT_BYTES, 16)),
    half_float(Fourcc::XRGB16161616F), alpha(half_float(Fourcc::ARGB16161616F)),
    half_float(Fourcc::XBGR16161616F), alpha(half_float(Fourcc::ABGR16161616F)),
    alpha(rgb(Fourcc::AXBXGXRX106106106106, EIGHT_BYTES, 10)),

    alpha(rgb(Fourcc::XRGB8888_A8, &[full(4), full(1)], 8)),
    alpha(rgb(Fourcc::XBGR8888_A8, &[full(4), full(1)], 8)),
    alpha(rgb(Fourcc::RGBX8888_A8, &[full(4), full(1)], 8)),
    alpha(rgb(Fourcc::BGRX8888_A8, &[full(4), full(1)], 8)),
    alpha(rgb(Fourcc::RGB888_A8, &[full(3), full(1)], 8)),
    alpha(rgb(Fourcc::BGR888_A8, &[full(3), full(1)], 8)),
    alpha(rgb(Fourcc::RGB565_A8, &[full(2), full(1)], 6)),
    alpha(rgb(Fourcc::BGR565_A8, &[full(2), full(1)], 6)),

    yuv(Fourcc::YUYV, &[plane(4, 2, FULL)], 8, WIDE),
    yuv(Fourcc::YVYU, &[plane(4, 2, FULL)], 8, WIDE),
    yuv(Fourcc::UYVY, &[plane(4, 2, FULL)], 8, WIDE),
    yuv(Fourcc::VYUY, &[plane(4, 2, FULL)], 8, WIDE),
    yuv(Fourcc::Y210, &[plane(8, 2, FULL)], 10, WIDE),
    yuv(Fourcc::Y212, &[plane(8, 2, FULL)], 12, WIDE),
    yuv(Fourcc::Y216, &[plane(8, 2, FULL)], 16, WIDE),
    yuv(Fourcc::XYUV8888, FOUR_BYTES, 8, FULL), alpha(yuv(Fourcc::AYUV, FOUR_BYTES, 8, FULL)),
    yuv(Fourcc::XVUY8888, FOUR_BYTES, 8, FULL), alpha(yuv(Fourcc::AVUY8888, FOUR_BYTES, 8, FULL)),
    yuv(Fourcc::VUY888, THREE_BYTES, 8, FULL),
    yuv(Fourcc::XVYU2101010, FOUR_BYTES, 10, FULL), alpha(yuv(Fourcc::Y410, FOUR_BYTES, 10, FULL)),
    yuv(Fourcc::XVYU12_16161616, EIGHT_BYTES, 12, FULL),
    alpha(yuv(Fourcc::Y412, EIGHT_BYTES, 12, FULL)),
    yuv(Fourcc::XVYU16161616, EIGHT_BYTES, 16, FULL),
    alpha(yuv(Fourcc::Y416, EIGHT_BYTES, 16, FULL)),

    yuv(Fourcc::NV12, &[full(1), plane(2, 1, HALF)], 8, HALF),
    yuv(Fourcc::NV21, &[full(1), plane(2, 1, HALF)], 8, HALF),
    yuv(Fourcc::NV16, &[full(1), plane(2, 1, WIDE)], 8, WIDE),
    yuv(Fourcc::NV61, &[full(1), plane(2, 1, WIDE)], 8, WIDE),
    yuv(Fourcc::NV24, &[full(1), full(2)], 8, FULL),
    yuv(Fourcc::NV42, &[full(1), full(2)], 8, FULL),
    yuv(Fourcc::NV15, &[plane(5, 4, FULL), plane(5, 2, HALF)], 10, HALF),
    yuv(Fourcc::NV20, &[plane(5, 4, FULL), plane(5, 2, WIDE)], 10, WIDE),
    yuv(Fourcc::NV30, &[plane(5, 4, FULL), plane(5, 2, FULL)], 10, FULL),
    yuv(Fourcc::P010, &[full(2), plane(4, 1, HALF)], 10, HALF),
    yuv(Fourcc::P012, &[full(2), plane(4, 1, HALF)], 12, HALF),
    yuv(Fourcc::P016, &[full(2), plane(4, 1, HALF)], 16, HALF),
    yuv(Fourcc::P210, &[full(2), plane(4, 1, WIDE)], 10, WIDE),
    yuv(Fourcc::P030, &[plane(4, 3, FULL), plane(8, 3, HALF)], 10, HALF),

    yuv(Fourcc::YUV410, &[full(1), plane(1, 1, (4, 4)), plane(1, 1, (4, 4))], 8, (4, 4)),
    yuv(Fourcc::YVU410, &[full(1), plane(1, 1, (4, 4)), plane(1, 1, (4, 4))], 8, (4, 4)),
    yuv(Fourcc::YUV411, &[full(1), plane(1, 1, (4, 1)), plane(1, 1, (4, 1))], 8, (4, 1)),
    yuv(Fourcc::YVU411, &[full(1), plane(1, 1, (4, 1)), plane(1, 1, (4, 1))], 8, (4, 1)),
    yuv(Fourcc::YUV420, &[full(1), plane(1, 1, HALF), plane(1, 1, HALF)], 8, HALF),
    yuv(Fourcc::YVU420, &[full(1), plane(1, 1, HALF), plane(1, 1, HALF)], 8, HALF),
    yuv(Fourcc::YUV422, &[full(1), plane(1, 1, WIDE), plane(1, 1, WIDE)], 8, WIDE),
    yuv(Fourcc::YVU422, &[full(1), plane(1, 1, WIDE), plane(1, 1, WIDE)], 8, WIDE),
    yuv(Fourcc::YUV444, &[full(1), full(1), full(1)], 8, FULL),
    yuv(Fourcc::YVU444, &[full(1), full(1), full(1)], 8, FULL),
    yuv(Fourcc::Q410, &[full(2), full(2), full(2)], 10, FULL),
    yuv(Fourcc::Q401, &[full(2), full(2), full(2)], 10, FULL),
    yuv(Fourcc::S010, &[full(2), plane(2, 1, HALF), plane(2, 1, HALF)], 10, HALF),
    yuv(Fourcc::S210, &[full(2), plane(2, 1, WIDE), plane(2, 1, WIDE)], 10, WIDE),
    yuv(Fourcc::S410, &[full(2), full(2), full(2)], 10, FULL),
    yuv(Fourcc::S012, &[full(2), plane(2, 1, HALF), plane(2, 1, HALF)], 12, HALF),
    yuv(Fourcc::S212, &[full(2), plane(2, 1, WIDE), plane(2, 1, WIDE)], 12, WIDE),
    yuv(Fourcc::S412, &[full(2), full(2), full(2)], 12, FULL),
    yuv(Fourcc::S016, &[full(2), plane(2, 1, HALF), plane(2, 1, HALF)], 16, HALF),
    yuv(Fourcc::S216, &[full(2), plane(2, 1, WIDE), plane(2, 1, WIDE)], 16, WIDE),
    yuv(Fourcc::S416, &[full(2), full(2), full(2)], 16, FULL),
];

/// Formats of the same bytes, without alpha and with it.
#[rustfmt::skip]
const TWINS: &[(Fourcc, Fourcc)] = &[
    (Fourcc::XRGB4444, Fourcc::ARGB4444), (Fourcc::XBGR4444, Fourcc::ABGR4444),
    (Fourcc::RGBX4444, Fourcc::RGBA4444), (Fourcc::BGRX4444, Fourcc::BGRA4444),
    (Fourcc::XRGB1555, Fourcc::ARGB1555), (Fourcc::XBGR1555, Fourcc::ABGR1555),
    (Fourcc::RGBX5551, Fourcc::RGBA5551), (Fourcc::BGRX5551, Fourcc::BGRA5551),
    (Fourcc::XRGB8888, Fourcc::ARGB8888), (Fourcc::XBGR8888, Fourcc::ABGR8888),
    (Fourcc::RGBX8888, Fourcc::RGBA8888), (Fourcc::BGRX8888, Fourcc::BGRA8888),
    (Fourcc::XRGB2101010, Fourcc::ARGB2101010), (Fourcc::XBGR2101010, Fourcc::ABGR2101010),
    (Fourcc::RGBX1010102, Fourcc::RGBA1010102), (Fourcc::BGRX1010102, Fourcc::BGRA1010102),
    (Fourcc::XRGB16161616, Fourcc::ARGB16161616), (Fourcc::XBGR16161616, Fourcc::ABGR16161616),
    (Fourcc::XRGB16161616F, Fourcc::ARGB16161616F), (Fourcc::XBGR16161616F, Fourcc::ABGR16161616F),
    (Fourcc::XYUV8888, Fourcc::AYUV), (Fourcc::XVUY8888, Fourcc::AVUY8888),
    (Fourcc::XVYU2101010, Fourcc::Y410), (Fourcc::XVYU12_16161616, Fourcc::Y412),
    (Fourcc::XVYU16161616, Fourcc::Y416),
];

static TABLE: [FormatInfo; ROWS.len()] = sorted(ROWS);

/// The rows by their codes, so that they can be searched.
const fn sorted<const N: usize>(rows: &[FormatInfo]) -> [FormatInfo; N] {
    let mut table = [rows[0]; N];
    let mut filled = 0;
    while filled < N {
        let mut place = filled;
        while place > 0 && table[place - 1].fourcc.0 > rows[filled].fourcc.0 {
            table[place] = table[place - 1];
            place -= 1;
        }
        table[place] = rows[filled];
        filled += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Bits of a pixel of one plane of RGB, as the name says them.
    fn bits_by_name(name: &str) -> u32 {
        let digits = name.trim_matches(|c: char| c.is_ascii_uppercase());
        match digits {
            "16161616" | "106106106106" => 64,
            "161616" => 48,
            "1616" | "2101010" | "1010102" => 32,
            // The smallest number of bytes that holds them.
            "10" | "12" | "16" => 16,
            digits => digits.bytes().map(|digit| u32::from(digit - b'0')).sum(),
        }
    }

    #[test]
    fn pixels_are_as_large_as_their_names_say() {
        let rgb = |info: &&FormatInfo| matches!(info.colour, Colour::Rgb | Colour::RgbFloat);
        for info in FormatInfo::all().filter(rgb) {
            let name = info.fourcc.name().unwrap();
            let (name, planes) = match name.strip_suffix("_A8") {
                Some(name) => (name, 2),
                None => (name, 1),
            };
            let bits = info.planes[0].block_bytes * 8 / info.planes[0].block_width;
            assert_eq!(bits, bits_by_name(name), "{name}");
            assert_eq!(info.planes.len(), planes, "{name}");
            assert!(planes == 1 || info.planes[1] == full(1), "{name}");
        }
    }

    /// Bytes of all planes of a picture of 24x4 pixels without padding.
    fn bytes(fourcc: Fourcc) -> u32 {
        let info = FormatInfo::of(fourcc).unwrap();
        let planes = info.planes.iter();
        planes.map(|p| p.row_bytes(24).unwrap() * p.rows(4)).sum()
    }

    #[test]
    fn ycbcr_pictures_are_as_large_as_their_sampling_says() {
        // Components to a pixel: 3 in 4:4:4, 2 in 4:2:2, 1.5 in 4:2:0 and 4:1:1, 1.125 in 4:1:0.
        #[rustfmt::skip]
        let expected = [
            (8, 24, &[Fourcc::YUV444, Fourcc::YVU444, Fourcc::NV24, Fourcc::NV42,
                      Fourcc::VUY888][..]),
            (8, 16, &[Fourcc::YUV422, Fourcc::YVU422, Fourcc::NV16, Fourcc::NV61,
                      Fourcc::YUYV, Fourcc::YVYU, Fourcc::UYVY, Fourcc::VYUY]),
            (8, 12, &[Fourcc::YUV420, Fourcc::YVU420, Fourcc::NV12, Fourcc::NV21,
                      Fourcc::YUV411, Fourcc::YVU411]),
            (8, 9, &[Fourcc::YUV410, Fourcc::YVU410]),
            (16, 24, &[Fourcc::Q410, Fourcc::Q401, Fourcc::S410, Fourcc::S412, Fourcc::S416]),
            (16, 16, &[Fourcc::P210, Fourcc::S210, Fourcc::S212, Fourcc::S216,
                       Fourcc::Y210, Fourcc::Y212, Fourcc::Y216]),
            (16, 12, &[Fourcc::P010, Fourcc::P012, Fourcc::P016,
                       Fourcc::S010, Fourcc::S012, Fourcc::S016]),
            (10, 24, &[Fourcc::NV30]),
            (10, 16, &[Fourcc::NV20]),
            (10, 12, &[Fourcc::NV15]),
            // With a fourth component.
            (8, 32, &[Fourcc::AYUV, Fourcc::XYUV8888, Fourcc::AVUY8888, Fourcc::XVUY8888,
                      Fourcc::Y410, Fourcc::XVYU2101010]),
            (16, 32, &[Fourcc::Y412, Fourcc::XVYU12_16161616, Fourcc::Y416, Fourcc::XVYU16161616]),
        ];
        let mut checked = 1;
        for (component_bits, bits_per_pixel_of_8, formats) in expected {
            for &fourcc in formats {
                let bits = bits_per_pixel_of_8 * component_bits / 8 * 24 * 4;
                assert_eq!(bytes(fourcc), bits / 8, "{fourcc}");
                checked += 1;
            }
        }
        // Three components in four bytes, on both planes.
        assert_eq!(bytes(Fourcc::P030), 24 * 4 * 12 / 8 * 4 / 3);
        let all = FormatInfo::all().filter(|info| info.colour == Colour::YCbCr);
        assert_eq!(checked, all.count());
    }

    #[test]
    fn rows_of_an_odd_width_end_with_a_whole_block() {
        let row = |fourcc, plane: usize, width| {
            let info = FormatInfo::of(fourcc).unwrap();
            info.planes[plane].row_bytes(width).unwrap()
        };
        assert_eq!(row(Fourcc::YUYV, 0, 1), 4);
        assert_eq!(row(Fourcc::YUYV, 0, 33), 68);
        assert_eq!(row(Fourcc::NV12, 1, 33), 34);
        assert_eq!(row(Fourcc::NV15, 0, 5), 10);
        assert_eq!(row(Fourcc::NV15, 1, 5), 10);
        assert_eq!(row(Fourcc::R1, 0, 9), 2);
        assert_eq!(row(Fourcc::RGB888, 0, 3), 9);
    }

    #[test]
    fn twins_have_the_same_bytes_and_differ_in_alpha() {
        for &(opaque, alpha) in TWINS {
            let (x, a) = (
                FormatInfo::of(opaque).unwrap(),
                FormatInfo::of(alpha).unwrap(),
            );
            assert_eq!(x.alpha_twin(), Some(alpha));
            assert_eq!(a.opaque_twin(), Some(opaque));
            assert!(a.alpha && !x.alpha, "{opaque} {alpha}");
            let with_alpha = FormatInfo {
                fourcc: alpha,
                alpha: true,
                ..*x
            };
            assert_eq!(with_alpha, *a);
            // The names say so too, where they name each component.
            let (x, a) = (opaque.name().unwrap(), alpha.name().unwrap());
            if !a.contains('Y') {
                assert_eq!(x.replace('X', "A"), a);
            }
        }
        for info in FormatInfo::all() {
            let twins = info.opaque_twin().is_some() || info.alpha_twin().is_some();
            let named = info.fourcc.name().unwrap();
            let one_plane = info.planes.len() == 1;
            let names_spare_bits = one_plane && named.contains('X') && !named.starts_with("AX");
            assert_eq!(
                twins,
                names_spare_bits || (one_plane && info.alpha && !named.contains("X"))
            );
        }
    }

    #[test]
    fn every_named_format_is_known_but_those_without_rows_of_pixels() {
        let known: BTreeSet<Fourcc> = FormatInfo::all().map(|info| info.fourcc).collect();
        assert_eq!(known.len(), ROWS.len(), "a code twice");
        let unknown: Vec<_> = Fourcc::named()
            .filter(|fourcc| !known.contains(fourcc))
            .filter_map(Fourcc::name)
            .collect();
        let never_linear = ["VUY101010", "YUV420_8BIT", "YUV420_10BIT"];
        let blocks = ["Y0L0", "X0L0", "Y0L2", "X0L2"];
        assert_eq!(unknown, [&never_linear[..], &blocks[..]].concat());
        for fourcc in known {
            assert_eq!(FormatInfo::of(fourcc).unwrap().fourcc, fourcc);
            assert_eq!(FormatInfo::of(Fourcc(fourcc.0 | Fourcc::BIG_ENDIAN)), None);
        }
        assert_eq!(FormatInfo::of(Fourcc(0)), None);
        assert_eq!(FormatInfo::of(Fourcc(u32::MAX)), None);
    }
}
