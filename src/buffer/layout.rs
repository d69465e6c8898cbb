//! Pure arithmetic on plane layouts: what fits where.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::overlap::{Rows, overlap};
use super::{BufferFlags, Error, FormatInfo, Fourcc, MAX_PLANES, Modifier, Plane, PlaneInfo};

/// Size, format, modifier and flags of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BufferDesc {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixel format.
    pub fourcc: Fourcc,
    /// Arrangement in memory.
    pub modifier: Modifier,
    /// How the rows make the picture. Empty: from top to bottom, all at once.
    pub flags: BufferFlags,
}

impl BufferDesc {
    /// A picture without flags.
    pub fn new(width: u32, height: u32, fourcc: Fourcc, modifier: Modifier) -> Self {
        Self {
            width,
            height,
            fourcc,
            modifier,
            flags: BufferFlags::empty(),
        }
    }

    /// A picture with LINEAR rows, without flags.
    pub fn linear(width: u32, height: u32, fourcc: Fourcc) -> Self {
        Self::new(width, height, fourcc, Modifier::LINEAR)
    }

    /// As [`Self::new`], with the signed sizes of Wayland and C. [`Error::Negative`] if one is below zero;
    /// zero is refused where a buffer is made.
    pub fn from_signed(
        width: i32,
        height: i32,
        fourcc: Fourcc,
        modifier: Modifier,
    ) -> Result<Self, Error> {
        let sides = u32::try_from(width).and_then(|w| Ok((w, u32::try_from(height)?)));
        let (w, h) = sides.map_err(|_| Error::Negative { width, height })?;
        Ok(Self::new(w, h, fourcc, modifier))
    }

    /// The same in another size, in pixels.
    pub fn with_size(self, width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            ..self
        }
    }

    /// The same in another format.
    pub fn with_fourcc(self, fourcc: Fourcc) -> Self {
        Self { fourcc, ..self }
    }

    /// The same in another arrangement in memory.
    pub fn with_modifier(self, modifier: Modifier) -> Self {
        Self { modifier, ..self }
    }

    /// The same with these flags.
    pub fn with_flags(self, flags: BufferFlags) -> Self {
        Self { flags, ..self }
    }
}

/// A plane's place: offset and stride, and the dma-buf it lies in.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    /// Which of the buffer's dma-bufs.
    pub(crate) object: usize,
    pub(crate) offset: u32,
    pub(crate) stride: u32,
    /// Bytes of the dma-buf.
    pub(crate) size: u64,
}

/// Checks planes that came from outside against the sizes of their dma-bufs.
///
/// The rows of LINEAR formats are known, so everything is checked. The rows of other layouts are
/// known to the driver alone, and what can be said of them is in [`check_unknown_rows`].
pub(crate) fn check(layout: &BufferDesc, planes: &[Placed]) -> Result<(), Error> {
    let &BufferDesc {
        width,
        height,
        fourcc,
        modifier,
        flags,
    } = layout;
    let unknown = flags - BufferFlags::known();
    if !unknown.is_empty() {
        return Err(Error::UnknownFlags(unknown.bits()));
    }
    if width == 0 || height == 0 {
        return Err(Error::Empty { width, height });
    }
    if planes.is_empty() || planes.len() > MAX_PLANES {
        return Err(Error::PlaneCount(planes.len()));
    }
    match FormatInfo::of(fourcc) {
        Some(info) if modifier == Modifier::LINEAR => check_rows(layout, info, planes),
        _ => check_unknown_rows(layout, planes),
    }
}

