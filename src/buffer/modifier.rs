//! Arrangements of pixels in memory.

use std::fmt;
use std::str::FromStr;

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

/// Modifiers without parameters, by their names in `drm_fourcc.h` without `DRM_FORMAT_MOD_` or
/// `I915_FORMAT_MOD_`, for which stands `I915_`.
const NAMES: &[(Modifier, &str)] = &[
    (Modifier::LINEAR, "LINEAR"),
    (Modifier::INVALID, "INVALID"),
    (Modifier::of(0x01, 1), "I915_X_TILED"),
    (Modifier::of(0x01, 2), "I915_Y_TILED"),
    (Modifier::of(0x01, 3), "I915_Yf_TILED"),
    (Modifier::of(0x01, 4), "I915_Y_TILED_CCS"),
    (Modifier::of(0x01, 5), "I915_Yf_TILED_CCS"),
    (Modifier::of(0x01, 6), "I915_Y_TILED_GEN12_RC_CCS"),
    (Modifier::of(0x01, 7), "I915_Y_TILED_GEN12_MC_CCS"),
    (Modifier::of(0x01, 8), "I915_Y_TILED_GEN12_RC_CCS_CC"),
    (Modifier::of(0x01, 9), "I915_4_TILED"),
    (Modifier::of(0x01, 10), "I915_4_TILED_DG2_RC_CCS"),
    (Modifier::of(0x01, 11), "I915_4_TILED_DG2_MC_CCS"),
    (Modifier::of(0x01, 12), "I915_4_TILED_DG2_RC_CCS_CC"),
    (Modifier::of(0x01, 13), "I915_4_TILED_MTL_RC_CCS"),
    (Modifier::of(0x01, 14), "I915_4_TILED_MTL_MC_CCS"),
    (Modifier::of(0x01, 15), "I915_4_TILED_MTL_RC_CCS_CC"),
    (Modifier::of(0x01, 16), "I915_4_TILED_LNL_CCS"),
    (Modifier::of(0x01, 17), "I915_4_TILED_BMG_CCS"),
    (Modifier::of(0x04, 1), "SAMSUNG_64_32_TILE"),
    (Modifier::of(0x04, 2), "SAMSUNG_16_16_TILE"),
    (Modifier::of(0x05, 1), "QCOM_COMPRESSED"),
    (Modifier::of(0x05, 2), "QCOM_TILED2"),
    (Modifier::of(0x05, 3), "QCOM_TILED3"),
    (Modifier::of(0x06, 1), "VIVANTE_TILED"),
    (Modifier::of(0x06, 2), "VIVANTE_SUPER_TILED"),
    (Modifier::of(0x06, 3), "VIVANTE_SPLIT_TILED"),
    (Modifier::of(0x06, 4), "VIVANTE_SPLIT_SUPER_TILED"),
    (Modifier::of(0x07, 1), "BROADCOM_VC4_T_TILED"),
    (Modifier::of(0x07, 6), "BROADCOM_UIF"),
    (Modifier::of(0x09, 1), "ALLWINNER_TILED"),
];

impl Modifier {
    const fn of(vendor: u64, value: u64) -> Self {
        Self(vendor << 56 | value)
    }

    /// The name in `drm_fourcc.h`, without `DRM_FORMAT_MOD_`. `None` of modifiers with parameters (AMD,
    /// NVIDIA, ARM and others) and of unknown ones.
    pub fn name(self) -> Option<&'static str> {
        let named = NAMES.iter().find(|(modifier, _)| *modifier == self);
        named.map(|(_, name)| *name)
    }

    /// Who has given the modifier its meaning (`DRM_FORMAT_MOD_VENDOR_*`). `None` of LINEAR, INVALID and
    /// of vendors that this library does not know.
    pub fn vendor(self) -> Option<&'static str> {
        if !self.is_explicit() {
            return None;
        }
        Some(match self.0 >> 56 {
            0x01 => "Intel",
            0x02 => "AMD",
            0x03 => "NVIDIA",
            0x04 => "Samsung",
            0x05 => "Qualcomm",
            0x06 => "Vivante",
            0x07 => "Broadcom",
            0x08 => "ARM",
            0x09 => "Allwinner",
            0x0a => "Amlogic",
            0x0b => "MediaTek",
            0x0c => "Apple",
            _ => return None,
        })
    }
}

impl From<u64> for Modifier {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Modifier> for u64 {
    fn from(modifier: Modifier) -> Self {
        modifier.0
    }
}

/// The names, for messages.
pub(crate) fn modifier_names(modifiers: &[Modifier]) -> String {
    match modifiers {
        [] => "no modifier".to_owned(),
        _ => {
            let names: Vec<_> = modifiers.iter().map(Modifier::to_string).collect();
            names.join(", ")
        }
    }
}

/// A text that is neither the name of a modifier nor a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no modifier: neither a name such as LINEAR or I915_X_TILED nor a number such as 0x0"
)]
pub struct UnknownModifier(pub String);

impl FromStr for Modifier {
    type Err = UnknownModifier;

    /// Takes a name ([`Self::name`], also with `DRM_FORMAT_MOD_`) or a number in hexadecimal (`0x…`).
    fn from_str(text: &str) -> Result<Self, UnknownModifier> {
        let plain = text.strip_prefix("DRM_FORMAT_MOD_").unwrap_or(text);
        let named = NAMES.iter().find(|(_, name)| *name == plain);
        let number = || u64::from_str_radix(plain.strip_prefix("0x")?, 16).ok();
        let found = named.map(|(modifier, _)| *modifier);
        found
            .or_else(|| number().map(Self))
            .ok_or_else(|| UnknownModifier(text.to_owned()))
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:016x}", self.0),
        }
    }
}

impl fmt::Debug for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Modifier({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modifier_is_found_by_what_it_prints() {
        let parametric = Modifier(0x0300_0000_0060_6014);
        let all = NAMES.iter().map(|(modifier, _)| *modifier);
        for modifier in all.chain([parametric]) {
            assert_eq!(modifier.to_string().parse(), Ok(modifier));
        }
        assert_eq!("DRM_FORMAT_MOD_LINEAR".parse(), Ok(Modifier::LINEAR));
        assert_eq!(
            "0x100000000000001".parse(),
            "I915_X_TILED".parse::<Modifier>()
        );
        assert!("linear".parse::<Modifier>().is_err());
        assert!("12".parse::<Modifier>().is_err());
    }

    #[test]
    fn a_modifier_says_whose_it_is() {
        assert_eq!(Modifier(0x0300_0000_0060_6014).vendor(), Some("NVIDIA"));
        assert_eq!(Modifier::LINEAR.vendor(), None);
        assert_eq!(Modifier::INVALID.vendor(), None);
    }
}
