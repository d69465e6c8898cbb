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
