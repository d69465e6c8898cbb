//! Memory that a picture goes through where it takes two steps: the first leaves it there, the
//! second takes it from there.

use std::sync::Arc;

use crate::alloc::{Allocator, DmaHeap, Dumb, Request, Udmabuf};
use crate::blit::copy::frame::Frame;
use crate::blit::copy::gpu::{Lane, Place, Shape};
use crate::blit::copy::host::HostPicture;
use crate::blit::strategy::{Carrier, Strategy};
use crate::blit::{Failure, Side};
use crate::buffer::{DmaBuf, Layout};
use crate::gbm::Gbm;

/// Frames between their two steps at a time: the first step of one is executed beside the second
/// of another.
pub(in crate::blit) const MOST: usize = 2;
/// Frames after which memory that none of them needed is let go of: pictures of several kinds may
/// come in turns, and those of a size that is not wanted any more go. More than can be under way
/// (64): what comes back with all the others is still needed.
const KEPT: u64 = 128;

/// Memory for one frame.
#[derive(Debug)]
pub(in crate::blit) struct Between {
    strategy: Strategy,
    /// Of the pictures it is for.
    layouts: [Layout; 2],
    pub(in crate::blit) memory: Memory,
    /// The frame that used it last, by their number.
    used: u64,
}

#[derive(Debug)]
pub(in crate::blit) enum Memory {
    /// Both GPUs import it.
    Shared(DmaBuf),
    /// Of each GPU; `None` where there is none, and the buffer itself is mapped.
    Host([Option<Arc<HostPicture>>; 2]),
}

impl Between {
    /// Makes the memory that the strategy needs for a frame.
    pub(in crate::blit) fn new(
        strategy: Strategy,
        frame: &Frame,
        sides: &[Side; 2],
        lanes: &[Option<Lane>; 2],
    ) -> Result<Self, Failure> {
        Ok(Self {
            strategy,
            layouts: frame.layouts(),
            memory: match strategy {
                Strategy::Staged(carrier) => Memory::Shared(shared(carrier, frame, sides)?),
                Strategy::HostMemory => Memory::Host(host(frame, lanes)?),
                _ => return Err(Failure::NoStrategy),
            },
            used: 0,
        })
    }

    /// Where the source's GPU brings the picture; `None` where the processor takes it from there.
    pub(in crate::blit) fn first(&self) -> Option<Place<'_>> {
        match &self.memory {
            Memory::Shared(buffer) => Some(Place::Buffer(buffer, Shape::Either)),
            Memory::Host([host, _]) => host.as_ref().map(Place::Host),
        }
    }

    /// Where the destination's GPU takes it; `None` where the processor brings it there.
    pub(in crate::blit) fn second(&self) -> Option<Place<'_>> {
        match &self.memory {
            Memory::Shared(buffer) => Some(Place::Buffer(buffer, Shape::Either)),
            Memory::Host([_, host]) => host.as_ref().map(Place::Host),
        }
    }
}

fn shared(carrier: Carrier, frame: &Frame, sides: &[Side; 2]) -> Result<DmaBuf, Failure> {
    let layout = frame.source.layout();
    let request = Request::new(layout.width, layout.height, layout.fourcc);
    let of_drm = |side: &Side| {
        let device = side.drm.as_ref().ok_or(Failure::NoStrategy)?;
        let dumb = Dumb::new(device).allocate(&request);
        dumb.or_else(|error| match Gbm::new(device) {
            Ok(gbm) => gbm.allocate(&request),
            Err(_) => Err(error),
        })
        .map_err(Failure::Allocate)
    };
    match carrier {
        Carrier::Destination => of_drm(&sides[1]),
        Carrier::Source => of_drm(&sides[0]),
        Carrier::Udmabuf => {
            let allocator = Udmabuf::open().map_err(Failure::Allocate)?;
            allocator.allocate(&request).map_err(Failure::Allocate)
        }
        Carrier::DmaHeap => {
            let allocator = DmaHeap::system().map_err(Failure::Allocate)?;
            allocator.allocate(&request).map_err(Failure::Allocate)
        }
    }
}

fn host(
    frame: &Frame,
    [from, to]: &[Option<Lane>; 2],
) -> Result<[Option<Arc<HostPicture>>; 2], Failure> {
    let [source, destination] = [frame.source.layout(), frame.destination.layout()];
    let brought = from
        .as_ref()
        .map(|gpu| HostPicture::download(gpu.device(), source));
    let taken = to
        .as_ref()
        .map(|gpu| HostPicture::upload(gpu.device(), destination));
    let made = |host: Option<Result<HostPicture, _>>| {
        let host = host.transpose().map_err(Failure::Vulkan)?;
        Ok(host.map(Arc::new))
    };
    Ok([made(brought)?, made(taken)?])
}

/// What no frame is using.
#[derive(Debug, Default)]
pub(in crate::blit) struct Spare {
    /// Those used last come last.
    all: Vec<Between>,
    frames: u64,
}

impl Spare {
    pub(in crate::blit) fn has(&self, strategy: Strategy, frame: &Frame) -> bool {
        self.find(strategy, frame).is_some()
    }

    pub(in crate::blit) fn take(&mut self, strategy: Strategy, frame: &Frame) -> Option<Between> {
        let at = self.find(strategy, frame)?;
        Some(self.all.remove(at))
    }

    fn find(&self, strategy: Strategy, frame: &Frame) -> Option<usize> {
        let suits = |of: &Between| of.strategy == strategy && of.layouts == frame.layouts();
        self.all.iter().rposition(suits)
    }

    pub(in crate::blit) fn put(&mut self, mut between: Between) {
        self.frames += 1;
        between.used = self.frames;
        self.all.push(between);
        self.all.retain(|of| of.used + KEPT > self.frames);
    }

    pub(in crate::blit) fn retain(&mut self, wanted: impl Fn(Strategy) -> bool) {
        self.all.retain(|of| wanted(of.strategy));
    }
}
