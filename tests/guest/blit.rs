//! The blitter: every way of getting a picture across, and what happens when one fails.

mod damage;
mod event_loops;
mod failures;
mod pairs;
mod readers;
mod removal;
mod soak;
mod strategies;
mod sync_files;
mod unplug;
mod waits;

use std::os::fd::BorrowedFd;

use primeshare::blit::{Blitter, Failure, Options, Rect, Side, Strategy, Verdict};
use primeshare::sync::{Access, BufferAccess, BufferMapping};
use primeshare::{Device, DmaBuf, vk};

use crate::support::{Guest, PATIENCE};

/// The default, but for patience: fences that the test signals come in time on any machine.
pub(crate) fn patient() -> Options {
    Options {
        patience: PATIENCE,
        ..Options::default()
    }
}

pub(crate) fn forced(strategy: Strategy) -> Options {
    Options {
        strategies: vec![strategy],
        ..patient()
    }
}

/// A blitter from one device to another, each with a Vulkan device of its own.
pub(crate) fn blitter(
    guest: &Guest,
    source: &Device,
    destination: &Device,
    options: &Options,
) -> Blitter {
    blitter_by(&two_gpus(guest), source, destination, options)
}

/// A Vulkan device for each side. They are slow to make, and each makes the guest slower.
pub(crate) fn two_gpus(guest: &Guest) -> [vk::Device; 2] {
    [guest.vulkan(), guest.vulkan()]
}

/// A blitter from one device to another, with the Vulkan device of each.
pub(crate) fn blitter_by(
    gpus: &[vk::Device; 2],
    source: &Device,
    destination: &Device,
    options: &Options,
) -> Blitter {
    let sides = (
        Side::new(source, Some(&gpus[0])),
        Side::new(destination, Some(&gpus[1])),
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

/// Copies picture after picture, and looks at each, until it is settled by which strategy.
pub(crate) fn settle(blitter: &Blitter, source: &DmaBuf, destination: &DmaBuf) -> Verdict {
    for seed in 0..200 {
        write(source, seed);
        let made = blit(blitter, source, destination, &[], &[]);
        let verdict = blitter.verdict(source, destination, &[]).unwrap();
        made.unwrap_or_else(|failure| panic!("{failure}\n{verdict}"));
        assert_shows(destination, seed, &format!("{blitter:?}"));
        if verdict.settled {
            return verdict;
        }
    }
    panic!("{blitter:?} never settles");
}

/// A byte that depends on all that is given.
fn byte(seed: u8, plane: usize, row: usize, column: usize) -> u8 {
    let mixed = (column.wrapping_mul(31) >> 3) ^ column ^ row.wrapping_mul(7) ^ plane << 6;
    mixed as u8 ^ seed
}

/// Fills the picture.
pub(crate) fn write(buffer: &DmaBuf, seed: u8) {
    let mut map = BufferMapping::new(buffer).unwrap();
    let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
    draw(buffer, &mut access, seed);
    access.end().unwrap();
}

/// As [`write`], where the access has begun.
pub(crate) fn draw(buffer: &DmaBuf, access: &mut BufferAccess<'_>, seed: u8) {
    for plane in 0..buffer.planes().len() {
        let rows = access.plane_mut(plane).unwrap().into_rows();
        for (row, mut pixels) in rows.enumerate() {
            let columns = 0..pixels.bytes();
            let bytes: Vec<u8> = columns
                .map(|column| byte(seed, plane, row, column))
                .collect();
            pixels.write(0, &bytes).unwrap();
        }
    }
}

/// All rows of the picture: plane, number, bytes.
fn rows(buffer: &DmaBuf) -> Vec<(usize, usize, Vec<u8>)> {
    let mut map = BufferMapping::new(buffer).unwrap();
    let access = map.begin_wait(Access::Read, PATIENCE).unwrap();
    let mut rows = Vec::new();
    for plane in 0..buffer.planes().len() {
        for (number, row) in access.plane(plane).unwrap().rows().enumerate() {
            let mut bytes = vec![0; row.bytes()];
            row.read(0, &mut bytes).unwrap();
            rows.push((plane, number, bytes));
        }
    }
    rows
}

/// All bytes of the picture, row by row.
pub(crate) fn read(buffer: &DmaBuf) -> Vec<Vec<u8>> {
    rows(buffer).into_iter().map(|(.., bytes)| bytes).collect()
}

/// The first byte that is not of the picture that [`write`] makes of this seed: plane, row, column,
/// what it is and what it should be.
fn unlike(buffer: &DmaBuf, seed: u8) -> Option<(usize, usize, usize, u8, u8)> {
    rows(buffer).into_iter().find_map(|(plane, row, bytes)| {
        let both = bytes.into_iter().enumerate().map(|(column, is)| {
            let wanted = byte(seed, plane, row, column);
            (plane, row, column, is, wanted)
        });
        both.into_iter().find(|(.., is, wanted)| is != wanted)
    })
}

/// Fails unless the picture is the one that [`write`] makes of this seed.
pub(crate) fn assert_shows(buffer: &DmaBuf, seed: u8, what: &str) {
    if let Some((plane, row, column, is, wanted)) = unlike(buffer, seed) {
        panic!("{what}: plane {plane}, row {row}, byte {column} is {is}, not {wanted}");
    }
}