/// Every row lies inside its dma-buf, and no two planes have a byte in common.
fn check_rows(layout: &BufferDesc, info: &FormatInfo, planes: &[Placed]) -> Result<(), Error> {
    let &BufferDesc {
        width,
        height,
        fourcc,
        ..
    } = layout;
    if info.planes.len() != planes.len() {
        return Err(Error::FormatPlaneCount {
            fourcc,
            expected: info.planes.len(),
            found: planes.len(),
        });
    }
    let mut checked = ArrayVec::<(usize, Rows), MAX_PLANES>::new();
    for (plane, (info, placed)) in info.planes.iter().zip(planes).enumerate() {
        let &Placed { offset, stride, .. } = placed;
        let row_bytes = info.row_bytes(width).ok_or(Error::TooLarge {
            width,
            height,
            fourcc,
        })?;
        if stride < row_bytes {
            return Err(Error::StrideTooSmall {
                plane,
                stride,
                row_bytes,
            });
        }
        let end = end_of_rows(offset, stride, info.rows(height), row_bytes);
        if end > placed.size {
            return Err(Error::OutOfBounds {
                plane,
                end,
                size: placed.size,
            });
        }
        let rows = Rows {
            offset,
            stride,
            bytes: row_bytes,
            count: info.rows(height),
        };
        let shares =
            |(object, before): &(usize, Rows)| *object == placed.object && overlap(*before, rows);
        if let Some(other) = checked.iter().position(shares) {
            return Err(Error::PlanesOverlap { plane, other });
        }
        checked.push((placed.object, rows));
    }
    Ok(())
}

/// The bytes from the first row of any plane to the end of the last one, of planes that [`check`] has passed.
pub(crate) fn extent(layout: &BufferDesc, info: &FormatInfo, planes: &[Placed]) -> Range<u64> {
    let start = planes.iter().map(|plane| u64::from(plane.offset)).min();
    let end = info.planes.iter().zip(planes).map(|(info, plane)| {
        let row_bytes = info.row_bytes(layout.width).unwrap_or(u32::MAX);
        end_of_rows(
            plane.offset,
            plane.stride,
            info.rows(layout.height),
            row_bytes,
        )
    });
    start.unwrap_or(0)..end.max().unwrap_or(0)
}

/// First byte after the last row, which needs its pixels only and no padding. With every number at
/// its largest this is (2^32 - 1) * 2^32, so it cannot overflow.
fn end_of_rows(offset: u32, stride: u32, rows: u32, row_bytes: u32) -> u64 {
    u64::from(offset) + u64::from(stride) * u64::from(rows - 1) + u64::from(row_bytes)
}

/// What can be said of planes whose rows nobody but a driver knows. It is what servers of Wayland's
/// linux-dmabuf ask of any modifier (wlroots `types/wlr_linux_dmabuf_v1.c`, weston
/// `libweston/linux-dmabuf.c`, Smithay `wayland/dmabuf`), so nobody could show a buffer that is
/// refused here:
///
/// - A stride is not zero. AFBC is an exception, see [`Modifier::needs_no_stride`].
/// - Offset + stride x rows is below 2^32. Planes that are not of the format, but hold what the
///   modifier adds to it, have an unknown number of rows: one is taken.
/// - The dma-buf has offset + stride bytes, and for the first plane offset + stride x rows. A tiled
///   or compressed plane has no less, since its rows are padded to whole tiles, and since lossless
///   compression has to leave room for what does not compress. An exception is
///   [`Modifier::has_its_content_elsewhere`]. Later planes may be arranged in another way.
fn check_unknown_rows(layout: &BufferDesc, planes: &[Placed]) -> Result<(), Error> {
    let modifier = layout.modifier;
    let of_format = FormatInfo::of(layout.fourcc).map_or(&[][..], |info| info.planes);
    for (plane, placed) in planes.iter().enumerate() {
        if placed.stride == 0 && !modifier.needs_no_stride() {
            return Err(Error::NoStride { plane, modifier });
        }
        let rows = match (plane, of_format.get(plane)) {
            (0, _) => layout.height,
            (_, Some(info)) => info.rows(layout.height),
            (_, None) => 1,
        };
        let after =
            |rows: u32| u64::from(placed.offset) + u64::from(placed.stride) * u64::from(rows);
        if after(rows) > u64::from(u32::MAX) {
            return Err(Error::OutOfReach {
                plane,
                end: after(rows),
            });
        }
        let end = match plane == 0 && !modifier.has_its_content_elsewhere() {
            true => after(rows),
            false => after(1),
        };
        // Without a stride the plane has at least its first byte.
        let end = end.max(u64::from(placed.offset) + 1);
        if end > placed.size {
            return Err(Error::OutOfBounds {
                plane,
                end,
                size: placed.size,
            });
        }
    }
    Ok(())
}

