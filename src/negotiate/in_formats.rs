//! The `IN_FORMATS` property of KMS planes: `struct drm_format_modifier_blob` of
//! `include/uapi/drm/drm_mode.h`.

use super::Error;
use crate::buffer::{Fourcc, Modifier};

/// `FORMAT_BLOB_CURRENT`
const VERSION: u32 = 1;
/// `struct drm_format_modifier_blob`
const HEADER_SIZE: u32 = 24;
const FORMAT_SIZE: usize = 4;
/// `struct drm_format_modifier`: formats (u64, a bit each), offset (u32), pad (u32), modifier (u64)
const MODIFIER_SIZE: usize = 24;

/// Reads a plane's `IN_FORMATS` (or `IN_FORMATS_ASYNC`) blob: each format with each of its
/// modifiers, in the blob's order.
///
/// Trusts nothing: all offsets and counts are checked against the blob's size. Bytes are in the
/// host's order, as the kernel writes them. Takes time and memory in proportion to the blob: at
/// most 64 pairs for 24 bytes.
pub fn parse_in_formats(blob: &[u8]) -> Result<Vec<(Fourcc, Modifier)>, Error> {
    let out_of_bounds = |part, count, offset| Error::BlobBounds {
        part,
        count,
        offset,
        size: blob.len(),
    };
    let header = blob
        .first_chunk::<{ HEADER_SIZE as usize }>()
        .ok_or_else(|| out_of_bounds("header", 1, 0))?;
    // The second is for flags, of which there are none.
    let [version, _, formats, formats_at, modifiers, modifiers_at] =
        std::array::from_fn(|field| u32::from_ne_bytes(chunk(header, field * 4)));
    if version != VERSION {
        return Err(Error::BlobVersion(version));
    }
    let part = |name, count, offset, size| {
        array(blob, count, offset, size).ok_or_else(|| out_of_bounds(name, count, offset))
    };
    let codes = part("formats", formats, formats_at, FORMAT_SIZE)?;
    let entries = part("modifiers", modifiers, modifiers_at, MODIFIER_SIZE)?;
    let mut pairs = Vec::new();
    for (index, entry) in entries.chunks_exact(MODIFIER_SIZE).enumerate() {
        let mut bits = u64::from_ne_bytes(chunk(entry, 0));
        let first = u64::from(u32::from_ne_bytes(chunk(entry, 8)));
        let modifier = Modifier(u64::from_ne_bytes(chunk(entry, 16)));
        while bits != 0 {
            let format = first + u64::from(bits.trailing_zeros());
            if format >= formats.into() {
                return Err(Error::BlobFormat {
                    modifier: index,
                    format,
                    count: formats,
                });
            }
            let code = chunk(codes, format as usize * FORMAT_SIZE);
            pairs.push((Fourcc(u32::from_ne_bytes(code)), modifier));
            bits &= bits - 1;
        }
    }
    Ok(pairs)
}

/// `count` items of `size` bytes from byte `offset` on; `None` where they are not all there.
fn array(blob: &[u8], count: u32, offset: u32, size: usize) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let length = usize::try_from(count).ok()?.checked_mul(size)?;
    blob.get(start..start.checked_add(length)?)
}

/// `N` bytes at `offset` of something whose size has been checked.
fn chunk<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|byte| bytes[offset + byte])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A blob with these formats and modifiers: bits, offset, modifier.
    fn blob(formats: &[Fourcc], modifiers: &[(u64, u32, Modifier)]) -> Vec<u8> {
        let formats_end = HEADER_SIZE + 4 * formats.len() as u32;
        // The kernel aligns the modifiers to eight bytes.
        let modifiers_at = formats_end.next_multiple_of(8);
        let header = [
            VERSION,
            0,
            formats.len() as u32,
            HEADER_SIZE,
            modifiers.len() as u32,
            modifiers_at,
        ];
        let mut blob: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
        blob.extend(formats.iter().flat_map(|format| format.0.to_ne_bytes()));
        blob.resize(modifiers_at as usize, 0);
        for (bits, offset, modifier) in modifiers {
            blob.extend(bits.to_ne_bytes());
            blob.extend(offset.to_ne_bytes());
            blob.extend([0; 4]);
            blob.extend(modifier.0.to_ne_bytes());
        }
        blob
    }

    const TILED: Modifier = Modifier(0x0100_0000_0000_0002);

    #[test]
    fn each_modifier_is_listed_with_the_formats_whose_bits_are_set() {
        let formats = [Fourcc::XRGB8888, Fourcc::ARGB8888, Fourcc::NV12];
        let modifiers = [(0b111, 0, Modifier::LINEAR), (0b101, 0, TILED)];
        assert_eq!(
            parse_in_formats(&blob(&formats, &modifiers)).unwrap(),
            [
                (Fourcc::XRGB8888, Modifier::LINEAR),
                (Fourcc::ARGB8888, Modifier::LINEAR),
                (Fourcc::NV12, Modifier::LINEAR),
                (Fourcc::XRGB8888, TILED),
                (Fourcc::NV12, TILED),
            ]
        );
        assert_eq!(parse_in_formats(&blob(&[], &[])), Ok(vec![]));
    }

    #[test]
    fn formats_after_the_first_64_are_reached_by_an_offset() {
        let formats: Vec<Fourcc> = (0..70).map(Fourcc).collect();
        let modifiers = [(1 << 63, 0, TILED), (1 << 5, 64, TILED)];
        let pairs = parse_in_formats(&blob(&formats, &modifiers)).unwrap();
        assert_eq!(pairs, [(Fourcc(63), TILED), (Fourcc(69), TILED)]);
    }

    #[test]
    fn what_is_not_in_the_blob_is_refused() {
        let whole = blob(&[Fourcc::XRGB8888], &[(1, 0, TILED)]);
        for size in 0..whole.len() {
            let refused = parse_in_formats(&whole[..size]);
            assert!(matches!(refused, Err(Error::BlobBounds { .. })), "{size}");
        }
        // Each field of the header at its largest.
        let with = |field: usize, value: u32| {
            let mut blob = whole.clone();
            blob[field * 4..][..4].copy_from_slice(&value.to_ne_bytes());
            parse_in_formats(&blob)
        };
        for field in [2, 3, 4, 5] {
            let refused = with(field, u32::MAX);
            assert!(matches!(refused, Err(Error::BlobBounds { .. })), "{field}");
        }
        assert_eq!(with(0, 2), Err(Error::BlobVersion(2)));
        for (bits, offset) in [(0b10, 0), (1, 1), (1, u32::MAX), (u64::MAX, 0)] {
            let beyond = blob(&[Fourcc::XRGB8888], &[(bits, offset, TILED)]);
            let refused = parse_in_formats(&beyond);
            assert!(matches!(refused, Err(Error::BlobFormat { .. })), "{bits:b}");
        }
    }

    proptest! {
        #[test]
        fn no_blob_panics(
            header in prop::array::uniform5(0u32..200),
            rest in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let version = VERSION.to_ne_bytes().into_iter();
            let header = header.into_iter().flat_map(u32::to_ne_bytes);
            let blob: Vec<u8> = version.chain(header).chain(rest).collect();
            let _ = parse_in_formats(&blob);
            let _ = parse_in_formats(&blob[4..]);
        }
    }
}
