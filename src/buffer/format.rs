use super::Fourcc;

/// One format plane: its bytes per pixel and its subsampling against the first plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneInfo {
    /// Bytes per pixel of this plane.
    pub bytes_per_pixel: u32,
    /// Horizontal subsampling (1: none).
    pub horizontal: u32,
    /// Vertical subsampling (1: none).
    pub vertical: u32,
}

impl PlaneInfo {
    /// Bytes of one row of a picture `width` pixels wide.
    pub fn row_bytes(&self, width: u32) -> Option<u32> {
        width
            .div_ceil(self.horizontal)
            .checked_mul(self.bytes_per_pixel)
    }

    /// Rows of a picture `height` pixels high.
    pub fn rows(&self, height: u32) -> u32 {
        height.div_ceil(self.vertical)
    }
}

/// What is known of a pixel format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatInfo {
    /// Its code.
    pub fourcc: Fourcc,
    /// Its format planes, in order.
    pub planes: &'static [PlaneInfo],
    /// Whether it carries alpha. Formats that do not, but have room for it, must be viewed with
    /// alpha forced to one.
    pub alpha: bool,
}

impl FormatInfo {
    /// Looks a format up. `None` for codes this library does not know the layout of; they can
    /// still be carried in a [`DmaBuf`](super::DmaBuf).
    pub fn of(fourcc: Fourcc) -> Option<&'static FormatInfo> {
        TABLE.iter().find(|info| info.fourcc == fourcc)
    }
}

const fn full(bytes_per_pixel: u32) -> PlaneInfo {
    PlaneInfo {
        bytes_per_pixel,
        horizontal: 1,
        vertical: 1,
    }
}

const fn half(bytes_per_pixel: u32) -> PlaneInfo {
    PlaneInfo {
        bytes_per_pixel,
        horizontal: 2,
        vertical: 2,
    }
}

const fn row(fourcc: Fourcc, planes: &'static [PlaneInfo], alpha: bool) -> FormatInfo {
    FormatInfo {
        fourcc,
        planes,
        alpha,
    }
}

const TABLE: &[FormatInfo] = &[
    row(Fourcc::XRGB8888, &[full(4)], false),
    row(Fourcc::ARGB8888, &[full(4)], true),
    row(Fourcc::XBGR8888, &[full(4)], false),
    row(Fourcc::ABGR8888, &[full(4)], true),
    row(Fourcc::RGB565, &[full(2)], false),
    row(Fourcc::XRGB2101010, &[full(4)], false),
    row(Fourcc::ARGB2101010, &[full(4)], true),
    row(Fourcc::XBGR2101010, &[full(4)], false),
    row(Fourcc::ABGR2101010, &[full(4)], true),
    row(Fourcc::XBGR16161616F, &[full(8)], false),
    row(Fourcc::ABGR16161616F, &[full(8)], true),
    row(Fourcc::R8, &[full(1)], false),
    row(Fourcc::GR88, &[full(2)], false),
    row(Fourcc::NV12, &[full(1), half(2)], false),
    row(Fourcc::P010, &[full(2), half(4)], false),
];
