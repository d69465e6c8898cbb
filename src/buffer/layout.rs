//! Pure arithmetic on plane layouts: what fits where.

use super::{Error, FormatInfo, Fourcc, MAX_PLANES, Modifier, PlaneInfo};
use arrayvec::ArrayVec;

/// Size, format and modifier of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixel format.
    pub fourcc: Fourcc,
    /// Arrangement in memory.
    pub modifier: Modifier,
}

impl Layout {
    /// A LINEAR layout.
    pub fn linear(width: u32, height: u32, fourcc: Fourcc) -> Self {
        Self {
            width,
            height,
            fourcc,
            modifier: Modifier::LINEAR,
        }
    }
}

/// A plane's place: offset and stride, and the size of the dma-buf it lies in.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) offset: u32,
    pub(crate) stride: u32,
    pub(crate) size: u64,
}

/// Checks planes that came from outside against the sizes of their dma-bufs.
///
/// For LINEAR the rows are known, so everything is checked. Tiled layouts are the driver's own,
/// and all that can be said is that the plane starts inside its dma-buf.
pub(crate) fn check(layout: &Layout, planes: &[Placed]) -> Result<(), Error> {
    let &Layout {
        width,
        height,
        fourcc,
        modifier,
    } = layout;
    if width == 0 || height == 0 {
        return Err(Error::Empty { width, height });
    }
    if planes.is_empty() || planes.len() > MAX_PLANES {
        return Err(Error::PlaneCount(planes.len()));
    }
    let linear = match FormatInfo::of(fourcc) {
        Some(info) if modifier == Modifier::LINEAR => Some(info),
        _ => None,
    };
    if let Some(info) = linear
        && info.planes.len() != planes.len()
    {
        return Err(Error::FormatPlaneCount {
            fourcc,
            expected: info.planes.len(),
            found: planes.len(),
        });
    }
    for (plane, placed) in planes.iter().enumerate() {
        let end = match linear {
            Some(info) => {
                let info = info.planes[plane];
                let row_bytes = info.row_bytes(width).ok_or(Error::TooLarge {
                    width,
                    height,
                    fourcc,
                })?;
                if placed.stride < row_bytes {
                    return Err(Error::StrideTooSmall {
                        plane,
                        stride: placed.stride,
                        row_bytes,
                    });
                }
                // The last row needs its pixels only, not its padding. With every number at its
                // largest this is (2^32 - 1) * 2^32, so it cannot overflow.
                u64::from(placed.offset)
                    + u64::from(placed.stride) * u64::from(info.rows(height) - 1)
                    + u64::from(row_bytes)
            }
            None => u64::from(placed.offset) + 1,
        };
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

/// A LINEAR layout of our own making: all planes in one dma-buf.
pub(crate) struct Packed {
    /// Offset and stride per plane.
    pub(crate) planes: ArrayVec<(u32, u32), MAX_PLANES>,
    /// Bytes in all.
    pub(crate) size: u64,
}

impl Packed {
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
            offset,
            stride,
            size,
        }
    }

    #[test]
    fn the_last_row_needs_no_padding() {
        let layout = Layout::linear(3, 2, Fourcc::XRGB8888);
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
        let layout = Layout::linear(100, 1, Fourcc::XRGB8888);
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
        let layout = Layout::linear(u32::MAX, u32::MAX, Fourcc::R8);
        let huge = placed(u32::MAX, u32::MAX, u64::MAX);
        assert_eq!(check(&layout, &[huge]), Ok(()));
        let layout = Layout::linear(u32::MAX, 1, Fourcc::XRGB8888);
        assert!(matches!(
            check(&layout, &[huge]),
            Err(Error::TooLarge { .. })
        ));
        let rgba = FormatInfo::of(Fourcc::XRGB8888).unwrap();
        assert!(pack(u32::MAX, u32::MAX, rgba).is_err());
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
                let layout = Layout::linear(width, height, fourcc);
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
        let layout = Layout::linear(8, 8, Fourcc::NV12);
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
    fn tiled_planes_must_start_inside_their_dma_buf() {
        let layout = Layout {
            modifier: Modifier(0x0100_0000_0000_0001),
            ..Layout::linear(8, 8, Fourcc::XRGB8888)
        };
        assert_eq!(check(&layout, &[placed(4095, 8, 4096)]), Ok(()));
        assert!(check(&layout, &[placed(4096, 8, 4096)]).is_err());
    }
}