/// First byte after the last pixel of a LINEAR picture whose planes lie in one dma-buf. `None` for
/// formats whose rows are not known.
pub(crate) fn end_of_picture(layout: &BufferDesc, planes: &[Plane]) -> Option<u64> {
    let info = FormatInfo::of(layout.fourcc)?;
    let ends = info.planes.iter().zip(planes).map(|(info, plane)| {
        let row_bytes = info.row_bytes(layout.width)?;
        let rows = info.rows(layout.height);
        Some(end_of_rows(plane.offset, plane.stride, rows, row_bytes))
    });
    ends.reduce(Option::max)?
}

/// Checks that the pixels of LINEAR planes lie at multiples of their own size.
///
/// Vulkan counts strides of images in pixels, display controllers fetch whole ones, and neither
/// every driver nor the kernel refuses others (vkms and virtio-gpu take them).
pub(crate) fn check_whole_pixels(infos: &[PlaneInfo], planes: &[Plane]) -> Result<(), Error> {
    for (plane, (info, place)) in infos.iter().zip(planes).enumerate() {
        let unit = info.block_bytes;
        if !place.offset.is_multiple_of(unit) || !place.stride.is_multiple_of(unit) {
            return Err(Error::Misaligned {
                plane,
                offset: place.offset,
                stride: place.stride,
                unit,
            });
        }
    }
    Ok(())
}

/// A LINEAR layout of our own making: all planes in one dma-buf.
pub(crate) struct Packed {
    /// Offset and stride per plane.
    pub(crate) planes: ArrayVec<(u32, u32), MAX_PLANES>,
    /// Bytes in all.
    pub(crate) size: u64,
}

impl Packed {
    /// Whether the kernel makes a dumb buffer of so many bytes. It answers EINVAL to those whose bytes 32 bits do not
    /// count (`drm_mode_create_dumb`), as drivers do for other reasons.
    pub(crate) fn fits_32_bits(&self) -> bool {
        let stride = self.planes.first().map_or(0, |plane| plane.1);
        let rows = self.size.div_ceil(u64::from(stride.max(1)));
        // A last page that is not full must not be the one after the 32 bits.
        u64::from(stride) * rows <= u64::from(u32::MAX) - 4095
    }

    /// Pixels across and down, at this many bytes each, that hold it all: rows of the first
    /// plane's stride.
    pub(crate) fn padded(&self, bytes_per_pixel: u32) -> (u32, u32) {
        let stride = self.planes.first().map_or(STRIDE_ALIGN, |plane| plane.1);
        let rows = self.size.div_ceil(u64::from(stride));
        // `pack` has seen to it that they fit.
        (
            stride / bytes_per_pixel,
            u32::try_from(rows).unwrap_or(u32::MAX),
        )
    }
}

/// Strides are multiples of this: what linear scanout and the strictest known importer (AMD) ask.
const STRIDE_ALIGN: u32 = 256;

/// The rows of each plane are padded to a multiple of this: llvmpipe draws blocks of 4x4 pixels, so
/// lavapipe rounds an image's memory up to four rows and refuses a dma-buf that has fewer (seen with
/// Mesa 25.0).
const ROW_ALIGN: u32 = 4;

/// Rows of memory after the picture. radeonsi pads the height of an image to a multiple of 16, also
/// of a LINEAR one, and refuses a dma-buf that has fewer rows.
const SPARE_ROWS: u64 = 16;

/// Bytes of memory after those rows. v3dv wants 64 bytes after an image and rounds the sum up to its
/// page, and refuses a dma-buf that is smaller.
const SPARE_BYTES: u64 = 4096;

/// The smallest multiple of [`STRIDE_ALIGN`] that is a whole number of the plane's blocks: Vulkan
/// counts strides in pixels, and 3 and 6 bytes a pixel do not divide 256.
const fn stride_align(plane: &PlaneInfo) -> u32 {
    // 256 has every factor of two that a block of at most 8 bytes can have.
    STRIDE_ALIGN * (plane.block_bytes >> plane.block_bytes.trailing_zeros())
}

