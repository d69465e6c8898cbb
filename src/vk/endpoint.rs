//! A device's side of a negotiation.

use ash::vk;

use super::{Device, Error, ImageUsage, query};
use crate::buffer::{FormatInfo, Modifier};
use crate::device;
use crate::negotiate::{Endpoint, FormatSet, Support, Usage};

/// The Vulkan usage for each use of a buffer. Vulkan does not know the other uses.
const USAGES: [(Usage, vk::ImageUsageFlags); 5] = [
    (Usage::RENDER, vk::ImageUsageFlags::COLOR_ATTACHMENT),
    (Usage::SAMPLE, vk::ImageUsageFlags::SAMPLED),
    (Usage::STORE, vk::ImageUsageFlags::STORAGE),
    (Usage::COPY_FROM, vk::ImageUsageFlags::TRANSFER_SRC),
    (Usage::COPY_TO, vk::ImageUsageFlags::TRANSFER_DST),
];

impl Device {
    /// What the device imports and allocates for a use, of all formats that Vulkan has: for
    /// [`negotiate`](crate::negotiate::negotiate).
    ///
    /// The driver is asked for each format and modifier, once: the answers are remembered.
    pub fn endpoint(&self, usage: Usage) -> Result<Endpoint, Error> {
        let named = USAGES
            .into_iter()
            .filter(|(known, _)| usage.contains(*known));
        let flags = named.fold(vk::ImageUsageFlags::empty(), |all, (_, flag)| all | flag);
        let all = USAGES.into_iter().map(|(known, _)| known);
        let usage = usage & all.fold(Usage::empty(), |all, known| all | known);
        let mut formats = Vec::new();
        // If Vulkan does not know the use, there is nothing to ask.
        let asked = FormatInfo::all().filter(|_| !flags.is_empty());
        for info in asked {
            let Some(format) = super::format_of(info.fourcc) else {
                continue;
            };
            let of = |wanted| self.modifiers_for(info.fourcc, ImageUsage::from(flags), wanted);
            let imported = match of(vk::ExternalMemoryFeatureFlags::IMPORTABLE) {
                // A format of an extension that the device does not have.
                Err(Error::FormatExtension { .. }) => continue,
                answer => answer?,
            };
            let exported = of(vk::ExternalMemoryFeatureFlags::EXPORTABLE)?;
            let listed = query::modifiers(self, format.format);
            let planes = |modifier: Modifier| {
                let found = listed.iter().find(|p| p.drm_format_modifier == modifier.0);
                found.and_then(|p| u8::try_from(p.drm_format_modifier_plane_count).ok())
            };
            let entry = |&(modifier, max_width, max_height): &(Modifier, u32, u32)| Support {
                usage,
                max_width,
                max_height,
                planes: planes(modifier),
                import: imported.iter().any(|(known, ..)| *known == modifier),
                allocate: exported.iter().any(|(known, ..)| *known == modifier),
                ..Support::new(info.fourcc, modifier)
            };
            let only_exported = exported
                .iter()
                .filter(|(modifier, ..)| imported.iter().all(|(known, ..)| known != modifier));
            formats.extend(imported.iter().chain(only_exported).map(entry));
        }
        // The GPU's own node first: on SoCs the primary one is a display controller's.
        let nodes = self.physical().drm_nodes();
        let node = nodes.and_then(|nodes| nodes.render.or(nodes.primary));
        let key = node.map(|node| device::key_of(node.dev_t()));
        Ok(Endpoint::vulkan(
            self.physical().name(),
            key.transpose()?,
            usage,
            FormatSet::from_iter(formats),
        ))
    }
}
