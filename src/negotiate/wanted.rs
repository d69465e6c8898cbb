//! What a buffer is to be, for a negotiation.

use crate::buffer::{FormatInfo, Fourcc};

/// When an endpoint may take a buffer for one of the [twin](FormatInfo::opaque_twin) format, which
/// has the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Substitute {
    /// Never.
    #[default]
    Never,
    /// An endpoint that does not list a format with alpha may ignore the alpha. Right where
    /// nothing behind the picture would be seen.
    Opaque,
    /// And one that lists only the format with alpha may take one without as that. Right where the
    /// unused bits are set, or that endpoint is told to ignore them.
    Both,
}

impl Substitute {
    /// The format that may be used in place of `fourcc`.
    pub(super) fn twin(self, fourcc: Fourcc) -> Option<Fourcc> {
        if self == Self::Never {
            return None;
        }
        let info = FormatInfo::of(fourcc)?;
        match self {
            Self::Both => info.opaque_twin().or(info.alpha_twin()),
            _ => info.opaque_twin(),
        }
    }
}

/// What the buffer is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Formats that would do, best first. Empty: any.
    pub formats: Vec<Fourcc>,
    /// Whether formats with and without alpha may stand in for each other.
    pub substitute: Substitute,
}

impl Wanted {
    /// A picture of this size in any format.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            formats: Vec::new(),
            substitute: Substitute::Never,
        }
    }

    /// In one of these formats, best first.
    #[must_use]
    pub fn in_formats(mut self, formats: impl IntoIterator<Item = Fourcc>) -> Self {
        self.formats = formats.into_iter().collect();
        self
    }

    /// With twins standing in.
    #[must_use]
    pub fn substituting(mut self, substitute: Substitute) -> Self {
        self.substitute = substitute;
        self
    }
}
