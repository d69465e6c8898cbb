//! Copies by the processor: through mappings, and host memory of GPUs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use crate::blit::Failure;
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::pixels::{self, Relation, relation};
use crate::blit::copy::regions::{Picture, bytes_of, in_plane};
use crate::blit::damage::{Rect, Rects};
use crate::buffer::{Attached, DmaBuf, FormatInfo, MAX_PLANES};
use crate::sync::{self, Access, Mapping, MappingGuard};
use crate::vk::Error;

/// What is read.
#[derive(Clone, Copy)]
pub(in crate::blit) enum Source<'a> {
    Buffer(&'a DmaBuf),
    Host(&'a HostPicture),
}

/// What is written.
pub(in crate::blit) enum Destination<'a> {
    Buffer(&'a DmaBuf),
    Host(&'a mut HostPicture),
}

/// The mappings of buffers, each kept until its buffer goes: one for each dma-buf of it.
#[derive(Debug)]
pub(in crate::blit) struct Maps {
    of: Mapped,
    /// Kept for their memory.
    row: Vec<u8>,
    other_row: Vec<u8>,
}

type Mapped = Attached<Mutex<Vec<Mapping>>>;

impl Maps {
    pub(in crate::blit) fn new() -> Self {
        Self {
            of: Attached::new(),
            row: Vec::new(),
            other_row: Vec::new(),
        }
    }

    /// Copies, with the formats' conversion. Waits for devices that have left a fence.
    pub(in crate::blit) fn copy(
        &mut self,
        source: Source<'_>,
        destination: Destination<'_>,
        rects: &Rects,
    ) -> Result<(), Failure> {
        let row = &mut self.row;
        reading(&self.of, source, |from, source| {
            writing(&self.of, destination, |to, destination| {
                let how = relation(from.layout.fourcc, to.layout.fourcc);
                for part in parts(from, to, rects)? {
                    for at in part.each_row() {
                        match how {
                            Relation::Rearranged(how) => {
                                row.resize(part.length, 0);
                                source.read(at.from, row)?;
                                how.apply(row);
                                destination.write(at.to, row)?;
                            }
                            _ => destination.copy(at.to, source, at.from, part.length)?,
                        }
                    }
                }
                Ok(())
            })
        })
    }

    /// Makes sure that no pixel of the destination shows what the source does, in the rectangles:
    /// a copy that does nothing cannot pass for one that works then.
    pub(in crate::blit) fn spoil(
        &mut self,
        source: &DmaBuf,
        destination: &DmaBuf,
        rects: &Rects,
    ) -> Result<(), Failure> {
        let row = &mut self.row;
        reading(&self.of, Source::Buffer(source), |from, source| {
            let destination = Destination::Buffer(destination);
            writing(&self.of, destination, |to, destination| {
                let how = relation(from.layout.fourcc, to.layout.fourcc);
                for part in parts(from, to, rects)? {
                    row.resize(part.length, 0);
                    for at in part.each_row() {
                        source.read(at.from, row)?;
                        if let Relation::Rearranged(how) = how {
                            how.apply(row);
                        }
                        row.iter_mut().for_each(|byte| *byte = !*byte);
                        destination.write(at.to, row)?;
                    }
                }
                Ok(())
            })
        })
    }

    /// Whether the destination shows what the source does, in the rectangles.
    pub(in crate::blit) fn compare(
        &mut self,
        source: &DmaBuf,
        destination: &DmaBuf,
        rects: &Rects,
    ) -> Result<(), Failure> {
        let (sent, arrived) = (&mut self.row, &mut self.other_row);
        reading(&self.of, Source::Buffer(source), |from, source| {
            let destination = Source::Buffer(destination);
            reading(&self.of, destination, |to, destination| {
                let how = relation(from.layout.fourcc, to.layout.fourcc);
                let unused = pixels::unused(to.layout.fourcc);
                for part in parts(from, to, rects)? {
                    sent.resize(part.length, 0);
                    arrived.resize(part.length, 0);
                    for (row, at) in part.each_row().enumerate() {
                        source.read(at.from, sent)?;
                        destination.read(at.to, arrived)?;
                        if let Relation::Rearranged(how) = how {
                            how.apply(sent);
                        }
                        unused.clear(sent);
                        unused.clear(arrived);
                        if sent != arrived {
                            let mut bytes = sent.iter().zip(arrived.iter());
                            return Err(Failure::Unlike {
                                plane: part.plane,
                                row: part.first_row + row as u32,
                                byte: bytes.position(|(a, b)| a != b).unwrap_or(0),
                            });
                        }
                    }
                }
                Ok(())
            })
        })
    }
}

/// A copy starts once the buffers' fences are signalled. This is for what devices begin to do after
/// that.
const PATIENCE: Duration = Duration::from_secs(10);

type Guards<'a> = arrayvec::ArrayVec<MappingGuard<'a>, MAX_PLANES>;

/// Bytes in a dma-buf's mapping (by its index in the buffer), or in host memory.
#[derive(Clone, Copy)]
struct At {
    object: usize,
    offset: usize,
}

enum Readable<'a> {
    Mapped(Guards<'a>),
    Host(&'a [u8]),
}

enum Writable<'a> {
    Mapped(Guards<'a>),
    Host(&'a mut [u8]),
}

impl Readable<'_> {
    fn read(&self, at: At, into: &mut [u8]) -> Result<(), Failure> {
        match self {
            Self::Mapped(maps) => maps[at.object].read(at.offset, into).map_err(Failure::Cpu),
            Self::Host(bytes) => {
                let inside = bytes.get(at.offset..).and_then(|b| b.get(..into.len()));
                let inside = inside.ok_or_else(|| outside(at, into.len(), bytes.len()))?;
                into.copy_from_slice(inside);
                Ok(())
            }
        }
    }
}

impl Writable<'_> {
    fn write(&mut self, at: At, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Mapped(maps) => maps[at.object]
                .write(at.offset, bytes)
                .map_err(Failure::Cpu),
            Self::Host(all) => {
                part_mut(all, at, bytes.len())?.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn copy(
        &mut self,
        at: At,
        source: &Readable<'_>,
        from: At,
        length: usize,
    ) -> Result<(), Failure> {
        match (self, source) {
            (Self::Mapped(to), Readable::Mapped(maps)) => to[at.object]
                .copy_from(at.offset, &maps[from.object], from.offset, length)
                .map_err(Failure::Cpu),
            (Self::Host(all), source) => source.read(from, part_mut(all, at, length)?),
            (mapped, Readable::Host(bytes)) => {
                let inside = bytes.get(from.offset..).and_then(|b| b.get(..length));
                let inside = inside.ok_or_else(|| outside(from, length, bytes.len()))?;
                mapped.write(at, inside)
            }
        }
    }
}

fn part_mut(all: &mut [u8], at: At, length: usize) -> Result<&mut [u8], Failure> {
    let size = all.len();
    let part = all.get_mut(at.offset..).and_then(|b| b.get_mut(..length));
    part.ok_or_else(|| outside(at, length, size))
}

fn outside(at: At, length: usize, size: usize) -> Failure {
    Failure::Vulkan(Error::StagingRange {
        offset: at.offset,
        length,
        size,
    })
}

/// Does something with what can be read, and where its rows are.
fn reading<R>(
    mapped: &Mapped,
    source: Source<'_>,
    work: impl FnOnce(Picture<'_>, &Readable<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    match source {
        Source::Host(host) => {
            let bytes = host.bytes().map_err(Failure::Vulkan)?;
            work(host.picture(), &Readable::Host(bytes))
        }
        Source::Buffer(buffer) => {
            let maps = maps_of(mapped, buffer)?;
            let mut maps = lock(&maps);
            let guards = begin(&mut maps, Access::Read)?;
            work(buffer.into(), &Readable::Mapped(guards))
        }
    }
}

/// As [`reading`], and says whether devices will see what was written.
fn writing<R>(
    mapped: &Mapped,
    destination: Destination<'_>,
    work: impl FnOnce(Picture<'_>, &mut Writable<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    match destination {
        Destination::Host(host) => {
            let (picture, bytes) = host.parts_mut();
            let done = work(picture, &mut Writable::Host(bytes))?;
            host.flush().map_err(Failure::Vulkan)?;
            Ok(done)
        }
        Destination::Buffer(buffer) => {
            let maps = maps_of(mapped, buffer)?;
            let mut maps = lock(&maps);
            let mut writable = Writable::Mapped(begin(&mut maps, Access::Write)?);
            let done = work(buffer.into(), &mut writable)?;
            if let Writable::Mapped(guards) = writable {
                end(guards)?;
            }
            Ok(done)
        }
    }
}

fn maps_of(mapped: &Mapped, buffer: &DmaBuf) -> Result<Arc<Mutex<Vec<Mapping>>>, Failure> {
    mapped.get_or_make(buffer, || {
        // What was exported without DRM_RDWR can be read all the same.
        let map = |object| match Mapping::of_object(buffer, object) {
            Err(sync::Error::Map {
                errno: Errno::EACCES,
                ..
            }) => Mapping::of_object_read_only(buffer, object),
            mapped => mapped,
        };
        let maps = (0..buffer.objects().len()).map(map);
        Ok(Mutex::new(
            maps.collect::<Result<_, _>>().map_err(Failure::Cpu)?,
        ))
    })
}

fn lock(maps: &Mutex<Vec<Mapping>>) -> MutexGuard<'_, Vec<Mapping>> {
    maps.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(maps: &mut [Mapping], access: Access) -> Result<Guards<'_>, Failure> {
    let guards = maps.iter_mut().map(|map| map.begin_wait(access, PATIENCE));
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
    from: At,
    from_stride: usize,
    to: At,
    to_stride: usize,
}

/// Where a row begins.
struct Row {
    from: At,
    to: At,
}

impl Part {
    fn each_row(&self) -> impl Iterator<Item = Row> + use<> {
        let Self {
            from,
            from_stride,
            to,
            to_stride,
            ..
        } = *self;
        let down = |at: At, bytes: usize| At {
            offset: at.offset + bytes,
            ..at
        };
        (0..self.rows).map(move |row| Row {
            from: down(from, row * from_stride),
            to: down(to, row * to_stride),
        })
    }
}

/// What the rectangles are in bytes, plane by plane. Rows without gaps count as one.
fn parts<'a>(
    source: Picture<'a>,
    destination: Picture<'a>,
    rects: &'a Rects,
) -> Result<impl Iterator<Item = Part> + use<'a>, Failure> {
    let fourcc = source.layout.fourcc;
    let planes = FormatInfo::of(fourcc).map_or(0, |info| info.planes.len());
    for picture in [source, destination] {
        // Refuses what the planes below would have to.
        bytes_of(picture, planes.saturating_sub(1), &Rect::whole(0, 0)).map_err(Failure::Vulkan)?;
    }
    let part = move |plane: usize, rect: &Rect| {
        let rect = in_plane(fourcc, plane, rect);
        let place = |picture: Picture<'_>| {
            let (start, length) = bytes_of(picture, plane, &rect).unwrap_or_default();
            let plane = picture.planes[plane];
            let at = At {
                object: plane.object,
                offset: start as usize,
            };
            (at, length as usize, plane.stride as usize)
        };
        let (from, length, from_stride) = place(source);
        let (to, _, to_stride) = place(destination);
        let rows = rect.height as usize;
        let (rows, length) = match from_stride == length && to_stride == length {
            true => (1, length * rows),
            false => (rows, length),
        };
        Part {
            plane,
            first_row: rect.y,
            rows,
            length,
            from,
            from_stride,
            to,
            to_stride,
        }
    };
    Ok((0..planes).flat_map(move |plane| rects.iter().map(move |rect| part(plane, rect))))
}
