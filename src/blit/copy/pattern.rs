//! The picture that trials copy: no two rows, tiles or neighbouring bytes of it are alike, so that misplaced
//! ones are found. Pure.

use super::pixels::{Relation, relation, unused};
use crate::buffer::{Colour, FormatInfo, Fourcc};

/// Fills a row of a plane.
pub(in crate::blit) fn fill(fourcc: Fourcc, plane: usize, row: usize, bytes: &mut [u8]) {
    let is_float = FormatInfo::of(fourcc).is_some_and(|info| info.colour == Colour::RgbFloat);
    for (column, byte) in bytes.iter_mut().enumerate() {
        *byte = match is_float && column % 2 == 1 {
            // Half floats from 0.5 to 1, since drivers may change the bits of a NaN.
            true => 0x38 | mixed(plane, row, column) & 0x3,
            false => mixed(plane, row, column),
        };
    }
}

/// Fills a row with bytes that are nowhere in the picture, so that a copy that does nothing is found out.
pub(in crate::blit) fn poison(fourcc: Fourcc, plane: usize, row: usize, bytes: &mut [u8]) {
    fill(fourcc, plane, row, bytes);
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

/// A byte that depends on all three, in steps of a byte, a row and tiles of several sizes.
fn mixed(plane: usize, row: usize, column: usize) -> u8 {
    let place = (plane as u32) << 28 ^ (row as u32) << 14 ^ column as u32;
    let mut hash = place.wrapping_mul(0x9e37_79b1);
    hash = (hash ^ hash >> 15).wrapping_mul(0x85eb_ca6b);
    (hash ^ hash >> 13) as u8
}

/// The first byte of a row that is wrong after a copy from one format to the other. `scratch` is passed in
/// so that it is not allocated for each row.
pub(in crate::blit) fn first_difference(
    (from, to): (Fourcc, Fourcc),
    (plane, row): (usize, usize),
    arrived: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Option<usize> {
    scratch.resize(arrived.len(), 0);
    fill(from, plane, row, scratch);
    if let Relation::Rearranged(how) = relation(from, to) {
        how.apply(scratch);
    }
    let unused = unused(to);
    unused.clear(scratch);
    unused.clear(arrived);
    let mut bytes = scratch.iter().zip(arrived.iter());
    bytes.position(|(wanted, is)| wanted != is)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Fourcc = Fourcc::ARGB8888;

    fn row(number: usize) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        fill(FORMAT, 0, number, &mut bytes);
        bytes
    }

    #[test]
    fn no_two_rows_and_no_two_tiles_are_alike() {
        let rows: Vec<Vec<u8>> = (0..256).map(row).collect();
        for width in [16, 64, 256] {
            let tiles = |row: &Vec<u8>| row.chunks(width).map(<[u8]>::to_vec).collect::<Vec<_>>();
            let mut all: Vec<Vec<u8>> = rows.iter().flat_map(tiles).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "tiles of {width} bytes");
        }
    }

    #[test]
    fn what_was_poisoned_is_never_right() {
        let mut bytes = vec![0; 1024];
        poison(FORMAT, 0, 7, &mut bytes);
        assert!(
            bytes
                .iter()
                .zip(row(7))
                .all(|(poison, right)| *poison != right)
        );
    }

    #[test]
    fn the_copy_in_another_order_is_right_and_one_wrong_byte_is_found() {
        let formats = (Fourcc::ARGB8888, Fourcc::ABGR8888);
        let mut arrived = row(3);
        let mut scratch = Vec::new();
        assert!(first_difference(formats, (0, 3), &mut arrived, &mut scratch).is_some());
        let mut arrived = row(3);
        arrived.chunks_mut(4).for_each(|pixel| pixel.swap(0, 2));
        assert_eq!(
            first_difference(formats, (0, 3), &mut arrived, &mut scratch),
            None
        );
        arrived[517] ^= 1;
        assert_eq!(
            first_difference(formats, (0, 3), &mut arrived, &mut scratch),
            Some(517)
        );
    }
}