/// Lays a picture out plane after plane, with room after it for importers that want more memory than
/// the picture has.
pub(crate) fn pack(width: u32, height: u32, info: &FormatInfo) -> Result<Packed, Error> {
    let too_large = || Error::TooLarge {
        width,
        height,
        fourcc: info.fourcc,
    };
    if width == 0 || height == 0 {
        return Err(Error::Empty { width, height });
    }
    let mut planes = ArrayVec::new();
    let mut size = 0u64;
    let mut widest = 0;
    for plane in info.planes {
        let align = stride_align(plane);
        let offset = size.checked_next_multiple_of(align.into());
        let offset = offset.and_then(|offset| u32::try_from(offset).ok());
        let offset = offset.ok_or_else(too_large)?;
        let stride = plane
            .row_bytes(width)
            .and_then(|bytes| bytes.checked_next_multiple_of(align))
            .ok_or_else(too_large)?;
        let rows = plane
            .rows(height)
            .checked_next_multiple_of(ROW_ALIGN)
            .ok_or_else(too_large)?;
        planes.push((offset, stride));
        widest = widest.max(stride);
        size = u64::from(stride)
            .checked_mul(u64::from(rows))
            .and_then(|bytes| u64::from(offset).checked_add(bytes))
            .ok_or_else(too_large)?;
    }
    let size = (u64::from(widest) * SPARE_ROWS + SPARE_BYTES)
        .checked_add(size)
        .ok_or_else(too_large)?;
    // So that rows of the first plane's stride can be counted, see `Packed::padded`.
    match planes.first() {
        Some(&(_, stride)) if size.div_ceil(u64::from(stride)) > u64::from(u32::MAX) => {
            Err(too_large())
        }
        _ => Ok(Packed { planes, size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(offset: u32, stride: u32, size: u64) -> Placed {
        Placed {
            object: 0,
            offset,
            stride,
            size,
        }
    }

    const TILED: Modifier = Modifier(0x0100_0000_0000_0001);

    fn of_modifier(modifier: Modifier, fourcc: Fourcc) -> BufferDesc {
        BufferDesc::new(64, 64, fourcc, modifier)
    }

    #[test]
    fn flags_that_nobody_knows_and_signed_sizes_below_zero_are_refused() {
        let layout = BufferDesc::linear(4, 4, Fourcc::XRGB8888);
        let flagged = |bits| layout.with_flags(BufferFlags::from_bits_retain(bits));
        let check = |bits| check(&flagged(bits), &[placed(0, 256, 4096)]);
        assert_eq!(check(7), Ok(()));
        assert_eq!(check(9), Err(Error::UnknownFlags(8)));
        let signed =
            |width, height| BufferDesc::from_signed(width, height, layout.fourcc, layout.modifier);
        assert_eq!(signed(4, 4), Ok(layout));
        for (width, height) in [(-1, 4), (4, i32::MIN)] {
            assert_eq!(
                signed(width, height),
                Err(Error::Negative { width, height })
            );
        }
    }

    #[test]
    fn the_last_row_needs_no_padding() {
        let layout = BufferDesc::linear(3, 2, Fourcc::XRGB8888);
        assert_eq!(check(&layout, &[placed(0, 256, 268)]), Ok(()));
        assert_eq!(
            check(&layout, &[placed(0, 256, 267)]),
            Err(Error::OutOfBounds {
                plane: 0,
                end: 268,
                size: 267
            })
        );
    }

    #[test]
    fn a_stride_shorter_than_a_row_is_refused() {
        let layout = BufferDesc::linear(100, 1, Fourcc::XRGB8888);
        assert_eq!(
            check(&layout, &[placed(0, 399, 1 << 20)]),
            Err(Error::StrideTooSmall {
                plane: 0,
                stride: 399,
                row_bytes: 400
            })
        );
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let layout = BufferDesc::linear(u32::MAX, u32::MAX, Fourcc::R8);
        let huge = placed(u32::MAX, u32::MAX, u64::MAX);
        assert_eq!(check(&layout, &[huge]), Ok(()));
        let layout = BufferDesc::linear(u32::MAX, 1, Fourcc::XRGB8888);
        assert!(matches!(
            check(&layout, &[huge]),
            Err(Error::TooLarge { .. })
        ));
        let rgba = FormatInfo::of(Fourcc::XRGB8888).unwrap();
        assert!(pack(u32::MAX, u32::MAX, rgba).is_err());
    }

    #[test]
    fn dumb_buffers_have_fewer_than_4_gib_with_the_rows_after_the_picture() {
        let rgba = FormatInfo::of(Fourcc::XRGB8888).unwrap();
        let fits = |width, height| pack(width, height, rgba).unwrap().fits_32_bits();
        assert!(fits(32_768, 32_000));
        assert!(!fits(32_768, 32_767));
        // One row, and 16 and more that are as long.
        assert!(fits(50_000_000, 1));
        assert!(!fits(100_000_000, 1));
    }

    #[test]
    fn packed_planes_pass_their_own_check() {
        for info in FormatInfo::all() {
            for (width, height) in [(1, 1), (1000, 101), (1920, 1080), (3, 5)] {
                let fourcc = info.fourcc;
                let packed = pack(width, height, info).unwrap();
                let planes: Vec<_> = packed
                    .planes
                    .iter()
                    .map(|&(offset, stride)| placed(offset, stride, packed.size))
                    .collect();
                let layout = BufferDesc::linear(width, height, fourcc);
                assert_eq!(check(&layout, &planes), Ok(()), "{fourcc} {width}x{height}");
            }
        }
    }

    #[test]
    fn packed_planes_are_whole_blocks() {
        for info in FormatInfo::all() {
            for width in [1, 3, 33, 1000, 1366] {
                let packed = pack(width, 35, info).unwrap();
                for (plane, &(offset, stride)) in info.planes.iter().zip(&packed.planes) {
                    let fourcc = info.fourcc;
                    assert_eq!(stride % plane.block_bytes, 0, "{fourcc}: stride {stride}");
                    assert_eq!(offset % plane.block_bytes, 0, "{fourcc}: offset {offset}");
                    assert_eq!((stride % 256, offset % 256), (0, 0), "{fourcc}");
                }
            }
        }
    }

    #[test]
    fn packed_pictures_have_the_room_that_importers_want() {
        for info in FormatInfo::all() {
            for (width, height) in [(1, 1), (1600, 1068), (1920, 1080), (64, 65)] {
                let packed = pack(width, height, info).unwrap();
                let what = format!("{} {width}x{height}", info.fourcc);
                for (plane, &(offset, stride)) in info.planes.iter().zip(&packed.planes) {
                    let image = |rows: u32| u64::from(offset) + u64::from(stride) * u64::from(rows);
                    let rows = plane.rows(height);
                    let radeonsi = image(rows.next_multiple_of(16));
                    let v3dv = (image(rows) + 64).next_multiple_of(4096);
                    assert!(packed.size >= radeonsi, "{what}");
                    assert!(packed.size >= v3dv, "{what}");
                }
            }
        }
    }

    #[test]
    fn plane_counts_must_match_the_format_when_linear() {
        let layout = BufferDesc::linear(8, 8, Fourcc::NV12);
        assert_eq!(
            check(&layout, &[placed(0, 8, 4096)]),
            Err(Error::FormatPlaneCount {
                fourcc: Fourcc::NV12,
                expected: 2,
                found: 1
            })
        );
        assert_eq!(check(&layout, &[]), Err(Error::PlaneCount(0)));
    }

    #[test]
    fn planes_of_one_dma_buf_have_no_byte_in_common() {
        let layout = BufferDesc::linear(64, 64, Fourcc::NV12);
        let nv12 = |luma, chroma| check(&layout, &[luma, chroma]);
        let luma = placed(0, 64, 1 << 20);
        let overlap = Err(Error::PlanesOverlap { plane: 1, other: 0 });
        assert_eq!(nv12(luma, placed(4096, 64, 1 << 20)), Ok(()));
        assert_eq!(nv12(luma, placed(3840, 64, 1 << 20)), overlap);
        assert_eq!(nv12(luma, placed(4095, 64, 1 << 20)), overlap);
        assert_eq!(nv12(luma, placed(0, 64, 1 << 20)), overlap);
        // Chroma before luma.
        assert_eq!(
            nv12(placed(2048, 64, 1 << 20), placed(0, 64, 1 << 20)),
            Ok(())
        );
        assert_eq!(
            nv12(placed(2047, 64, 1 << 20), placed(0, 64, 1 << 20)),
            overlap
        );
        // Side by side in one stride.
        let luma = placed(0, 128, 1 << 20);
        assert_eq!(nv12(luma, placed(64, 128, 1 << 20)), Ok(()));
        assert_eq!(nv12(luma, placed(60, 128, 1 << 20)), overlap);
        // In another dma-buf.
        let elsewhere = Placed {
            object: 1,
            ..placed(0, 64, 1 << 20)
        };
        assert_eq!(nv12(luma, elsewhere), Ok(()));
        let layout = BufferDesc::linear(64, 64, Fourcc::YUV420);
        let planes = [(0, 64), (4096, 64), (4096 + 32, 64)].map(|(o, s)| placed(o, s, 1 << 20));
        assert_eq!(check(&layout, &planes), Ok(()));
        let planes = [(0, 64), (4096, 64), (4096 + 16, 64)].map(|(o, s)| placed(o, s, 1 << 20));
        let overlap = Err(Error::PlanesOverlap { plane: 2, other: 1 });
        assert_eq!(check(&layout, &planes), overlap);
    }

    #[test]
    fn planes_of_unknown_rows_have_a_stride_and_lie_inside_their_dma_buf() {
        let unknown = Fourcc(0x1234_5678);
        for layout in [
            of_modifier(TILED, Fourcc::XRGB8888),
            of_modifier(Modifier::INVALID, Fourcc::XRGB8888),
            of_modifier(Modifier::LINEAR, unknown),
        ] {
            let one = |offset, stride, size| check(&layout, &[placed(offset, stride, size)]);
            let modifier = layout.modifier;
            assert_eq!(
                one(0, 0, 1 << 20),
                Err(Error::NoStride { plane: 0, modifier })
            );
            assert_eq!(one(0, 256, 64 * 256), Ok(()));
            let past = |end, size| {
                Err(Error::OutOfBounds {
                    plane: 0,
                    end,
                    size,
                })
            };
            assert_eq!(one(1, 256, 64 * 256), past(64 * 256 + 1, 64 * 256));
            assert_eq!(one(0, 257, 64 * 256), past(64 * 257, 64 * 256));
            let end = 64 * u64::from(u32::MAX);
            let out_of_reach = Err(Error::OutOfReach { plane: 0, end });
            assert_eq!(one(0, u32::MAX, u64::MAX), out_of_reach);
            let end = u64::from(u32::MAX) + 64;
            let out_of_reach = Err(Error::OutOfReach { plane: 0, end });
            assert_eq!(one(u32::MAX, 1, u64::MAX), out_of_reach);
        }
        let layout = BufferDesc {
            width: u32::MAX,
            height: u32::MAX,
            ..of_modifier(TILED, unknown)
        };
        let most = u64::from(u32::MAX);
        assert_eq!(
            check(&layout, &[placed(u32::MAX, u32::MAX, u64::MAX)]),
            Err(Error::OutOfReach {
                plane: 0,
                end: most + most * most
            })
        );
    }

    #[test]
    fn later_planes_of_unknown_rows_have_at_least_one() {
        let layout = of_modifier(TILED, Fourcc::XRGB8888);
        let both = |offset, stride| {
            let main = placed(0, 256, 20_000);
            check(&layout, &[main, placed(offset, stride, 20_000)])
        };
        assert_eq!(both(64 * 256, 256), Ok(()));
        assert_eq!(both(20_000 - 64, 64), Ok(()));
        let end = 20_001;
        let past = Err(Error::OutOfBounds {
            plane: 1,
            end,
            size: 20_000,
        });
        assert_eq!(both(20_000 - 63, 64), past);
        let modifier = TILED;
        assert_eq!(both(0, 0), Err(Error::NoStride { plane: 1, modifier }));
        // A plane of the format has its rows.
        let layout = of_modifier(TILED, Fourcc::NV12);
        let chroma = placed(0, 1 << 27, u64::MAX);
        assert_eq!(
            check(&layout, &[placed(0, 64, u64::MAX), chroma]),
            Err(Error::OutOfReach {
                plane: 1,
                end: 1 << 32
            })
        );
    }

    #[test]
    fn modifiers_with_a_reason_may_have_no_stride_or_little_memory() {
        let afbc = Modifier(0x0800_0000_0000_0041);
        let layout = of_modifier(afbc, Fourcc::XRGB8888);
        assert_eq!(check(&layout, &[placed(4095, 0, 4096)]), Ok(()));
        assert!(check(&layout, &[placed(4096, 0, 4096)]).is_err());
        // AFRC is of the same vendor.
        let afrc = Modifier(0x0820_0000_0000_0001);
        let layout = of_modifier(afrc, Fourcc::XRGB8888);
        let no_stride = Error::NoStride {
            plane: 0,
            modifier: afrc,
        };
        assert_eq!(check(&layout, &[placed(0, 0, 4096)]), Err(no_stride));
        let scattered = Modifier(0x0a00_0000_0000_0002);
        let layout = of_modifier(scattered, Fourcc::YUV420_8BIT);
        assert_eq!(check(&layout, &[placed(0, 64, 64)]), Ok(()));
        assert!(check(&layout, &[placed(1, 64, 64)]).is_err());
        let basic = Modifier(0x0a00_0000_0000_0001);
        let layout = of_modifier(basic, Fourcc::YUV420_8BIT);
        assert!(check(&layout, &[placed(0, 64, 64)]).is_err());
    }

    fn plane(offset: u32, stride: u32) -> Plane {
        Plane {
            object: 0,
            offset,
            stride,
        }
    }

    #[test]
    fn pixels_lie_at_multiples_of_their_size() {
        let check = |fourcc, planes: &[Plane]| {
            check_whole_pixels(FormatInfo::of(fourcc).unwrap().planes, planes)
        };
        for (offset, stride) in [(0, 2049), (1, 2048), (2, 2048), (0, 2050)] {
            assert_eq!(
                check(Fourcc::XRGB8888, &[plane(offset, stride)]).unwrap_err(),
                Error::Misaligned {
                    plane: 0,
                    offset,
                    stride,
                    unit: 4
                }
            );
        }
        assert_eq!(check(Fourcc::XRGB8888, &[plane(4, 2052)]), Ok(()));
        assert!(check(Fourcc::RGB888, &[plane(0, 256)]).is_err());
        assert_eq!(check(Fourcc::RGB888, &[plane(3, 255)]), Ok(()));
        let odd = check(Fourcc::NV12, &[plane(1, 65), plane(8193, 64)]);
        assert!(matches!(
            odd,
            Err(Error::Misaligned {
                plane: 1,
                unit: 2,
                ..
            })
        ));
    }

    #[test]
    fn a_picture_ends_with_its_last_pixel() {
        let end = |fourcc, planes: &[Plane]| {
            end_of_picture(&BufferDesc::linear(33, 17, fourcc), planes).unwrap()
        };
        assert_eq!(end(Fourcc::XRGB8888, &[plane(8, 256)]), 8 + 16 * 256 + 132);
        let after = [plane(0, 64), plane(4096, 64)];
        assert_eq!(end(Fourcc::NV12, &after), 4096 + 8 * 64 + 34);
        let before = [plane(4096, 64), plane(0, 64)];
        assert_eq!(end(Fourcc::NV12, &before), 4096 + 16 * 64 + 33);
        let unknown = BufferDesc::linear(33, 17, Fourcc(0x1234_5678));
        assert_eq!(end_of_picture(&unknown, &[plane(0, 256)]), None);
    }
}
