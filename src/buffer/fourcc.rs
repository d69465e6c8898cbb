//! Pixel formats by their four-character codes.

use std::fmt;
use std::str::FromStr;

/// A pixel format as the four-character code of `include/uapi/drm/drm_fourcc.h`.
///
/// Any value is allowed, so that codes newer than this library pass through it. The names read
/// from the most significant component of a little-endian word: `XRGB8888` is B, G, R, X in
/// memory. So do the layouts given with the constants: components, then their bits; where there
/// are several planes, a comma between them. What is known of a code beyond its name is in
/// [`FormatInfo`](super::FormatInfo).
///
/// # Big-endian codes
///
/// With bit 31 ([`Self::BIG_ENDIAN`]) a code means the same word with its bytes in the other
/// order. It is carried and printed, and is never the same as the code without it. The kernel
/// accepts it of `RGB565` and `XRGB1555` alone, and only on big-endian machines (drm_fourcc.c), so
/// [`FormatInfo`](super::FormatInfo) does not know such codes; on such a machine
/// [`vk::format_of`](crate::vk::format_of) does, where Vulkan's packed formats are those words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fourcc(pub u32);

macro_rules! codes {
    ($($name:ident $code:literal $layout:literal)*) => {
        impl Fourcc {
            $(
                #[doc = concat!("`", $layout, "`")]
                pub const $name: Self = Self::new($code);
            )*
        }

        /// The constants with their names.
        const NAMES: &[(Fourcc, &str)] = &[$((Fourcc::$name, stringify!($name))),*];
    };
}

