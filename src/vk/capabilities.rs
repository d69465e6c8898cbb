//! What a device can do for sharing, and which extensions and features that takes.
//!
//! A new [`Feature`] has to be in `ALL`, in `extensions` and in `Capabilities::of`.

use std::ffi::CStr;
use std::fmt;

use ash::{ext, khr, vk};

/// What a Vulkan device may be able to do for sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Feature {
    /// Importing memory from dma-bufs, and exporting it as dma-bufs.
    DmaBuf,
    /// Importing the dma-bufs of other devices, as images or as buffers. Some devices only export.
    Import,
    /// Images with DRM format modifiers.
    Modifiers,
    /// Handing memory over to devices that are not Vulkan's.
    Foreign,
    /// Sampling of YCbCr formats with conversion.
    Ycbcr,
    /// Taking back memory that nobody has written meanwhile, without work for its contents.
    AcquireUnmodified,
    /// Binary semaphores from and to sync files.
    SyncFdSemaphores,
    /// Timeline semaphores.
    Timeline,
}

impl Feature {
    /// All of them.
    pub const ALL: &[Self] = &Self::LIST;

    const LIST: [Self; 8] = [
        Self::DmaBuf,
        Self::Import,
        Self::Modifiers,
        Self::Foreign,
        Self::Ycbcr,
        Self::AcquireUnmodified,
        Self::SyncFdSemaphores,
        Self::Timeline,
    ];
    /// Those that sharing images does not work without.
    pub const IMAGES: [Self; 3] = [Self::DmaBuf, Self::Modifiers, Self::Foreign];

    /// The device extensions it is made of, at this Vulkan version.
    fn extensions(self, version: u32) -> Vec<&'static CStr> {
        let core_since = |promoted: u32, name| (version < promoted).then_some(name);
        match self {
            Self::DmaBuf | Self::Import => vec![
                khr::external_memory_fd::NAME,
                ext::external_memory_dma_buf::NAME,
            ],
            Self::Modifiers => [
                Some(ext::image_drm_format_modifier::NAME),
                core_since(vk::API_VERSION_1_2, khr::image_format_list::NAME),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Self::Foreign => vec![ext::queue_family_foreign::NAME],
            // Of Vulkan 1.1, as a feature that a device need not have.
            Self::Ycbcr => Vec::new(),
            Self::AcquireUnmodified => vec![ext::external_memory_acquire_unmodified::NAME],
            Self::SyncFdSemaphores => vec![khr::external_semaphore_fd::NAME],
            Self::Timeline => Vec::from_iter(core_since(
                vk::API_VERSION_1_2,
                khr::timeline_semaphore::NAME,
            )),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DmaBuf => "dma-bufs",
            Self::Import => "import of dma-bufs",
            Self::Modifiers => "images with modifiers",
            Self::Foreign => "foreign queues",
            Self::Ycbcr => "YCbCr conversion",
            Self::AcquireUnmodified => "unmodified acquisition",
            Self::SyncFdSemaphores => "sync file semaphores",
            Self::Timeline => "timeline semaphores",
        })
    }
}

/// What a device has: all that it supports, or what the host program has enabled.
pub(super) struct Brought<'a> {
    /// The lower of the instance's and the device's.
    pub(super) version: u32,
    pub(super) has: &'a dyn Fn(&CStr) -> bool,
    /// See [`query::imports`](super::query::imports).
    pub(super) imports: bool,
    /// Feature `samplerYcbcrConversion`.
    pub(super) ycbcr: bool,
    /// Feature `timelineSemaphore`.
    pub(super) timeline: bool,
    /// SYNC_FD can be imported and exported.
    pub(super) semaphore_fd: bool,
}

/// What a device can do for sharing and, of what it cannot, what is missing for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    missing: Vec<(Feature, Vec<String>)>,
}

