//! The blitter: every way of getting a picture across, and what happens when one fails.

mod damage;
mod failures;
mod pairs;
mod strategies;
mod waits;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use primeshare::blit::{Blitter, Failure, Options, Rect, Side, Strategy};
use primeshare::buffer::FormatInfo;
use primeshare::sync::{Access, Mapping};
use primeshare::{Device, DmaBuf};

use crate::support::Guest;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn forced(strategy: Strategy) -> Options {
    Options {
        strategies: vec![strategy],
        patience: PATIENCE,
        ..Options::default()
    }
}

/// A blitter from one device to another, each with a Vulkan device of its own.
pub(crate) fn blitter(
    guest: &Guest,
    source: &Device,
    destination: &Device,
    options: &Options,
) -> Blitter {
    let (a, b) = (guest.vulkan(), guest.vulkan());
    let sides = (
        Side::new(source, Some(&a)),
        Side::new(destination, Some(&b)),
    );
    Blitter::new(sides.0, sides.1, options).unwrap()
}

/// One copy from beginning to end.
pub(crate) fn blit(
    blitter: &Blitter,
    source: &DmaBuf,
    destination: &DmaBuf,
    damage: &[Rect],
    after: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let fence = blitter.blit(source, destination, damage, after).unwrap();
    fence.wait(PATIENCE)
}

/// A byte that depends on all that is given.
fn byte(seed: u8, plane: usize, row: usize, column: usize) -> u8 {
    let mixed = (column.wrapping_mul(31) >> 3) ^ column ^ row.wrapping_mul(7) ^ plane << 6;
    mixed as u8 ^ seed
}

/// The bytes of each plane's rows: plane, row, dma-buf, offset, length.
fn rows(buffer: &DmaBuf) -> Vec<(usize, usize, usize, usize, usize)> {
    let info = FormatInfo::of(buffer.fourcc()).unwrap();
    let mut rows = Vec::new();
    for (index, (plane, info)) in buffer.planes().iter().zip(info.planes).enumerate() {
        let length = info.row_bytes(buffer.width()).unwrap() as usize;
        for row in 0..info.rows(buffer.height()) as usize {
            let offset = plane.offset as usize + row * plane.stride as usize;
            rows.push((index, row, plane.object, offset, length));
        }
    }
    rows
}

/// Fills the picture.
pub(crate) fn write(buffer: &DmaBuf, seed: u8) {
    let mut maps: Vec<_> = buffer
        .objects()
        .iter()
        .map(|o| Mapping::new(o).unwrap())
        .collect();
    for (plane, row, object, offset, length) in rows(buffer) {
        let bytes: Vec<u8> = (0..length)
            .map(|column| byte(seed, plane, row, column))
            .collect();
        let mut access = maps[object].begin_wait(Access::Write).unwrap();
        access.write(offset, &bytes).unwrap();
    }
}

/// All bytes of the picture, row by row.
pub(crate) fn read(buffer: &DmaBuf) -> Vec<Vec<u8>> {
    let mut maps: Vec<_> = buffer
        .objects()
        .iter()
        .map(|o| Mapping::new(o).unwrap())
        .collect();
    let each = rows(buffer)
        .into_iter()
        .map(|(_, _, object, offset, length)| {
            let mut bytes = vec![0; length];
            let access = maps[object].begin_wait(Access::Read).unwrap();
            access.read(offset, &mut bytes).unwrap();
            bytes
        });
    each.collect()
}

/// Fails unless the picture is the one that [`write`] makes of this seed.
pub(crate) fn assert_shows(buffer: &DmaBuf, seed: u8, what: &str) {
    let picture = read(buffer);
    for ((plane, row, ..), bytes) in rows(buffer).into_iter().zip(picture) {
        for (column, is) in bytes.into_iter().enumerate() {
            let wanted = byte(seed, plane, row, column);
            assert_eq!(
                is, wanted,
                "{what}: plane {plane}, row {row}, byte {column}"
            );
        }
    }
}