codes! {
    C1 b"C1  " "Eight pixels of one bit, each an index of a palette"
    C2 b"C2  " "Four pixels of two bits, each an index of a palette"
    C4 b"C4  " "Two pixels of four bits, each an index of a palette"
    C8 b"C8  " "An index of a palette"
    R1 b"R1  " "Eight pixels of one bit, set bits are bright"
    R2 b"R2  " "Four pixels of two bits"
    R4 b"R4  " "Two pixels of four bits"
    R8 b"R8  " "R 8"
    R10 b"R10 " "x:R 6:10"
    R12 b"R12 " "x:R 4:12"
    R16 b"R16 " "R 16"
    RG88 b"RG88" "R:G 8:8"
    GR88 b"GR88" "G:R 8:8"
    RG1616 b"RG32" "R:G 16:16"
    GR1616 b"GR32" "G:R 16:16"

    RGB332 b"RGB8" "R:G:B 3:3:2"
    BGR233 b"BGR8" "B:G:R 2:3:3"
    XRGB4444 b"XR12" "x:R:G:B 4:4:4:4"
    ARGB4444 b"AR12" "A:R:G:B 4:4:4:4"
    XBGR4444 b"XB12" "x:B:G:R 4:4:4:4"
    ABGR4444 b"AB12" "A:B:G:R 4:4:4:4"
    RGBX4444 b"RX12" "R:G:B:x 4:4:4:4"
    RGBA4444 b"RA12" "R:G:B:A 4:4:4:4"
    BGRX4444 b"BX12" "B:G:R:x 4:4:4:4"
    BGRA4444 b"BA12" "B:G:R:A 4:4:4:4"
    XRGB1555 b"XR15" "x:R:G:B 1:5:5:5"
    ARGB1555 b"AR15" "A:R:G:B 1:5:5:5"
    XBGR1555 b"XB15" "x:B:G:R 1:5:5:5"
    ABGR1555 b"AB15" "A:B:G:R 1:5:5:5"
    RGBX5551 b"RX15" "R:G:B:x 5:5:5:1"
    RGBA5551 b"RA15" "R:G:B:A 5:5:5:1"
    BGRX5551 b"BX15" "B:G:R:x 5:5:5:1"
    BGRA5551 b"BA15" "B:G:R:A 5:5:5:1"
    RGB565 b"RG16" "R:G:B 5:6:5"
    BGR565 b"BG16" "B:G:R 5:6:5"
    RGB888 b"RG24" "R:G:B 8:8:8"
    BGR888 b"BG24" "B:G:R 8:8:8"
    XRGB8888 b"XR24" "x:R:G:B 8:8:8:8"
    ARGB8888 b"AR24" "A:R:G:B 8:8:8:8"
    XBGR8888 b"XB24" "x:B:G:R 8:8:8:8"
    ABGR8888 b"AB24" "A:B:G:R 8:8:8:8"
    RGBX8888 b"RX24" "R:G:B:x 8:8:8:8"
    RGBA8888 b"RA24" "R:G:B:A 8:8:8:8"
    BGRX8888 b"BX24" "B:G:R:x 8:8:8:8"
    BGRA8888 b"BA24" "B:G:R:A 8:8:8:8"
    XRGB2101010 b"XR30" "x:R:G:B 2:10:10:10"
    ARGB2101010 b"AR30" "A:R:G:B 2:10:10:10"
    XBGR2101010 b"XB30" "x:B:G:R 2:10:10:10"
    ABGR2101010 b"AB30" "A:B:G:R 2:10:10:10"
    RGBX1010102 b"RX30" "R:G:B:x 10:10:10:2"
    RGBA1010102 b"RA30" "R:G:B:A 10:10:10:2"
    BGRX1010102 b"BX30" "B:G:R:x 10:10:10:2"
    BGRA1010102 b"BA30" "B:G:R:A 10:10:10:2"
    RGB161616 b"RG48" "R:G:B 16:16:16"
    BGR161616 b"BG48" "B:G:R 16:16:16"
    XRGB16161616 b"XR48" "x:R:G:B 16:16:16:16"
    ARGB16161616 b"AR48" "A:R:G:B 16:16:16:16"
    XBGR16161616 b"XB48" "x:B:G:R 16:16:16:16"
    ABGR16161616 b"AB48" "A:B:G:R 16:16:16:16"
    XRGB16161616F b"XR4H" "x:R:G:B 16:16:16:16, half floats"
    ARGB16161616F b"AR4H" "A:R:G:B 16:16:16:16, half floats"
    XBGR16161616F b"XB4H" "x:B:G:R 16:16:16:16, half floats"
    ABGR16161616F b"AB4H" "A:B:G:R 16:16:16:16, half floats"
    AXBXGXRX106106106106 b"AB10" "A:x:B:x:G:x:R:x 10:6:10:6:10:6:10:6"

    YUYV b"YUYV" "Two pixels: Cr:Y1:Cb:Y0 8:8:8:8"
    YVYU b"YVYU" "Two pixels: Cb:Y1:Cr:Y0 8:8:8:8"
    UYVY b"UYVY" "Two pixels: Y1:Cr:Y0:Cb 8:8:8:8"
    VYUY b"VYUY" "Two pixels: Y1:Cb:Y0:Cr 8:8:8:8"
    Y210 b"Y210" "As YUYV, components of 16 bits, the upper 10 used"
    Y212 b"Y212" "As YUYV, components of 16 bits, the upper 12 used"
    Y216 b"Y216" "As YUYV, components of 16 bits"
    AYUV b"AYUV" "A:Y:Cb:Cr 8:8:8:8"
    XYUV8888 b"XYUV" "x:Y:Cb:Cr 8:8:8:8"
    AVUY8888 b"AVUY" "A:Cr:Cb:Y 8:8:8:8"
    XVUY8888 b"XVUY" "x:Cr:Cb:Y 8:8:8:8"
    VUY888 b"VU24" "Cr:Cb:Y 8:8:8"
    Y410 b"Y410" "A:Cr:Y:Cb 2:10:10:10"
    XVYU2101010 b"XV30" "x:Cr:Y:Cb 2:10:10:10"
    Y412 b"Y412" "A:Cr:Y:Cb, 16 bits each, the upper 12 used"
    XVYU12_16161616 b"XV36" "x:Cr:Y:Cb, 16 bits each, the upper 12 used"
    Y416 b"Y416" "A:Cr:Y:Cb 16:16:16:16"
    XVYU16161616 b"XV48" "x:Cr:Y:Cb 16:16:16:16"
    VUY101010 b"VU30" "Y, Cb, Cr of 10 bits; never LINEAR"
    YUV420_8BIT b"YU08" "4:2:0 of 8 bits in one plane; never LINEAR"
    YUV420_10BIT b"YU10" "4:2:0 of 10 bits in one plane; never LINEAR"
    Y0L0 b"Y0L0" "4:2:0 of 8 bits and alpha, in blocks of 2x2 pixels"
    X0L0 b"X0L0" "4:2:0 of 8 bits, in blocks of 2x2 pixels"
    Y0L2 b"Y0L2" "4:2:0 of 10 bits and alpha, in blocks of 2x2 pixels"
    X0L2 b"X0L2" "4:2:0 of 10 bits, in blocks of 2x2 pixels"

    XRGB8888_A8 b"XRA8" "x:R:G:B 8:8:8:8, A 8"
    XBGR8888_A8 b"XBA8" "x:B:G:R 8:8:8:8, A 8"
    RGBX8888_A8 b"RXA8" "R:G:B:x 8:8:8:8, A 8"
    BGRX8888_A8 b"BXA8" "B:G:R:x 8:8:8:8, A 8"
    RGB888_A8 b"R8A8" "R:G:B 8:8:8, A 8"
    BGR888_A8 b"B8A8" "B:G:R 8:8:8, A 8"
    RGB565_A8 b"R5A8" "R:G:B 5:6:5, A 8"
    BGR565_A8 b"B5A8" "B:G:R 5:6:5, A 8"

    NV12 b"NV12" "Y 8, Cr:Cb 8:8 of 2x2 pixels"
    NV21 b"NV21" "Y 8, Cb:Cr 8:8 of 2x2 pixels"
    NV16 b"NV16" "Y 8, Cr:Cb 8:8 of 2x1 pixels"
    NV61 b"NV61" "Y 8, Cb:Cr 8:8 of 2x1 pixels"
    NV24 b"NV24" "Y 8, Cr:Cb 8:8 of each pixel"
    NV42 b"NV42" "Y 8, Cb:Cr 8:8 of each pixel"
    NV15 b"NV15" "As NV12, 10 bits without gaps: four pixels of Y in five bytes"
    NV20 b"NV20" "As NV16, 10 bits without gaps"
    NV30 b"NV30" "As NV24, 10 bits without gaps"
    P010 b"P010" "As NV12, components of 16 bits, the upper 10 used"
    P012 b"P012" "As NV12, components of 16 bits, the upper 12 used"
    P016 b"P016" "As NV12, components of 16 bits"
    P210 b"P210" "As NV16, components of 16 bits, the upper 10 used"
    P030 b"P030" "As NV12, 10 bits: three components in four bytes"

    YUV410 b"YUV9" "Y 8, Cb 8 and Cr 8 of 4x4 pixels"
    YVU410 b"YVU9" "Y 8, Cr 8 and Cb 8 of 4x4 pixels"
    YUV411 b"YU11" "Y 8, Cb 8 and Cr 8 of 4x1 pixels"
    YVU411 b"YV11" "Y 8, Cr 8 and Cb 8 of 4x1 pixels"
    YUV420 b"YU12" "Y 8, Cb 8 and Cr 8 of 2x2 pixels"
    YVU420 b"YV12" "Y 8, Cr 8 and Cb 8 of 2x2 pixels"
    YUV422 b"YU16" "Y 8, Cb 8 and Cr 8 of 2x1 pixels"
    YVU422 b"YV16" "Y 8, Cr 8 and Cb 8 of 2x1 pixels"
    YUV444 b"YU24" "Y 8, Cb 8 and Cr 8 of each pixel"
    YVU444 b"YV24" "Y 8, Cr 8 and Cb 8 of each pixel"
    Q410 b"Q410" "As YUV444, components of 16 bits, the upper 10 used"
    Q401 b"Q401" "As YVU444, components of 16 bits, the upper 10 used"
    S010 b"S010" "As YUV420, components of 16 bits, the lower 10 used"
    S210 b"S210" "As YUV422, components of 16 bits, the lower 10 used"
    S410 b"S410" "As YUV444, components of 16 bits, the lower 10 used"
    S012 b"S012" "As YUV420, components of 16 bits, the lower 12 used"
    S212 b"S212" "As YUV422, components of 16 bits, the lower 12 used"
    S412 b"S412" "As YUV444, components of 16 bits, the lower 12 used"
    S016 b"S016" "As YUV420, components of 16 bits"
    S216 b"S216" "As YUV422, components of 16 bits"
    S416 b"S416" "As YUV444, components of 16 bits"
}

