//! Copies by the processor, through mappings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::gpu::{Work, bytes_of, in_plane};
use super::pixels::{self, Relation, relation};
use super::{Failure, damage::Rect};
use crate::buffer::{Attached, DmaBuf, FormatInfo};
use crate::sync::{self, Access, Mapping, MappingGuard};

/// The mappings of buffers, each kept until its buffer goes: one for each dma-buf of it.
#[derive(Debug)]
pub(super) struct Maps {
    of: Attached<Mutex<Vec<Mapping>>>,
    /// Kept for their memory.
    row: Vec<u8>,
    other_row: Vec<u8>,
}

impl Maps {
    pub(super) fn new() -> Self {
        Self {
            of: Attached::new(),
            row: Vec::new(),
            other_row: Vec::new(),
        }
    }

    fn of(&self, buffer: &DmaBuf) -> Result<Arc<Mutex<Vec<Mapping>>>, Failure> {
        self.of.get_or_make(buffer, || {
            // What was exported without DRM_RDWR can be read all the same.
            let map = |object| match Mapping::new(object) {
                Err(sync::Error::Map {
                    errno: Errno::EACCES,
                    ..
                }) => Mapping::read_only(object),
                mapped => mapped,
            };
            let maps = buffer.objects().iter().map(map);
            Ok(Mutex::new(
                maps.collect::<Result<_, _>>().map_err(Failure::Cpu)?,
            ))
        })
    }

    /// Copies, with the formats' conversion. Waits for devices that have left a fence.
    pub(super) fn copy(&mut self, work: Work<'_>) -> Result<(), Failure> {
        let (source, destination) = (self.of(work.source)?, self.of(work.destination)?);
        let (mut source, mut destination) = (lock(&source), lock(&destination));
        let source = begin(&mut source, Access::Read)?;
        let mut destination = begin(&mut destination, Access::Write)?;
        let how = relation(work.source.fourcc(), work.destination.fourcc());
        for part in parts(work)? {
            let (from, to) = (&source[part.from_map], &mut destination[part.to_map]);
            for row in 0..part.rows {
                let (at, into) = part.row(row);
                match how {
                    Relation::Rearranged(how) => {
                        self.row.resize(part.length, 0);
                        from.read(at, &mut self.row).map_err(Failure::Cpu)?;
                        how.apply(&mut self.row);
                        to.write(into, &self.row).map_err(Failure::Cpu)?;
                    }
                    _ => to
                        .copy_from(into, from, at, part.length)
                        .map_err(Failure::Cpu)?,
                }
            }
        }
        end(destination)
    }

    /// Makes sure that no pixel of the destination shows what the source does, in the rectangles:
    /// a copy that does nothing cannot pass for one that works then.
    pub(super) fn spoil(&mut self, work: Work<'_>) -> Result<(), Failure> {
        let (source, destination) = (self.of(work.source)?, self.of(work.destination)?);
        let (mut source, mut destination) = (lock(&source), lock(&destination));
        let source = begin(&mut source, Access::Read)?;
        let mut destination = begin(&mut destination, Access::Write)?;
        let how = relation(work.source.fourcc(), work.destination.fourcc());
        for part in parts(work)? {
            self.row.resize(part.length, 0);
            for row in 0..part.rows {
                let (at, into) = part.row(row);
                let from = &source[part.from_map];
                from.read(at, &mut self.row).map_err(Failure::Cpu)?;
                if let Relation::Rearranged(how) = how {
                    how.apply(&mut self.row);
                }
                self.row.iter_mut().for_each(|byte| *byte = !*byte);
                let to = &mut destination[part.to_map];
                to.write(into, &self.row).map_err(Failure::Cpu)?;
            }
        }
        end(destination)
    }

