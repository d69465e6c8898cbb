//! What the numbers of YCbCr formats mean. Pure.

/// The weights of red, green and blue in luma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Matrix {
    /// ITU-R BT.601: video of standard definition, JPEG.
    Bt601,
    /// ITU-R BT.709: video of high definition.
    #[default]
    Bt709,
    /// ITU-R BT.2020, non-constant luminance: video of ultra high definition.
    Bt2020,
}

impl Matrix {
    /// The weights of red and blue (Kr, Kb); green has the rest of 1.
    pub(super) fn weights(self) -> (f64, f64) {
        match self {
            // BT.601-7, 2.5.1.
            Self::Bt601 => (0.299, 0.114),
            // BT.709-6, item 3.2.
            Self::Bt709 => (0.2126, 0.0722),
            // BT.2020-2, table 4.
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which numbers stand for black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Range {
    /// Of 8 bits, 16 to 235 for luma and 16 to 240 for colour differences; of more bits, these
    /// times a power of two. Also called limited or video range.
    #[default]
    Narrow,
    /// All numbers, from 0 to 255 of 8 bits. Also called JPEG range.
    Full,
}

/// What the numbers of a YCbCr format mean, which the format does not say.
///
/// Only the matrix and the range are converted. Primaries and the transfer function stay as they
/// are: a BT.2020 picture converted to RGB has BT.2020's red, green and blue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct YcbcrEncoding {
    /// The weights of red, green and blue.
    pub matrix: Matrix,
    /// Black and white.
    pub range: Range,
}
