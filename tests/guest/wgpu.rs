//! wgpu textures that are shared buffers; with the validation layer's silence, which wgpu's own
//! instance loads here.

mod example;
mod fences;
mod host;
mod refusals;
mod sharing;

use primeshare::sync::{Access, Mapping};
use primeshare::wgpu::{Device, Texture, TextureUse};
use primeshare::{DmaBuf, Fourcc, Request};
use wgpu::{TextureUsages, TextureViewDescriptor};

use crate::support::PATIENCE;
use host::{Host, in_wgpu};

/// The sizes that every way of sharing is tried with: one pixel, odd ones, and more than one page
/// a row.
const SIZES: [(u32, u32); 4] = [(1, 1), (33, 7), (64, 64), (1025, 30)];

/// Bytes that depend on place and seed.
fn pattern(length: usize, row: usize, seed: u8) -> Vec<u8> {
    let byte = |n: usize| (n.wrapping_mul(29) >> 2) as u8 ^ n as u8 ^ (row as u8).wrapping_mul(7);
    (0..length).map(|n| byte(n) ^ seed).collect()
}

/// First byte and length of each row of a plane.
fn rows(buffer: &DmaBuf, plane: usize) -> Vec<(usize, usize)> {
    let info = primeshare::buffer::FormatInfo::of(buffer.fourcc()).unwrap();
    let (info, place) = (info.planes[plane], buffer.planes()[plane]);
    let length = info.row_bytes(buffer.width()).unwrap() as usize;
    (0..info.rows(buffer.height()))
        .map(|y| ((place.offset + place.stride * y) as usize, length))
        .collect()
}

/// What a plane holds, rows one after the other, as the CPU sees it.
fn cpu_reads(buffer: &DmaBuf, plane: usize) -> Vec<u8> {
    let mut mapping = Mapping::new(&buffer.objects()[buffer.planes()[plane].object]).unwrap();
    let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    let mut bytes = Vec::new();
    for (offset, length) in rows(buffer, plane) {
        let mut row = vec![0; length];
        access.read(offset, &mut row).unwrap();
        bytes.extend(row);
    }
    bytes
}

/// The CPU writes a pattern into a plane. What it wrote, rows one after the other.
fn cpu_writes(buffer: &DmaBuf, plane: usize, seed: u8) -> Vec<u8> {
    let mut mapping = Mapping::new(&buffer.objects()[buffer.planes()[plane].object]).unwrap();
    let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
    let mut bytes = Vec::new();
    for (y, (offset, length)) in rows(buffer, plane).into_iter().enumerate() {
        let row = pattern(length, y, seed);
        access.write(offset, &row).unwrap();
        bytes.extend(row);
    }
    bytes
}
