//! The blitter: every way of getting a picture across, and what happens when one fails.

mod damage;
mod event_loops;
mod failures;
mod flags;
mod pairs;
mod pending;
mod readers;
mod removal;
mod resampling;
pub(crate) mod ring;
mod shadow;
mod soak;
mod strategies;
mod streams;
mod sync_files;
mod trials;
mod unplug;
mod waits;

use std::os::fd::BorrowedFd;

use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Damage, DamageBox, Failure, Options, Rect, StagingSource,
    Strategy, Verdict,
};
use primeshare::sync::{Access, BufferAccess, BufferMapping};
use primeshare::{Device, DmaBuf, vk};

use crate::support::{Guest, PATIENCE, give_back_memory};

/// The default options, except for a timeout so long that fences which the test signals are in time on any
/// machine.
pub(crate) fn patient() -> Options {
    Options::default().input_timeout(PATIENCE)
}

pub(crate) fn forced(strategy: Strategy) -> Options {
    patient().strategies([strategy])
}

/// One strategy for each way to make a copy: by one GPU, by two GPUs, through host memory, by the CPU.
pub(crate) const EACH_WAY: [Strategy; 4] = [
    Strategy::Pull,
    Strategy::Staged(StagingSource::DmaHeap),
    Strategy::HostMemory,
    Strategy::Cpu,
];

/// A blitter from one device to another, each with a Vulkan device of its own.
pub(crate) fn blitter(
    guest: &Guest,
    source: &Device,
    destination: &Device,
    options: &Options,
) -> Blitter {
    blitter_by(&two_gpus(guest), source, destination, options)
}

/// A software Vulkan device for each side, which copy for two DRM devices as two GPUs would.
pub(crate) fn two_gpus(guest: &Guest) -> [vk::PhysicalDevice; 2] {
    [guest.physical(), guest.physical()]
}

/// A blitter from one device to another, with the physical device of each.
pub(crate) fn blitter_by(
    gpus: &[vk::PhysicalDevice; 2],
    source: &Device,
    destination: &Device,
    options: &Options,
) -> Blitter {
    // The memory of the last blitter.
    give_back_memory();
    let sides = (
        BlitDevice::new(source, Some(&gpus[0])),
        BlitDevice::new(destination, Some(&gpus[1])),
    );
    Blitter::new(sides.0, sides.1, options).unwrap()
}

/// A copy of everything, after these fences.
pub(crate) fn after_fences<'a>(after: &'a [BorrowedFd<'a>]) -> BlitInfo<'a> {
    BlitInfo::default().after(after)
}

/// Makes one copy and waits for it. If no rectangles are given, all is copied.
pub(crate) fn blit(
    blitter: &Blitter,
    source: &DmaBuf,
    destination: &DmaBuf,
    damage: &[Rect],
    after: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let boxes: Vec<DamageBox> = damage.iter().map(|rect| (*rect).into()).collect();
    let info = BlitInfo::default()
        .damage(match damage {
            [] => Damage::Full,
            _ => Damage::Boxes(&boxes),
        })
        .after(after);
    let copy = blitter.blit(source, destination, &info).unwrap();
    copy.wait(PATIENCE)
}

/// Copies some pictures and checks each, waits until the verdict is settled, and copies some more.
pub(crate) fn settle(blitter: &Blitter, source: &DmaBuf, destination: &DmaBuf) -> Verdict {
    let info = BlitInfo::default();
    let copy = |seed| {
        write(source, seed);
        let made = blit(blitter, source, destination, &[], &[]);
        let verdict = blitter.verdict(source, destination, &info).unwrap();
        made.unwrap_or_else(|failure| panic!("{failure}\n{verdict}"));
        assert_shows(destination, seed, &format!("{blitter:?}"));
    };
    (0..2).for_each(copy);
    let verdict = blitter.settle_wait(source, destination, &info, PATIENCE);
    let verdict = verdict.unwrap();
    assert!(verdict.settled, "{blitter:?} never settles: {verdict}");
    (2..5).for_each(copy);
    blitter.verdict(source, destination, &info).unwrap()
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

/// The first byte that differs from the picture that [`write`] makes of this seed: plane, row, column,
/// the byte that is there, and the byte that should be.
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
