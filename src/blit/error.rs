//! Why copies fail, and what is checked before one.

use std::time::Duration;

use nix::errno::Errno;

use super::strategy::UnknownStrategy;
use crate::buffer::{BufferId, DmaBuf, Fourcc};
use crate::{alloc, sync, vk};

/// Why a copy cannot be made or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pictures are not of one size.
    #[error("the source is {source_width}x{source_height}, the destination {width}x{height}")]
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
    #[error("{from} cannot be copied to {to} as it is")]
    Format {
        /// Format of the source.
        from: Fourcc,
        /// Format of the destination.
        to: Fourcc,
    },
    /// Formats of several planes are not copied yet.
    #[error("{0} has several planes, which are not copied")]
    Planar(Fourcc),
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
    /// As many copies as were asked for are in flight: wait for one.
    #[error("all {0} copies are in flight")]
    Busy(usize),
    /// A buffer has a fence that the GPU cannot be left to wait for: see [`Blit::submit`](super::Blit::submit).
    #[error("a fence of the buffers is pending, and the GPU cannot wait for it")]
    Fenced,
    /// The fences in the buffers could not be had or waited for.
    #[error("fences of the buffers: {0}")]
    Fences(sync::Error),
    /// More fds to wait for than one copy takes.
    #[error("a copy waits for up to {most} fds, not {given}")]
    Waits {
        /// How many there were.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// An eventfd, a dup or the worker's thread could not be had.
    #[error("cannot prepare a copy: {0}")]
    System(Errno),
    /// `PRIMESHARE_BLIT` names no strategy.
    #[error("PRIMESHARE_BLIT: {0}")]
    Strategy(#[from] UnknownStrategy),
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
    /// Nothing that could be tried works: see the [`Verdict`](super::Verdict).
    #[error("no strategy works")]
    NoStrategy,
    /// What the copy was to wait for did not happen in time.
    #[error("the fences that the copy waits for were not signalled in {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The copy was not done in the time given to [`Fence::wait`](super::Fence::wait).
    #[error("the copy was not done in {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Waiting failed.
    #[error("poll: {0}")]
    Poll(Errno),
    /// The [`Blitter`](super::Blitter) has gone before the copy was made.
    #[error("cancelled")]
    Cancelled,
}

impl Failure {
    /// Whether it says something of this frame only, and nothing of others like it: a lack of
    /// memory or fds that passes, or what is odd about one buffer.
    pub(super) fn is_of_the_frame(&self) -> bool {
        use vk::Error as E;
        match self {
            Self::Vulkan(error) if error.is_device_lost() => false,
            Self::Vulkan(
                E::TooLarge { .. }
                | E::OddSize { .. }
                | E::Misaligned { .. }
                | E::Layout(_)
                | E::PlaneLayout { .. }
                | E::TooSmall { .. }
                | E::TooManyBytes { .. }
                | E::ReadOnly { .. }
                | E::SeveralDmaBufs(_)
                | E::ClassicResource { .. }
                | E::NotCurrent(_)
                | E::Disjoint { .. },
            ) => true,
            Self::Vulkan(error) => error.is_passing(),
            Self::Cpu(_) => true,
            _ => false,
        }
    }
}

/// What copies of any kind ask of two buffers.
pub(super) fn check(source: &DmaBuf, destination: &DmaBuf) -> Result<(), Error> {
    let size = |buffer: &DmaBuf| (buffer.width(), buffer.height());
    if size(source) != size(destination) {
        return Err(Error::Size {
            source_width: source.width(),
            source_height: source.height(),
            width: destination.width(),
            height: destination.height(),
        });
    }
    let ids = |buffer: &'_ DmaBuf| -> arrayvec::ArrayVec<BufferId, 4> {
        buffer.objects().iter().map(|object| object.id()).collect()
    };
    let others = ids(destination);
    match ids(source).iter().any(|id| others.contains(id)) {
        true => Err(Error::SameBuffer),
        false => Ok(()),
    }
}