impl Fourcc {
    /// The bit that turns a code's words big-endian (`DRM_FORMAT_BIG_ENDIAN`).
    pub const BIG_ENDIAN: u32 = 1 << 31;

    /// The code written with these four characters.
    pub const fn new(code: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*code))
    }

    /// Whether the words are big-endian, see [above](Self#big-endian-codes).
    pub const fn is_big_endian(self) -> bool {
        self.0 & Self::BIG_ENDIAN != 0
    }

    /// The name in `drm_fourcc.h`, without `DRM_FORMAT_`. `None` of codes that this library does
    /// not name, big-endian ones among them.
    pub fn name(self) -> Option<&'static str> {
        let named = NAMES.iter().find(|(code, _)| *code == self);
        named.map(|(_, name)| *name)
    }

    /// All codes that this library names, in no order.
    pub fn named() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(code, _)| *code)
    }
}

impl From<u32> for Fourcc {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl From<Fourcc> for u32 {
    fn from(fourcc: Fourcc) -> Self {
        fourcc.0
    }
}

/// A text that is neither a name of a format nor a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pixel format: neither a name such as XRGB8888 nor a code such as XR24")]
pub struct UnknownFourcc(pub String);

impl FromStr for Fourcc {
    type Err = UnknownFourcc;

    /// Takes a name (`XRGB8888`, also with `DRM_FORMAT_`), four characters (`XR24`; spaces at their end
    /// may be missing), with `|BE` for a big-endian code, or a number (`0x34325258`).
    fn from_str(text: &str) -> Result<Self, UnknownFourcc> {
        let plain = text.strip_prefix("DRM_FORMAT_").unwrap_or(text);
        let (plain, big_endian) = match plain.strip_suffix("|BE") {
            Some(plain) => (plain, Self::BIG_ENDIAN),
            None => (plain, 0),
        };
        let named = NAMES.iter().find(|(_, name)| *name == plain);
        let code = named
            .map(|(code, _)| code.0)
            .or_else(|| match plain.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => code_of(plain),
            });
        let code = code.ok_or_else(|| UnknownFourcc(text.to_owned()))?;
        Ok(Self(code | big_endian))
    }
}

