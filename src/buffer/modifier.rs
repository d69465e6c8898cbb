use std::fmt;

/// A DRM format modifier: how pixels are arranged in memory (`drm_fourcc.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Modifier(pub u64);

impl Modifier {
    /// Row after row. A layout like any other, and not the same as [`Self::INVALID`].
    pub const LINEAR: Self = Self(0);
    /// `DRM_FORMAT_MOD_INVALID`: no modifier given, the layout is known to the driver alone. Only
    /// the device that allocated such a buffer can read it.
    pub const INVALID: Self = Self(0x00ff_ffff_ffff_ffff);

    /// Whether the layout is stated rather than left to the driver.
    pub fn is_explicit(self) -> bool {
        self != Self::INVALID
    }

    /// Whether planes of this layout may have a stride of zero: ARM's AFBC (`DRM_FORMAT_MOD_ARM_AFBC`).
    ///
    /// Its blocks are found through a header whose size follows from the picture's, so a stride says
    /// nothing. Formats that exist as AFBC only, such as `YUV420_8BIT`, have no bytes per pixel in
    /// the kernel (`drm_fourcc.c`), and `DRM_IOCTL_MODE_ADDFB2` takes a pitch of zero for them.
    pub(super) fn needs_no_stride(self) -> bool {
        const VENDOR_AND_TYPE: u64 = 0xfff0 << 48;
        const ARM_AFBC: u64 = 0x0800 << 48;
        self.0 & VENDOR_AND_TYPE == ARM_AFBC
    }

    /// Whether planes of this layout may be smaller than stride x rows: Amlogic's frame buffer
    /// compression with the scatter layout (`DRM_FORMAT_MOD_AMLOGIC_FBC`,
    /// `AMLOGIC_FBC_LAYOUT_SCATTER`). Such a plane is a header that refers to the content, which is
    /// in other memory.
    pub(super) fn has_its_content_elsewhere(self) -> bool {
        const VENDOR_AND_LAYOUT: u64 = 0xff << 56 | 0xff;
        const AMLOGIC_SCATTER: u64 = 0x0a << 56 | 2;
        self.0 & VENDOR_AND_LAYOUT == AMLOGIC_SCATTER
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LINEAR => f.write_str("LINEAR"),
            Self::INVALID => f.write_str("INVALID"),
            Self(value) => write!(f, "0x{value:016x}"),
        }
    }
}

impl fmt::Debug for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Modifier({self})")
    }
}
