//! Why copies fail, and what is checked before one.

use std::time::Duration;

use super::strategy::Strategy;
use crate::buffer::{BufferFlags, BufferId, DmaBuf, Fourcc};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind, alloc, sync, vk};

/// Why a copy cannot be made or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pictures are not of one size.
    #[error(
        "the source is {source_width}x{source_height} and the destination {width}x{height}, and no scaling was asked for"
    )]
    Size {
        /// Width of the source in pixels.
        source_width: u32,
        /// Height of the source in pixels.
        source_height: u32,
        /// Width of the destination in pixels.
        width: u32,
        /// Height of the destination in pixels.
        height: u32,
    },
    /// The pixels differ in memory, so that a copy would not be the same picture.
    #[error("{from} cannot be copied to {to}")]
    Format {
        /// Format of the source.
        from: Fourcc,
        /// Format of the destination.
        to: Fourcc,
    },
    /// A [`Blit`](super::Blit) copies formats of one plane. A [`Blitter`](super::Blitter) copies and converts others, too.
    #[error("{0} has several planes, which only a Blitter copies")]
    Planar(Fourcc),
    /// The pictures are of different fields, or interlaced and scaled, turned or converted.
    #[error("a picture of {from} cannot be copied to one of {to} this way")]
    Flags {
        /// Flags of the source.
        from: BufferFlags,
        /// Flags of the destination.
        to: BufferFlags,
    },
    /// Source and destination share memory.
    #[error("source and destination are in the same dma-buf")]
    SameBuffer,
    /// The device does not take the source.
    #[error("source: {0}")]
    Source(vk::Error),
    /// The device does not take the destination.
    #[error("destination: {0}")]
    Destination(vk::Error),
    /// The copy could not be recorded, submitted or waited for.
    #[error(transparent)]
    Commands(#[from] vk::Error),
    /// The boxes of a [`Scaling`](super::Scaling) do not fit.
    #[error(transparent)]
    Scaling(#[from] super::ScalingError),
    /// As many copies as were asked for are in flight: wait for one.
    #[error("all {0} copies are in flight")]
    Busy(usize),
    /// [`Blitter::settle`](super::Blitter::settle) has something to try while a copy has the blitter's devices. Ask again
    /// after that copy.
    #[error("a copy has the devices of the blitter at the moment")]
    DevicesInUse,
    /// A buffer has a fence that the GPU cannot be left to wait for: see [`Blit::submit`](super::Blit::submit).
    #[error("a fence of the buffers is pending, and the GPU cannot wait for it")]
    Fenced,
    /// The fences in the buffers could not be had or waited for.
    #[error("fences of the buffers: {0}")]
    Fences(sync::Error),
    /// Copies at a time: none, or more than there may be.
    #[error("{given} copies at a time were asked for; there may be 1 to {most}")]
    InFlight {
        /// What was asked for.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// More fds to wait for than one copy takes.
    #[error("a copy waits for up to {most} fds, not {given}")]
    Waits {
        /// How many there were.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// More syncobj points to signal than one copy takes.
    #[error("a copy signals up to {most} syncobj points, not {given}")]
    Signals {
        /// How many there were.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// The blitter is of another process, of which this one was forked.
    #[error("the blitter is of another process")]
    OtherProcess,
    /// The copies that were under way had not ended at the deadline.
    #[error("copies are still under way")]
    StillRunning,
    /// An eventfd, a dup or the worker's thread could not be had.
    #[error("cannot prepare a copy: {0}")]
    System(Errno),
    /// A copy that was waited for failed. No call gives this: it is there so that `?` converts a [`Failure`].
    #[error(transparent)]
    Failed(#[from] Failure),
    /// [`Options`](super::Options) leave no strategy.
    #[error("no strategy is allowed by the options and PRIMESHARE_BLIT")]
    NoStrategies,
}

/// Why a copy that was started did not end well, or a strategy does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The GPU or its driver.
    #[error(transparent)]
    Vulkan(vk::Error),
    /// The mappings.
    #[error(transparent)]
    Cpu(sync::Error),
    /// The memory that both devices were to import could not be had.
    #[error("no staging memory: {0}")]
    Allocate(alloc::Error),
    /// All went well, and something else arrived.
    #[error("the picture did not arrive: plane {plane} differs in row {row}, byte {byte}")]
    Unlike {
        /// Format plane.
        plane: usize,
        /// Its row.
        row: u32,
        /// Byte of what was copied of the row.
        byte: usize,
    },
    /// The device was lost with another copy.
    #[error("the device was lost while it made a copy by {0}")]
    Lost(Strategy),
    /// No private buffer like the real one could be made, so that nothing could be tried with it.
    #[error("no buffer like the {end} could be made for a trial: {why}")]
    NoPrivateBuffer {
        /// `source` or `destination`.
        end: &'static str,
        /// What was tried.
        why: String,
    },
    /// Nothing that could be tried works: see the [`Verdict`](super::Verdict).
    #[error("no strategy works: the verdict says why")]
    NoStrategy,
    /// What the copy was to wait for did not happen in time.
    #[error("the fences that the copy waits for were not signalled in {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The copy was not done in the time given to [`Completion::wait`](super::Completion::wait).
    #[error("the copy was not done in {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Waiting failed.
    #[error("poll: {0}")]
    Poll(Errno),
    /// The copy was made, but its fence could not be left in the dma-bufs or at the syncobj points, so
    /// that others may have used the buffers too early.
    #[error("the copy's fence could not be left: {0}")]
    NotLeft(sync::Error),
    /// The [`Blitter`](super::Blitter) has gone before the copy was made.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) | Self::Destination(error) | Self::Commands(error) => error.kind(),
            Self::Fences(error) => error.kind(),
            Self::Failed(failure) => failure.kind(),
            Self::Busy(_) | Self::DevicesInUse | Self::Fenced => ErrorKind::Busy,
            Self::StillRunning => ErrorKind::TimedOut,
            Self::System(errno) => ErrorKind::of(*errno),
            Self::Planar(_) => ErrorKind::Unsupported,
            Self::Size { .. }
            | Self::Format { .. }
            | Self::Flags { .. }
            | Self::SameBuffer
            | Self::Scaling(_)
            | Self::InFlight { .. }
            | Self::Waits { .. }
            | Self::Signals { .. }
            | Self::OtherProcess
            | Self::NoStrategies => ErrorKind::Invalid,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Source(error) | Self::Destination(error) | Self::Commands(error) => error.errno(),
            Self::Fences(error) => error.errno(),
            Self::Failed(failure) => failure.errno(),
            Self::System(errno) => Some(*errno),
            _ => None,
        }
    }
}

into_io_error!(Error);

impl Failure {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Vulkan(error) => error.kind(),
            Self::Cpu(error) | Self::NotLeft(error) => error.kind(),
            Self::Allocate(error) => error.kind(),
            Self::Poll(errno) => ErrorKind::of(*errno),
            Self::Lost(_) => ErrorKind::Lost,
            Self::Deadline(_) | Self::TimedOut(_) => ErrorKind::TimedOut,
            Self::Unlike { .. } | Self::NoPrivateBuffer { .. } | Self::NoStrategy => {
                ErrorKind::Refused
            }
            Self::Cancelled => ErrorKind::Other,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Vulkan(error) => error.errno(),
            Self::Cpu(error) | Self::NotLeft(error) => error.errno(),
            Self::Allocate(error) => error.errno(),
            Self::Poll(errno) => Some(*errno),
            _ => None,
        }
    }

    /// Whether it says something of these buffers only, or of this moment, and nothing of others like
    /// them.
    pub(super) fn is_of_the_frame(&self) -> bool {
        match self {
            Self::Vulkan(error) => !error.is_device_lost(),
            Self::Cpu(_) | Self::Lost(_) => true,
            _ => false,
        }
    }

    /// Whether the same may work next time, as after a lack of memory.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Vulkan(error) => error.is_transient(),
            Self::Cpu(_) | Self::Lost(_) | Self::Allocate(_) => true,
            _ => false,
        }
    }
}

into_io_error!(Failure);

/// What copies that change no size ask of two buffers.
pub(super) fn check_sizes(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    let size = |buffer: &DmaBuf| (buffer.width(), buffer.height());
    match size(source) == size(destination) {
        true => Ok(()),
        false => Err(Error::Size {
            source_width: source.width(),
            source_height: source.height(),
            width: destination.width(),
            height: destination.height(),
        }),
    }
}

/// What copies that move rows as they lie in memory ask of two buffers.
pub(super) fn check_flags(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    let (from, to) = (source.flags(), destination.flags());
    match from == to {
        true => Ok(()),
        false => Err(Error::Flags { from, to }),
    }
}

/// What copies of any kind ask of two buffers.
pub(super) fn check(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    let ids = |buffer: &'_ DmaBuf| -> arrayvec::ArrayVec<BufferId, 4> {
        buffer.objects().iter().map(|object| object.id()).collect()
    };
    let others = ids(destination);
    match ids(source).iter().any(|id| others.contains(id)) {
        true => Err(Error::SameBuffer),
        false => Ok(()),
    }
}
