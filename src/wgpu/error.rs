//! Why a texture is not shared.

use wgpu::{Features, TextureFormat, TextureUsages};

use crate::buffer::Fourcc;
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind, vk};

/// Why a texture is not shared. Nothing was leaked; no fd of the caller was closed but those that
/// were given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// wgpu uses another API than Vulkan here.
    #[error("wgpu does not use Vulkan here")]
    NotVulkan,
    /// The queue is that of another device.
    #[error("the queue is not the device's")]
    OtherQueue,
    /// The texture was made on another device.
    #[error("the texture is of another device")]
    OtherDevice,
    /// Vulkan's reason. Among them [`vk::Error::Missing`], which names what the wgpu device was
    /// created without.
    #[error(transparent)]
    Vulkan(#[from] vk::Error),
    /// wgpu refused to make a device.
    #[error("wgpu made no device: {0}")]
    Open(String),
    /// No Vulkan adapter shares textures; what each of them said.
    #[error(
        "no Vulkan device shares textures of wgpu; Mesa's lavapipe does in software{}",
        lines(.0)
    )]
    NoAdapter(Vec<String>),
    /// wgpu has no texture format with this format's bytes and order of colours.
    #[error("wgpu has no texture format for {0}")]
    Format(Fourcc),
    /// The wgpu device was created without what the format needs.
    #[error("{format:?} textures need a wgpu device with {}", names(missing.iter_names()))]
    Features {
        /// wgpu's format.
        format: TextureFormat,
        /// What to ask for in `DeviceDescriptor::required_features`.
        missing: Features,
    },
    /// wgpu has no such use for textures of the format, or not for shared ones. Formats of several planes
    /// are for copies and for sampling, plane by plane.
    #[error("{format:?} textures are not shared for {}", names(usages.iter_names()))]
    Usages {
        /// wgpu's format.
        format: TextureFormat,
        /// The usages that it does not have. Empty if no usage was asked for.
        usages: TextureUsages,
    },
    /// Larger than the limits that the wgpu device was created with.
    #[error("{width}x{height} is larger than the wgpu device's limit of {most}")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Most pixels across and down.
        most: u32,
    },
    /// The texture has been acquired before, and not released since.
    #[error("the texture is acquired already")]
    Acquired,
    /// The texture has not been acquired.
    #[error("the texture is not acquired")]
    NotAcquired,
    /// wgpu found something wrong with what was submitted, or had no memory.
    #[error("wgpu: {0}")]
    Wgpu(String),
    /// wgpu submits nothing more: its device is lost or destroyed.
    #[error("the wgpu device is lost")]
    Lost,
    /// The wait's time ran out.
    #[error("the GPU did not finish in {milliseconds} ms")]
    Timeout {
        /// How long was waited.
        milliseconds: u128,
    },
}

/// Each on a line of its own.
fn lines(reasons: &[String]) -> String {
    reasons
        .iter()
        .map(|reason| format!("\n  {reason}"))
        .collect()
}

/// The names of flags, for messages.
fn names<F>(flags: impl Iterator<Item = (&'static str, F)>) -> String {
    let names: Vec<_> = flags.map(|(name, _)| name).collect();
    match names.is_empty() {
        true => "no use".to_owned(),
        false => names.join(", "),
    }
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Vulkan(error) => error.kind(),
            Self::Lost => ErrorKind::Lost,
            Self::Timeout { .. } => ErrorKind::TimedOut,
            Self::Acquired => ErrorKind::Busy,
            Self::NoAdapter(_) | Self::NotVulkan | Self::Features { .. } | Self::Format(_) => {
                ErrorKind::Unsupported
            }
            Self::Usages { .. } | Self::TooLarge { .. } | Self::Open(_) => ErrorKind::Refused,
            Self::OtherQueue | Self::OtherDevice | Self::NotAcquired => ErrorKind::Invalid,
            Self::Wgpu(_) => ErrorKind::Other,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Vulkan(error) => error.errno(),
            _ => None,
        }
    }

    /// Whether the same may work next time: a lack of memory or of fds, or work under way.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Vulkan(error) => error.is_transient(),
            Self::Wgpu(_) | Self::Acquired | Self::NotAcquired | Self::Timeout { .. } => true,
            _ => false,
        }
    }
}

into_io_error!(Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_by_their_names() {
        let usages = |usages| Error::Usages {
            format: TextureFormat::Rgba8Unorm,
            usages,
        };
        let both = TextureUsages::COPY_SRC | TextureUsages::STORAGE_BINDING;
        let text = usages(both).to_string();
        assert!(text.ends_with("for COPY_SRC, STORAGE_BINDING"), "{text}");
        let text = usages(TextureUsages::empty()).to_string();
        assert!(text.ends_with("for no use"), "{text}");
        let error = Error::Features {
            format: TextureFormat::NV12,
            missing: Features::TEXTURE_FORMAT_NV12,
        };
        let text = error.to_string();
        assert!(text.ends_with("with TEXTURE_FORMAT_NV12"), "{text}");
    }
}
