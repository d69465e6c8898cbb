//! Who takes part in a negotiation.

use super::{FormatSet, Support, Usage};

/// Says that two endpoints are of one device: they have equal keys.
///
/// [`Device::key`](crate::device::Device::key) gives it, and [`key_of`](crate::device::key_of) for
/// any node's device number: a GPU has two of those, one for its primary and one for its render
/// node, and one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(pub u64);

/// Somebody who will use the buffer: what it can do, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For people to read.
    pub name: String,
    /// The device it is of. `None`: not known, and taken for different from all others.
    pub device: Option<DeviceKey>,
    /// What it will do with the buffer: only [`Support`] for all of it counts.
    pub usage: Usage,
    /// What it can do.
    pub formats: FormatSet,
    /// Whether it can only use memory that is contiguous: display controllers without an IOMMU.
    pub needs_contiguous: bool,
    /// Whether what it allocates is contiguous, as dumb buffers of such a display controller are.
    pub allocates_contiguous: bool,
}

impl Endpoint {
    /// A plain list, of no known device and for no use in particular.
    pub fn new(name: impl Into<String>, formats: FormatSet) -> Self {
        Self {
            name: name.into(),
            device: None,
            usage: Usage::empty(),
            formats,
            needs_contiguous: false,
            allocates_contiguous: false,
        }
    }

    /// A gbm device with the formats and modifiers that it knows for this usage: it allocates and
    /// imports them all.
    pub fn gbm(
        name: impl Into<String>,
        device: DeviceKey,
        usage: Usage,
        formats: FormatSet,
    ) -> Self {
        Self {
            device: Some(device),
            usage,
            ..Self::new(name, formats).allocating()
        }
    }

    /// A Vulkan device that will use the buffer so. Its formats carry what
    /// `VkDrmFormatModifierPropertiesEXT` (features, planes) and the query of external image
    /// properties (largest extent, `IMPORTABLE`, `EXPORTABLE`) say of each.
    pub fn vulkan(
        name: impl Into<String>,
        device: Option<DeviceKey>,
        usage: Usage,
        formats: FormatSet,
    ) -> Self {
        Self {
            device,
            usage,
            ..Self::new(name, formats)
        }
    }

    /// A KMS plane with its `IN_FORMATS` (see [`parse_in_formats`](super::parse_in_formats)); of a
    /// driver that has no such property, [`FormatSet::implicit`] of its formats. It imports only.
    pub fn plane(name: impl Into<String>, device: DeviceKey, formats: FormatSet) -> Self {
        Self {
            device: Some(device),
            usage: Usage::SCANOUT,
            ..Self::new(name, formats)
        }
    }

    /// The same, able to allocate whatever it lists.
    pub fn allocating(mut self) -> Self {
        self.formats = self.formats.filter_map(|entry| {
            Some(Support {
                allocate: true,
                ..entry
            })
        });
        self
    }
}