/// Of a code that this library names: any four letters would be one.
fn code_of(text: &str) -> Option<u32> {
    let known = NAMES.iter().map(|(code, _)| *code);
    let mut known = known.filter(|code| code.to_string() == text.trim_end());
    known.next().map(|code| code.0)
}

impl fmt::Display for Fourcc {
    /// The four characters where they are printable, without spaces at the end, else the number. `RG16|BE` for
    /// big-endian codes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = (self.0 & !Self::BIG_ENDIAN).to_le_bytes();
        match std::str::from_utf8(&code) {
            Ok(text) if code.iter().all(|c| (0x20..0x7f).contains(c)) => {
                let big_endian = if self.is_big_endian() { "|BE" } else { "" };
                // Short ones are filled up with spaces, such as `C8`.
                f.pad(&format!("{}{big_endian}", text.trim_end()))
            }
            _ => f.pad(&format!("0x{:08x}", self.0)),
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
    use drm_fourcc::DrmFourcc;

    use super::*;

    /// Each constant beside the drm-fourcc crate's, which is made from the kernel's header.
    macro_rules! same {
        ($($theirs:ident $ours:ident)*) => { [$((DrmFourcc::$theirs as u32, Fourcc::$ours)),*] };
    }

    #[test]
    fn codes_equal_the_kernel_headers_numbers() {
        let same = same! {
            C8 C8  R8 R8  R16 R16  Rg88 RG88  Gr88 GR88  Rg1616 RG1616  Gr1616 GR1616
            Rgb332 RGB332  Bgr233 BGR233
            Xrgb4444 XRGB4444  Argb4444 ARGB4444  Xbgr4444 XBGR4444  Abgr4444 ABGR4444
            Rgbx4444 RGBX4444  Rgba4444 RGBA4444  Bgrx4444 BGRX4444  Bgra4444 BGRA4444
            Xrgb1555 XRGB1555  Argb1555 ARGB1555  Xbgr1555 XBGR1555  Abgr1555 ABGR1555
            Rgbx5551 RGBX5551  Rgba5551 RGBA5551  Bgrx5551 BGRX5551  Bgra5551 BGRA5551
            Rgb565 RGB565  Bgr565 BGR565  Rgb888 RGB888  Bgr888 BGR888
            Xrgb8888 XRGB8888  Argb8888 ARGB8888  Xbgr8888 XBGR8888  Abgr8888 ABGR8888
            Rgbx8888 RGBX8888  Rgba8888 RGBA8888  Bgrx8888 BGRX8888  Bgra8888 BGRA8888
            Xrgb2101010 XRGB2101010  Argb2101010 ARGB2101010
            Xbgr2101010 XBGR2101010  Abgr2101010 ABGR2101010
            Rgbx1010102 RGBX1010102  Rgba1010102 RGBA1010102
            Bgrx1010102 BGRX1010102  Bgra1010102 BGRA1010102
            Xrgb16161616f XRGB16161616F  Argb16161616f ARGB16161616F
            Xbgr16161616f XBGR16161616F  Abgr16161616f ABGR16161616F
            Axbxgxrx106106106106 AXBXGXRX106106106106
            Yuyv YUYV  Yvyu YVYU  Uyvy UYVY  Vyuy VYUY  Y210 Y210  Y212 Y212  Y216 Y216
            Ayuv AYUV  Xyuv8888 XYUV8888  Vuy888 VUY888
            Y410 Y410  Xvyu2101010 XVYU2101010  Y412 Y412  Xvyu12_16161616 XVYU12_16161616
            Y416 Y416  Xvyu16161616 XVYU16161616
            Vuy101010 VUY101010  Yuv420_8bit YUV420_8BIT  Yuv420_10bit YUV420_10BIT
            Y0l0 Y0L0  X0l0 X0L0  Y0l2 Y0L2  X0l2 X0L2
            Xrgb8888_a8 XRGB8888_A8  Xbgr8888_a8 XBGR8888_A8
            Rgbx8888_a8 RGBX8888_A8  Bgrx8888_a8 BGRX8888_A8
            Rgb888_a8 RGB888_A8  Bgr888_a8 BGR888_A8  Rgb565_a8 RGB565_A8  Bgr565_a8 BGR565_A8
            Nv12 NV12  Nv21 NV21  Nv16 NV16  Nv61 NV61  Nv24 NV24  Nv42 NV42  Nv15 NV15
            P010 P010  P012 P012  P016 P016  P210 P210
            Yuv410 YUV410  Yvu410 YVU410  Yuv411 YUV411  Yvu411 YVU411
            Yuv420 YUV420  Yvu420 YVU420  Yuv422 YUV422  Yvu422 YVU422
            Yuv444 YUV444  Yvu444 YVU444  Q410 Q410  Q401 Q401
        };
        for (theirs, ours) in same {
            assert_eq!(theirs, ours.0, "{ours}");
        }
        // What the crate does not have, being of Linux 5.10.
        let newer: Vec<Fourcc> = Fourcc::named()
            .filter(|code| !same.iter().any(|(_, known)| known == code))
            .collect();
        let expected = [
            "C1",
            "C2",
            "C4",
            "R1",
            "R2",
            "R4",
            "R10",
            "R12",
            "RGB161616",
            "BGR161616",
            "XRGB16161616",
            "ARGB16161616",
            "XBGR16161616",
            "ABGR16161616",
            "AVUY8888",
            "XVUY8888",
            "NV20",
            "NV30",
            "P030",
            "S010",
            "S210",
            "S410",
            "S012",
            "S212",
            "S412",
            "S016",
            "S216",
            "S416",
        ];
        assert_eq!(
            newer.iter().map(|code| code.name()).collect::<Vec<_>>(),
            expected.map(Some)
        );
        for code in newer {
            assert!(DrmFourcc::try_from(code.0).is_err(), "{code} is known");
        }
    }

    #[test]
    fn a_format_is_found_by_its_name_and_by_its_code() {
        for code in Fourcc::named() {
            assert_eq!(code.name().unwrap().parse(), Ok(code));
            assert_eq!(code.to_string().parse(), Ok(code), "{code}");
            assert_eq!(format!("0x{:08x}", u32::from(code)).parse(), Ok(code));
        }
        assert_eq!("DRM_FORMAT_XRGB8888".parse(), Ok(Fourcc::XRGB8888));
        assert_eq!("R8".parse(), Ok(Fourcc::R8));
        let swapped = Fourcc(Fourcc::RGB565.0 | Fourcc::BIG_ENDIAN);
        assert_eq!(swapped.to_string().parse(), Ok(swapped));
        for wrong in ["ZZZZ", "", "0xg", "xrgb8888"] {
            assert_eq!(
                wrong.parse::<Fourcc>(),
                Err(UnknownFourcc(wrong.to_owned()))
            );
        }
    }

    #[test]
    fn no_code_has_two_names() {
        let mut codes: Vec<Fourcc> = Fourcc::named().collect();
        codes.sort();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn unknown_codes_are_carried_and_print_as_numbers() {
        assert_eq!(Fourcc(3).to_string(), "0x00000003");
        assert_eq!(Fourcc(3).name(), None);
        assert_eq!(Fourcc::RGB565.to_string(), "RG16");
        assert_eq!(Fourcc(0xffff_ffff).to_string(), "0xffffffff");
    }

    #[test]
    fn big_endian_codes_are_other_codes_and_print_as_such() {
        let swapped = Fourcc(Fourcc::RGB565.0 | DrmFourcc::Big_endian as u32);
        assert!(swapped.is_big_endian());
        assert_ne!(swapped, Fourcc::RGB565);
        assert_eq!(swapped.to_string(), "RG16|BE");
        assert_eq!(swapped.name(), None);
    }
}
