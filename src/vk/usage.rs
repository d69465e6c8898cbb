//! What images are used for.

use ash::vk;

/// How a queue uses an image or a buffer between [`acquire`](super::acquire) and
/// [`release`](super::release).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Use {
    /// Copies are made from it.
    Source,
    /// Copies are made into it.
    Destination,
    /// Shaders sample it.
    Sampled,
    /// It is drawn into.
    Attachment,
    /// Shaders read and write it.
    Storage,
}

impl Use {
    /// The usage an image of this use needs.
    pub fn usage(self) -> vk::ImageUsageFlags {
        match self {
            Self::Source => vk::ImageUsageFlags::TRANSFER_SRC,
            Self::Destination => vk::ImageUsageFlags::TRANSFER_DST,
            Self::Sampled => vk::ImageUsageFlags::SAMPLED,
            Self::Attachment => vk::ImageUsageFlags::COLOR_ATTACHMENT,
            Self::Storage => vk::ImageUsageFlags::STORAGE,
        }
    }

    /// The layout of an image while it is used so.
    pub fn layout(self) -> vk::ImageLayout {
        match self {
            Self::Source => vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            Self::Destination => vk::ImageLayout::TRANSFER_DST_OPTIMAL,
            Self::Sampled => vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
            Self::Attachment => vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
            Self::Storage => vk::ImageLayout::GENERAL,
        }
    }

    pub(super) fn access(self) -> vk::AccessFlags {
        use vk::AccessFlags as A;
        match self {
            Self::Source => A::TRANSFER_READ,
            Self::Destination => A::TRANSFER_WRITE,
            Self::Sampled => A::SHADER_READ,
            Self::Attachment => A::COLOR_ATTACHMENT_READ | A::COLOR_ATTACHMENT_WRITE,
            Self::Storage => A::SHADER_READ | A::SHADER_WRITE,
        }
    }

    /// Shaders run in stages that depend on the queue family, so for them it is all of its stages.
    pub(super) fn stages(self) -> vk::PipelineStageFlags {
        use vk::PipelineStageFlags as S;
        match self {
            Self::Source | Self::Destination => S::TRANSFER,
            Self::Attachment => S::COLOR_ATTACHMENT_OUTPUT,
            Self::Sampled | Self::Storage => S::ALL_COMMANDS,
        }
    }
}

/// What an image is imported or allocated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageUsage {
    /// All that will be done with it.
    pub flags: vk::ImageUsageFlags,
    /// Whether it will also be viewed as sRGB, so that sampling decodes and drawing encodes.
    /// Passed over for formats that have no such view.
    pub srgb: bool,
    /// Whether its planes will also be viewed, each as a picture of the plane's own format. Passed
    /// over for formats of one plane.
    pub planes: bool,
}

impl ImageUsage {
    /// As before, with views as sRGB.
    pub fn with_srgb(self) -> Self {
        Self { srgb: true, ..self }
    }
}

impl From<vk::ImageUsageFlags> for ImageUsage {
    fn from(flags: vk::ImageUsageFlags) -> Self {
        Self {
            flags,
            srgb: false,
            planes: false,
        }
    }
}

impl From<Use> for ImageUsage {
    fn from(used: Use) -> Self {
        used.usage().into()
    }
}
