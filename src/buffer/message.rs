//! The bytes of a buffer's message to another process. Their format is told in
//! [`DmaBuf::send`](super::DmaBuf::send).

use arrayvec::ArrayVec;

use super::{BufferDesc, BufferFlags, Fourcc, MAX_PLANES, Modifier};

const MAGIC: [u8; 8] = *b"dma-buf\x02";
const PLANES: usize = 36;
pub(crate) const LENGTH: usize = PLANES + 8 * MAX_PLANES;

/// Why bytes from another process do not describe a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Every message has the same length.
    #[error("it has {0} bytes instead of {LENGTH}")]
    Length(usize),
    /// It is of something else, or of another version of the format.
    #[error("it does not begin as one")]
    Magic,
    /// A buffer has one to [`MAX_PLANES`] planes.
    #[error("it has {0} planes instead of 1 to {MAX_PLANES}")]
    PlaneCount(u32),
    /// What follows the last plane is not zero.
    #[error("something follows its last plane")]
    Spare,
}

/// A picture's layout, and offset and stride of each plane.
pub(crate) type Description = (BufferDesc, ArrayVec<(u32, u32), MAX_PLANES>);

pub(crate) fn encode(layout: &BufferDesc, planes: &[(u32, u32)]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    let mut put = |at: usize, word: u32| bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(8, layout.width);
    put(12, layout.height);
    put(16, layout.fourcc.0);
    put(20, planes.len() as u32);
    put(24, layout.modifier.0 as u32);
    put(28, (layout.modifier.0 >> 32) as u32);
    put(32, layout.flags.bits());
    for (&(offset, stride), at) in planes.iter().zip((PLANES..LENGTH).step_by(8)) {
        put(at, offset);
        put(at + 4, stride);
    }
    bytes
}

/// What the bytes say. That it makes sense, and fits the fds, is for
/// [`DmaBuf::new`](super::DmaBuf::new) to find out.
pub(crate) fn decode(bytes: &[u8; LENGTH]) -> Result<Description, Malformed> {
    if bytes[..8] != MAGIC {
        return Err(Malformed::Magic);
    }
    let (words, _) = bytes[8..].as_chunks();
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    let (width, height, fourcc, count) = (next(), next(), Fourcc(next()), next());
    let modifier = Modifier(u64::from(next()) | u64::from(next()) << 32);
    let flags = BufferFlags::from_bits_retain(next());
    let all: [(u32, u32); MAX_PLANES] = std::array::from_fn(|_| (next(), next()));
    let (planes, spare) = match count as usize {
        count @ 1..=MAX_PLANES => all.split_at(count),
        _ => return Err(Malformed::PlaneCount(count)),
    };
    if spare.iter().any(|plane| *plane != (0, 0)) {
        return Err(Malformed::Spare);
    }
    let layout = BufferDesc {
        width,
        height,
        fourcc,
        modifier,
        flags,
    };
    Ok((layout, planes.iter().copied().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: BufferDesc = BufferDesc {
        width: 0x0403_0201,
        height: 0x0807_0605,
        fourcc: Fourcc::NV12,
        modifier: Modifier(0x1817_1615_1413_1211),
        flags: BufferFlags::from_bits_retain(0x1c1b_1a19),
    };

    #[test]
    fn every_byte_is_in_its_place() {
        let bytes = encode(&LAYOUT, &[(0x2423_2221, 0x2827_2625), (0x2c2b_2a29, 0)]);
        let mut expected = b"dma-buf\x02\x01\x02\x03\x04\x05\x06\x07\x08NV12\x02\0\0\0".to_vec();
        expected.extend(0x11..=0x1c);
        expected.extend(0x21..=0x2c);
        expected.resize(LENGTH, 0);
        assert_eq!(bytes, *expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let planes = [(1, 2), (3, 4), (u32::MAX, u32::MAX), (0, 0)];
        for count in 1..=MAX_PLANES {
            let bytes = encode(&LAYOUT, &planes[..count]);
            let (layout, read) = decode(&bytes).unwrap();
            assert_eq!((layout, &read[..]), (LAYOUT, &planes[..count]));
        }
    }

    #[test]
    fn no_byte_is_ignored() {
        let good = encode(&LAYOUT, &[(1, 2)]);
        for at in 0..LENGTH {
            for bit in 0..8 {
                let mut bytes = good;
                bytes[at] ^= 1 << bit;
                assert_ne!(decode(&bytes), decode(&good), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let mut bytes = encode(&LAYOUT, &[(1, 2)]);
        bytes[7] = 1;
        assert_eq!(decode(&bytes), Err(Malformed::Magic));
        for count in [0, 5, u32::MAX] {
            let mut bytes = encode(&LAYOUT, &[(1, 2)]);
            bytes[20..24].copy_from_slice(&count.to_le_bytes());
            assert_eq!(decode(&bytes), Err(Malformed::PlaneCount(count)));
        }
        let mut bytes = encode(&LAYOUT, &[(1, 2), (3, 4)]);
        bytes[20] = 1;
        assert_eq!(decode(&bytes), Err(Malformed::Spare));
    }
}
