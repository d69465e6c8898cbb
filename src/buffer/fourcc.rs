use std::fmt;

/// A pixel format as the four-character code of `include/uapi/drm/drm_fourcc.h`.
///
/// Any value is allowed, so that codes newer than this library pass through it. The names read
/// from the most significant component in a little-endian word: `XRGB8888` is B, G, R, X in
/// memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fourcc(pub u32);

impl Fourcc {
    /// 8 bits each of R, G and B in a 32-bit word, the top byte unused.
    pub const XRGB8888: Self = Self::new(b"XR24");
    /// As [`Self::XRGB8888`], with alpha.
    pub const ARGB8888: Self = Self::new(b"AR24");
    /// As [`Self::XRGB8888`] with R and B exchanged.
    pub const XBGR8888: Self = Self::new(b"XB24");
    /// As [`Self::XBGR8888`], with alpha.
    pub const ABGR8888: Self = Self::new(b"AB24");
    /// 5 bits R, 6 bits G, 5 bits B.
    pub const RGB565: Self = Self::new(b"RG16");
    /// 10 bits each of R, G and B.
    pub const XRGB2101010: Self = Self::new(b"XR30");
    /// As [`Self::XRGB2101010`], with 2 bits of alpha.
    pub const ARGB2101010: Self = Self::new(b"AR30");
    /// As [`Self::XRGB2101010`] with R and B exchanged.
    pub const XBGR2101010: Self = Self::new(b"XB30");
    /// As [`Self::XBGR2101010`], with 2 bits of alpha.
    pub const ABGR2101010: Self = Self::new(b"AB30");
    /// Half-float B, G and R, 16 bits unused.
    pub const XBGR16161616F: Self = Self::new(b"XB4H");
    /// As [`Self::XBGR16161616F`], with alpha.
    pub const ABGR16161616F: Self = Self::new(b"AB4H");
    /// One 8-bit channel.
    pub const R8: Self = Self::new(b"R8  ");
    /// Two 8-bit channels.
    pub const GR88: Self = Self::new(b"GR88");
    /// 8-bit Y plane, then a half-size plane of interleaved Cb and Cr.
    pub const NV12: Self = Self::new(b"NV12");
    /// As [`Self::NV12`] with 10 of 16 bits used.
    pub const P010: Self = Self::new(b"P010");

    /// The code written with these four characters.
    pub const fn new(code: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*code))
    }
}

impl fmt::Display for Fourcc {
    /// The four characters where they are printable, else the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.to_le_bytes();
        match std::str::from_utf8(&code) {
            Ok(text) if code.iter().all(|c| (0x20..0x7f).contains(c)) => f.write_str(text),
            _ => write!(f, "0x{:08x}", self.0),
        }
    }
}

impl fmt::Debug for Fourcc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fourcc({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_equal_the_kernel_headers_numbers() {
        assert_eq!(Fourcc::XRGB8888.0, 0x3432_5258);
        assert_eq!(Fourcc::NV12.0, 0x3231_564e);
    }

    #[test]
    fn unknown_codes_are_carried_and_print_as_numbers() {
        assert_eq!(Fourcc(3).to_string(), "0x00000003");
        assert_eq!(Fourcc::RGB565.to_string(), "RG16");
    }
}
