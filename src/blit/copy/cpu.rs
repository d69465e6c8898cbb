//! Copies by the CPU, between mapped buffers and host memory of GPUs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Errno;
use crate::blit::Failure;
use crate::blit::copy::host::HostPicture;
use crate::blit::copy::memory::{Readable, Writable};
use crate::blit::copy::method::{Memory, Method, bytes};
use crate::blit::copy::regions::Picture;
use crate::blit::copy::threads::{Threads, Work};
use crate::blit::damage::Rects;
use crate::blit::scale::Scaling;
use crate::blit::ycbcr::YcbcrEncoding;
use crate::buffer::{DmaBuf, MAX_PLANES, PerBuffer, Refusal};
use crate::sync::{self, Access, Mapping, MappingGuard};

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

/// The mappings of buffers, one for each dma-buf. Each is kept until its buffer is dropped.
#[derive(Debug)]
pub(in crate::blit) struct Maps {
    of: Mapped,
    threads: Threads,
    memory: Memory,
}

type Mapped = PerBuffer<Mutex<Vec<Mapping>>, Failure>;

impl Maps {
    pub(in crate::blit) fn new() -> Self {
        Self {
            of: PerBuffer::new(),
            threads: Threads::new(),
            memory: Memory::default(),
        }
    }

    /// Copies, and converts if the formats differ. Waits for the fences in the dma-bufs.
    ///
    /// The rectangles are in the destination. With a scaling, nothing outside of its destination box is
    /// written. Without, both pictures are of one size. `encoding` is used if one end is YCbCr and the other
    /// is not.
    pub(in crate::blit) fn copy(
        &mut self,
        source: Source<'_>,
        destination: Destination<'_>,
        rects: &Rects,
        scaling: Option<&Scaling>,
        encoding: YcbcrEncoding,
    ) -> Result<(), Failure> {
        let (threads, memory) = (&mut self.threads, &mut self.memory);
        reading(&self.of, source, |from, source| {
            writing(&self.of, destination, |to, destination| {
                let method = Method::new(from, to, scaling, encoding)?;
                let rects = method.cut(rects);
                let work = match method {
                    Method::Pixels(_) => Work::Pixels,
                    Method::Bytes { .. } if source.is_uncached() => Work::Uncached,
                    Method::Bytes { .. } => Work::Plain,
                };
                let team = threads.choose(work, bytes(to, &rects));
                let start = Instant::now();
                let ends = ((from, source), to);
                let done = method.copy(ends, destination, &rects, team.threads, memory);
                if done.is_ok() {
                    threads.learn(team, start.elapsed());
                }
                done
            })
        })
    }
}

/// How long to wait for fences in the dma-bufs. The copy has waited for them before, so only work that
/// devices have begun since is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

type Guards<'a> = arrayvec::ArrayVec<MappingGuard<'a>, MAX_PLANES>;

/// Calls `work` with the bytes that can be read, and the picture that says where its rows are.
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
            let regions = guards.iter().map(MappingGuard::region);
            let regions = regions.collect::<Result<_, _>>().map_err(Failure::Cpu)?;
            work(buffer.into(), &Readable::Mapped(regions))
        }
    }
}

/// As [`reading`], for bytes to write. An error if devices may not see what was written.
fn writing<R>(
    mapped: &Mapped,
    destination: Destination<'_>,
    work: impl FnOnce(Picture<'_>, &mut Writable<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    match destination {
        Destination::Host(host) => {
            let (picture, bytes) = host.parts_mut();
            let done = work(picture, &mut Writable::host(bytes))?;
            host.flush().map_err(Failure::Vulkan)?;
            Ok(done)
        }
        Destination::Buffer(buffer) => {
            let maps = maps_of(mapped, buffer)?;
            let mut maps = lock(&maps);
            let mut guards = begin(&mut maps, Access::Write)?;
            let regions = guards.iter_mut().map(MappingGuard::region_mut);
            let regions: arrayvec::ArrayVec<_, MAX_PLANES> =
                regions.collect::<Result<_, _>>().map_err(Failure::Cpu)?;
            let done = work(buffer.into(), &mut Writable::mapped(regions))?;
            end(guards)?;
            Ok(done)
        }
    }
}

fn maps_of(mapped: &Mapped, buffer: &DmaBuf) -> Result<Arc<Mutex<Vec<Mapping>>>, Failure> {
    let found = mapped.get_or_make(buffer, || {
        // A dma-buf that was exported without DRM_RDWR can still be read.
        let map = |object| match Mapping::of_object(buffer, object) {
            Err(sync::Error::Map {
                errno: Errno::EACCES,
                ..
            }) => Mapping::of_object_read_only(buffer, object),
            mapped => mapped,
        };
        let maps = (0..buffer.objects().len()).map(map);
        let maps = maps.collect::<Result<_, _>>();
        maps.map(Mutex::new)
            .map_err(|error| Refusal::Transient(Failure::Cpu(error)))
    });
    found.map_err(Arc::unwrap_or_clone)
}

fn lock(maps: &Mutex<Vec<Mapping>>) -> MutexGuard<'_, Vec<Mapping>> {
    maps.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(maps: &mut [Mapping], access: Access) -> Result<Guards<'_>, Failure> {
    let guards = maps.iter_mut().map(|map| map.begin_wait(access, PATIENCE));
    guards.collect::<Result<_, _>>().map_err(Failure::Cpu)
}

/// Ends accesses. An error if devices may not see what was written.
fn end(guards: Guards<'_>) -> Result<(), Failure> {
    let ended = guards.into_iter().map(MappingGuard::end);
    ended.collect::<Result<(), _>>().map_err(Failure::Cpu)
}