impl Capabilities {
    pub(super) fn of(brought: &Brought<'_>) -> Self {
        let missing = |feature: Feature| {
            let extensions = feature.extensions(brought.version).into_iter();
            let mut missing: Vec<String> = extensions
                .filter(|name| !(brought.has)(name))
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            let mut need = |there: bool, what: &str| {
                if !there {
                    missing.push(what.to_owned());
                }
            };
            match feature {
                Feature::Import => need(brought.imports, "import of buffers and images"),
                Feature::Ycbcr => need(brought.ycbcr, "feature samplerYcbcrConversion"),
                Feature::Timeline => need(brought.timeline, "feature timelineSemaphore"),
                Feature::SyncFdSemaphores => {
                    need(
                        brought.semaphore_fd,
                        "import and export of SYNC_FD semaphores",
                    );
                }
                _ => {}
            }
            missing
        };
        Self {
            missing: Feature::LIST
                .into_iter()
                .map(|feature| (feature, missing(feature)))
                .filter(|(_, missing)| !missing.is_empty())
                .collect(),
        }
    }

    /// Whether the device has this feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.missing(feature).is_empty()
    }

    /// What is missing for this feature: extensions, features and kinds of handles. Empty if the device has
    /// it.
    pub fn missing(&self, feature: Feature) -> &[String] {
        let entry = self.missing.iter().find(|(missing, _)| *missing == feature);
        entry.map_or(&[], |(_, missing)| missing)
    }

    /// The extensions to enable for all features that the device has.
    pub(crate) fn extensions(&self, version: u32) -> Vec<&'static CStr> {
        let there = Feature::LIST
            .into_iter()
            .filter(|feature| self.has(*feature));
        let mut extensions: Vec<_> = there
            .flat_map(|feature| feature.extensions(version))
            .collect();
        // Two features have the same: VUID-VkDeviceCreateInfo-ppEnabledExtensionNames-01840 and its
        // like want each name once.
        extensions.sort_unstable();
        extensions.dedup();
        extensions
    }
}

impl fmt::Display for Capabilities {
    /// A line per feature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, feature) in Feature::LIST.into_iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match self.missing(feature) {
                [] => write!(f, "{feature}: yes")?,
                missing => write!(f, "{feature}: no, lacks {}", missing.join(", "))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought<'a>(version: u32, has: &'a dyn Fn(&CStr) -> bool) -> Brought<'a> {
        Brought {
            version,
            has,
            imports: true,
            ycbcr: true,
            timeline: true,
            semaphore_fd: false,
        }
    }

    #[test]
    fn what_is_missing_is_named_for_each_feature() {
        let has = |name: &CStr| name != ext::image_drm_format_modifier::NAME;
        let some = Capabilities::of(&brought(vk::API_VERSION_1_1, &has));
        assert!(some.has(Feature::DmaBuf) && some.has(Feature::Timeline));
        assert_eq!(
            some.missing(Feature::Modifiers),
            ["VK_EXT_image_drm_format_modifier"]
        );
        assert!(
            some.to_string()
                .contains("sync file semaphores: no, lacks import and export")
        );
    }

    #[test]
    fn a_device_that_only_exports_lacks_import_and_nothing_else() {
        let some = Capabilities::of(&Brought {
            imports: false,
            ..brought(vk::API_VERSION_1_1, &|_| true)
        });
        assert!(some.has(Feature::DmaBuf) && !some.has(Feature::Import));
        assert_eq!(
            some.missing(Feature::Import),
            ["import of buffers and images"]
        );
    }

    #[test]
    fn an_extension_of_two_features_is_enabled_once() {
        let all = Capabilities::of(&brought(vk::API_VERSION_1_1, &|_| true));
        let names = all.extensions(vk::API_VERSION_1_1);
        let times = |name| names.iter().filter(|known| **known == name).count();
        assert_eq!(times(ext::external_memory_dma_buf::NAME), 1);
    }

    #[test]
    fn what_a_version_has_in_its_core_needs_no_extension() {
        let has = |name: &CStr| name == ext::image_drm_format_modifier::NAME;
        let old = Capabilities::of(&brought(vk::API_VERSION_1_1, &has));
        assert_eq!(
            old.missing(Feature::Modifiers),
            ["VK_KHR_image_format_list"]
        );
        assert!(!old.has(Feature::Timeline));
        let new = Capabilities::of(&brought(vk::API_VERSION_1_2, &has));
        assert!(new.has(Feature::Modifiers) && new.has(Feature::Timeline));
    }
}
