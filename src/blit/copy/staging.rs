//! Staging memory: the first of two steps copies a picture into it, and the second copies it from there.

use std::sync::Arc;

use super::allocators;
use super::frame::Frame;
use super::host::HostPicture;
use super::place::{Place, Shape};
use crate::alloc::{Allocator, DmaHeap, Dumb, Request, Udmabuf};
use crate::blit::strategy::{StagingSource, Strategy};
use crate::blit::{BlitDevice, Failure};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo};
use crate::vk;

/// How many frames may be between their two steps at a time. With two, the first step of one frame is
/// executed beside the second step of another.
pub(in crate::blit) const CAPACITY: usize = 2;
/// How many buffers are kept while no frame uses them. Several, since kinds of pictures may alternate.
const MOST_SPARE: usize = 4;
/// How many bytes these buffers may have.
const MOST_SPARE_BYTES: u64 = 256 << 20;

/// Staging memory for one frame.
#[derive(Debug)]
pub(in crate::blit) struct StagingBuffer {
    strategy: Strategy,
    /// The layouts of the source and the destination that it was made for.
    layouts: [BufferDesc; 2],
    pub(in crate::blit) memory: Memory,
}

#[derive(Debug)]
pub(in crate::blit) enum Memory {
    /// One buffer that both GPUs import.
    Shared(DmaBuf),
    /// Host memory of each GPU. `None` for an end without a GPU, whose buffer is mapped instead.
    Host([Option<Arc<HostPicture>>; 2]),
}

impl StagingBuffer {
    /// Makes the memory that a strategy needs for a frame. `devices` are those of the two ends, in which
    /// host memory is made.
    pub(in crate::blit) fn new(
        strategy: Strategy,
        frame: &Frame,
        sides: &[BlitDevice; 2],
        devices: [Option<&vk::Device>; 2],
    ) -> Result<Self, Failure> {
        Ok(Self {
            strategy,
            layouts: frame.layouts(),
            memory: match strategy {
                Strategy::Staged(from) => Memory::Shared(shared(from, frame, sides)?),
                Strategy::HostMemory => Memory::Host(host(frame, devices)?),
                _ => return Err(Failure::NoStrategy),
            },
        })
    }

    /// Where the source's GPU copies the picture to. `None` if the CPU reads the source itself.
    pub(in crate::blit) fn first(&self) -> Option<Place<'_>> {
        match &self.memory {
            Memory::Shared(buffer) => Some(Place::Buffer(buffer, Shape::Either)),
            Memory::Host([host, _]) => host.as_ref().map(Place::Host),
        }
    }

    /// Where the destination's GPU copies the picture from. `None` if the CPU writes the destination itself.
    pub(in crate::blit) fn second(&self) -> Option<Place<'_>> {
        match &self.memory {
            Memory::Shared(buffer) => Some(Place::Buffer(buffer, Shape::Either)),
            Memory::Host([_, host]) => host.as_ref().map(Place::Host),
        }
    }

    /// About how many bytes it has.
    fn bytes(&self) -> u64 {
        let of = |layout: &BufferDesc| {
            let planes = FormatInfo::of(layout.fourcc).map_or(&[][..], |info| info.planes);
            let bytes = planes.iter().map(|plane| {
                let row = plane.row_bytes(layout.width).unwrap_or(u32::MAX);
                u64::from(row) * u64::from(plane.rows(layout.height))
            });
            bytes.sum::<u64>()
        };
        match &self.memory {
            Memory::Shared(buffer) => buffer.objects().iter().map(|object| object.size()).sum(),
            Memory::Host(ends) => {
                let made = ends.iter().zip(&self.layouts);
                let made = made.filter(|(end, _)| end.is_some());
                made.map(|(_, layout)| of(layout)).sum()
            }
        }
    }
}

fn shared(from: StagingSource, frame: &Frame, sides: &[BlitDevice; 2]) -> Result<DmaBuf, Failure> {
    let layout = frame.source.desc();
    let request = Request::new(layout.width, layout.height, layout.fourcc);
    let of_drm = |side: &BlitDevice| {
        let device = side.drm.as_ref().ok_or(Failure::NoStrategy)?;
        let dumb = Dumb::new(device).allocate(&request);
        dumb.or_else(|error| match allocators::gbm(device) {
            Ok(gbm) => gbm.allocate(&request),
            Err(_) => Err(error),
        })
        .map_err(Failure::Allocate)
    };
    match from {
        StagingSource::Destination => of_drm(&sides[1]),
        StagingSource::Source => of_drm(&sides[0]),
        StagingSource::Udmabuf => {
            let allocator = Udmabuf::open().map_err(Failure::Allocate)?;
            allocator.allocate(&request).map_err(Failure::Allocate)
        }
        StagingSource::DmaHeap => {
            let allocator = DmaHeap::system().map_err(Failure::Allocate)?;
            allocator.allocate(&request).map_err(Failure::Allocate)
        }
    }
}

fn host(
    frame: &Frame,
    [from, to]: [Option<&vk::Device>; 2],
) -> Result<[Option<Arc<HostPicture>>; 2], Failure> {
    let [source, destination] = [frame.source.desc(), frame.destination.desc()];
    let brought = from.map(|device| HostPicture::download(device, source));
    let taken = to.map(|device| HostPicture::upload(device, destination));
    let made = |host: Option<Result<HostPicture, _>>| {
        let host = host.transpose().map_err(Failure::Vulkan)?;
        Ok(host.map(Arc::new))
    };
    Ok([made(brought)?, made(taken)?])
}

/// Staging memory that no frame is using. Its bounds make sizes go that are not used any more.
#[derive(Debug, Default)]
pub(in crate::blit) struct StagingPool {
    /// The buffer that was used last is the last one.
    all: Vec<StagingBuffer>,
}

impl StagingPool {
    pub(in crate::blit) fn has(&self, strategy: Strategy, frame: &Frame) -> bool {
        self.find(strategy, frame).is_some()
    }

    pub(in crate::blit) fn take(
        &mut self,
        strategy: Strategy,
        frame: &Frame,
    ) -> Option<StagingBuffer> {
        let at = self.find(strategy, frame)?;
        Some(self.all.remove(at))
    }

    fn find(&self, strategy: Strategy, frame: &Frame) -> Option<usize> {
        let suits = |of: &StagingBuffer| of.strategy == strategy && of.layouts == frame.layouts();
        self.all.iter().rposition(suits)
    }

    pub(in crate::blit) fn put(&mut self, buffer: StagingBuffer) {
        self.all.push(buffer);
        while self.all.len() > MOST_SPARE || (self.all.len() > 1 && self.bytes() > MOST_SPARE_BYTES)
        {
            self.all.remove(0);
        }
    }

    pub(in crate::blit) fn retain(&mut self, wanted: impl Fn(Strategy) -> bool) {
        self.all.retain(|of| wanted(of.strategy));
    }

    /// How many bytes are kept.
    pub(in crate::blit) fn bytes(&self) -> u64 {
        self.all.iter().map(StagingBuffer::bytes).sum()
    }
}
