//! The ways there are of getting a picture across.
//!
//! To add one: a variant and a name here, what can be said against it in `choose/plan.rs`, and how it
//! copies in `copy/copier.rs`.

use std::fmt;
use std::str::FromStr;

/// Which of the two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The one whose buffer is read.
    Source,
    /// The one whose buffer is written.
    Destination,
}

/// Where memory that both devices import comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StagingSource {
    /// A LINEAR buffer of the destination's device.
    Destination,
    /// A LINEAR buffer of the source's device.
    Source,
    /// Anonymous memory of the system, by `/dev/udmabuf`.
    Udmabuf,
    /// Memory of the system, by `/dev/dma_heap/system`.
    DmaHeap,
}

/// A way of getting a picture across.
///
/// Each of them also scales, turns and converts pictures, as [`Scaling`](super::Scaling) and
/// [`YcbcrEncoding`](super::YcbcrEncoding) say. Where a GPU makes the copy, it does so by itself: by
/// vkCmdBlitImage where RGB stays pixel for pixel, else by a compute shader, through memory of its own.
/// With [`Self::HostMemory`] and [`Self::Cpu`] the CPU does. All make the same picture, but for rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The destination's GPU imports the source as an image and reads it.
    Pull,
    /// As [`Self::Pull`] with the source as plain bytes (`VkBuffer`).
    PullBytes,
    /// The source's GPU writes, and the destination's reads, memory that both import; the destination's
    /// changes what is to be changed of the pixels. With several
    /// copies under way the one writes while the other reads the picture before: there is memory
    /// for two, or where both give [sync files](super::SyncFiles) for all of them.
    Staged(StagingSource),
    /// Each GPU copies between its buffer and host memory of its own, the CPU between the two; an
    /// end without a GPU is mapped, if it is LINEAR. Needs nobody to import anything of somebody
    /// else's. Copies under way overlap as with [`Self::Staged`].
    HostMemory,
    /// The CPU copies, through two mappings.
    Cpu,
    /// The source's GPU imports the destination as an image and writes it. An exporter may move a
    /// buffer for an importer, and a screen's buffer cannot be shown any more then (amdgpu): used
    /// where nothing else works, or where it is [asked for](super::Options::push).
    Push,
    /// As [`Self::Push`] with the destination as plain bytes.
    PushBytes,
}

impl Strategy {
    /// All of them, in order of trust.
    pub const ALL: &[Self] = &Self::LIST;

    /// As [`Self::ALL`], of a known length.
    pub(super) const LIST: [Self; 10] = [
        Self::Pull,
        Self::PullBytes,
        Self::Staged(StagingSource::Destination),
        Self::Staged(StagingSource::Source),
        Self::Staged(StagingSource::Udmabuf),
        Self::Staged(StagingSource::DmaHeap),
        Self::HostMemory,
        Self::Cpu,
        Self::Push,
        Self::PushBytes,
    ];

    /// Whether the source's GPU imports and writes the destination.
    pub fn is_push(self) -> bool {
        matches!(self, Self::Push | Self::PushBytes)
    }

    /// Whether the picture goes through memory in between.
    pub(super) fn is_two_step(self) -> bool {
        matches!(self, Self::Staged(_) | Self::HostMemory)
    }

    /// Whether the CPU does it, where the Vulkan devices of these ends (source, destination) are the
    /// CPU.
    pub(super) fn is_on_cpu(self, [source, destination]: [bool; 2]) -> bool {
        match self {
            Self::Pull | Self::PullBytes => destination,
            Self::Push | Self::PushBytes => source,
            Self::Staged(_) => source || destination,
            Self::Cpu | Self::HostMemory => true,
        }
    }

    /// Its name, for people and for `PRIMESHARE_BLIT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::PullBytes => "pull-bytes",
            Self::PushBytes => "push-bytes",
            Self::Staged(StagingSource::Destination) => "staged-destination",
            Self::Staged(StagingSource::Source) => "staged-source",
            Self::Staged(StagingSource::Udmabuf) => "staged-udmabuf",
            Self::Staged(StagingSource::DmaHeap) => "staged-dma-heap",
            Self::Cpu => "cpu",
            Self::HostMemory => "host-memory",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No strategy has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no blit strategy; there are {names}", names = names())]
pub struct UnknownStrategy(pub String);

fn names() -> String {
    Strategy::LIST.map(Strategy::name).join(", ")
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        let found = Self::LIST.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_is_found_by_its_name() {
        for strategy in Strategy::LIST {
            assert_eq!(strategy.name().parse(), Ok(strategy));
        }
        let unknown = "teleport".parse::<Strategy>().unwrap_err();
        assert!(unknown.to_string().contains("staged-udmabuf"), "{unknown}");
    }
}
