//! The C interface: installing it, and testing what is installed.

pub(crate) mod install;
pub(crate) mod layers;
mod pkg_config;
mod symbols;
pub(crate) mod test;
pub(crate) mod wlroots;

use std::fmt;

/// A part of the library that can be left out. `primeshare.h` and what it declares are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Layer {
    /// Allocation by Mesa's gbm.
    Gbm,
    /// Images of the program's Vulkan device.
    Vulkan,
    /// Copies between devices.
    Blit,
    /// Screens.
    Kms,
}

impl Layer {
    pub(crate) const ALL: [Self; 4] = [Self::Gbm, Self::Vulkan, Self::Blit, Self::Kms];

    /// The layers that it needs, as in `capi/Cargo.toml`.
    fn needs(self) -> &'static [Self] {
        match self {
            Self::Gbm | Self::Vulkan => &[],
            Self::Blit => &[Self::Vulkan],
            Self::Kms => &[Self::Vulkan, Self::Blit],
        }
    }

    /// These layers and those that they need, in the order of `ALL`.
    pub(crate) fn with_needs(layers: &[Self]) -> Vec<Self> {
        let is_needed = |layer: &Self| {
            let by = |other: &Self| other == layer || other.needs().contains(layer);
            layers.iter().any(by)
        };
        Self::ALL.into_iter().filter(is_needed).collect()
    }

    fn header(self) -> String {
        format!("primeshare-{self}.h")
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gbm => "gbm",
            Self::Vulkan => "vulkan",
            Self::Blit => "blit",
            Self::Kms => "kms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_comes_with_those_that_it_needs() {
        assert_eq!(
            Layer::with_needs(&[Layer::Kms]),
            [Layer::Vulkan, Layer::Blit, Layer::Kms]
        );
        assert_eq!(Layer::with_needs(&[Layer::Gbm]), [Layer::Gbm]);
        assert_eq!(Layer::with_needs(&[]), []);
    }
}