    /// Whether the destination shows what the source does, in the rectangles.
    pub(super) fn compare(&mut self, work: Work<'_>) -> Result<(), Failure> {
        let (source, destination) = (self.of(work.source)?, self.of(work.destination)?);
        let (mut source, mut destination) = (lock(&source), lock(&destination));
        let source = begin(&mut source, Access::Read)?;
        let destination = begin(&mut destination, Access::Read)?;
        let how = relation(work.source.fourcc(), work.destination.fourcc());
        let unused = pixels::unused(work.destination.fourcc());
        for part in parts(work)? {
            self.row.resize(part.length, 0);
            self.other_row.resize(part.length, 0);
            for row in 0..part.rows {
                let (at, into) = part.row(row);
                let (sent, arrived) = (&mut self.row, &mut self.other_row);
                source[part.from_map].read(at, sent).map_err(Failure::Cpu)?;
                destination[part.to_map]
                    .read(into, arrived)
                    .map_err(Failure::Cpu)?;
                if let Relation::Rearranged(how) = how {
                    how.apply(sent);
                }
                unused.clear(sent);
                unused.clear(arrived);
                if sent != arrived {
                    let byte = sent.iter().zip(arrived.iter()).position(|(a, b)| a != b);
                    return Err(Failure::Unlike {
                        plane: part.plane,
                        row: part.first_row + row as u32,
                        byte: byte.unwrap_or(0),
                    });
                }
            }
        }
        Ok(())
    }
}

fn lock(maps: &Mutex<Vec<Mapping>>) -> MutexGuard<'_, Vec<Mapping>> {
    maps.lock().unwrap_or_else(PoisonError::into_inner)
}

type Guards<'a> = arrayvec::ArrayVec<MappingGuard<'a>, { crate::buffer::MAX_PLANES }>;

fn begin(maps: &mut [Mapping], access: Access) -> Result<Guards<'_>, Failure> {
    let guards = maps.iter_mut().map(|map| map.begin_wait(access));
    guards.collect::<Result<_, _>>().map_err(Failure::Cpu)
}

/// Ends accesses, and says whether devices will see what was written.
fn end(guards: Guards<'_>) -> Result<(), Failure> {
    let ended = guards.into_iter().map(MappingGuard::end);
    ended.collect::<Result<(), _>>().map_err(Failure::Cpu)
}

/// Rows of one plane, in bytes.
struct Part {
    plane: usize,
    first_row: u32,
    rows: usize,
    length: usize,
    from_map: usize,
    from: usize,
    from_stride: usize,
    to_map: usize,
    to: usize,
    to_stride: usize,
}

impl Part {
    /// Where a row begins, in the source's mapping and in the destination's.
    fn row(&self, row: usize) -> (usize, usize) {
        (
            self.from + row * self.from_stride,
            self.to + row * self.to_stride,
        )
    }
}

/// What the rectangles are in bytes, plane by plane. Rows without gaps count as one.
fn parts(work: Work<'_>) -> Result<impl Iterator<Item = Part>, Failure> {
    let planes = FormatInfo::of(work.source.fourcc()).map_or(0, |info| info.planes.len());
    for buffer in [work.source, work.destination] {
        // Refuses what the planes below would have to.
        bytes_of(buffer, planes.saturating_sub(1), &Rect::whole(0, 0)).map_err(Failure::Vulkan)?;
    }
    let part = move |plane: usize, rect: &Rect| {
        let rect = in_plane(work.source, plane, rect);
        let place = |buffer: &DmaBuf| {
            let (start, length) = bytes_of(buffer, plane, &rect).unwrap_or_default();
            let plane = buffer.planes()[plane];
            (
                start as usize,
                length as usize,
                plane.stride as usize,
                plane.object,
            )
        };
        let (from, length, from_stride, from_map) = place(work.source);
        let (to, _, to_stride, to_map) = place(work.destination);
        let rows = rect.height as usize;
        let rows_of = |without_gaps| match without_gaps {
            true => (1, length * rows),
            false => (rows, length),
        };
        let (rows, length) = rows_of(from_stride == length && to_stride == length);
        Part {
            plane,
            first_row: rect.y,
            rows,
            length,
            from_map,
            from,
            from_stride,
            to_map,
            to,
            to_stride,
        }
    };
    Ok((0..planes).flat_map(move |plane| work.rects.iter().map(move |rect| part(plane, rect))))
}
