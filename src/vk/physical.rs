use std::ffi::CStr;
use std::fmt;

use ash::{ext, khr, vk};

use super::{Error, Instance};
use crate::device::{self, NodeId, NodeKind};

/// What sharing dma-bufs needs of a device.
pub(super) const REQUIRED: [&CStr; 5] = [
    khr::external_memory_fd::NAME,
    ext::external_memory_dma_buf::NAME,
    // Of Vulkan 1.2, and what image_drm_format_modifier needs on 1.1.
    khr::image_format_list::NAME,
    ext::image_drm_format_modifier::NAME,
    ext::queue_family_foreign::NAME,
];

/// The DRM nodes of a Vulkan device (VK_EXT_physical_device_drm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrmNodes {
    /// `card*`.
    pub primary: Option<NodeId>,
    /// `renderD*`.
    pub render: Option<NodeId>,
}

/// A Vulkan device that could be used.
#[derive(Clone, Debug)]
pub struct PhysicalDevice {
    instance: Instance,
    handle: vk::PhysicalDevice,
    name: String,
    kind: vk::PhysicalDeviceType,
    nodes: Option<DrmNodes>,
    missing: Vec<&'static CStr>,
}

/// Which Vulkan device to take.
#[derive(Clone, Copy, Debug)]
pub enum Select<'a> {
    /// The one that drives this DRM device.
    Drm(&'a device::Device),
    /// A software device: llvmpipe.
    Software,
    /// The first whose name contains this, in any case of letters.
    Name(&'a str),
}

impl Select<'_> {
    pub(super) fn matches(&self, device: &PhysicalDevice) -> bool {
        match self {
            Self::Drm(drm) => device.drives(drm),
            Self::Software => device.is_software(),
            Self::Name(part) => device.name.to_lowercase().contains(&part.to_lowercase()),
        }
    }
}

impl fmt::Display for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drm(device) => write!(f, "for {device}"),
            Self::Software => f.write_str("in software"),
            Self::Name(part) => write!(f, "named \"{part}\""),
        }
    }
}

impl PhysicalDevice {
    /// `None` for a device below version 1.1.
    pub(super) fn describe(
        instance: &Instance,
        handle: vk::PhysicalDevice,
    ) -> Result<Option<Self>, Error> {
        let raw = instance.raw();
        // SAFETY: the handle is of this instance.
        let extensions = unsafe { raw.enumerate_device_extension_properties(handle) }
            .map_err(Error::Enumerate)?;
        let has = |name: &CStr| {
            let named = |e: &vk::ExtensionProperties| e.extension_name_as_c_str() == Ok(name);
            extensions.iter().any(named)
        };
        // SAFETY: as above.
        let version = unsafe { raw.get_physical_device_properties(handle) }.api_version;
        if version < vk::API_VERSION_1_1 {
            return Ok(None);
        }
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let has_drm = has(ext::physical_device_drm::NAME);
        let mut properties = vk::PhysicalDeviceProperties2::default();
        if has_drm {
            properties = properties.push_next(&mut drm);
        }
        // SAFETY: the device is of version 1.1, and what is chained is of an extension it has.
        unsafe { raw.get_physical_device_properties2(handle, &mut properties) };
        let properties = properties.properties;
        Ok(Some(Self {
            instance: instance.clone(),
            handle,
            name: properties
                .device_name_as_c_str()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            kind: properties.device_type,
            nodes: has_drm.then(|| nodes_of(&drm)),
            missing: REQUIRED.into_iter().filter(|name| !has(name)).collect(),
        }))
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::PhysicalDevice {
        self.handle
    }

    /// The instance it belongs to.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The name the driver gives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.kind == vk::PhysicalDeviceType::CPU
    }

    /// Its DRM nodes. `None` where the driver does not say.
    pub fn drm_nodes(&self) -> Option<DrmNodes> {
        self.nodes
    }

    /// Whether it drives this DRM device.
    pub fn drives(&self, device: &device::Device) -> bool {
        let node = device.node();
        self.nodes.is_some_and(|nodes| match node.kind {
            NodeKind::Primary => nodes.primary == Some(node.id),
            NodeKind::Render => nodes.render == Some(node.id),
        })
    }

    /// The extensions it lacks for sharing dma-bufs.
    pub fn missing_extensions(&self) -> &[&'static CStr] {
        &self.missing
    }
}

fn nodes_of(drm: &vk::PhysicalDeviceDrmPropertiesEXT<'_>) -> DrmNodes {
    let node = |has: vk::Bool32, major: i64, minor: i64| {
        let id = NodeId {
            major: u64::try_from(major).ok()?,
            minor: u64::try_from(minor).ok()?,
        };
        (has == vk::TRUE).then_some(id)
    };
    DrmNodes {
        primary: node(drm.has_primary, drm.primary_major, drm.primary_minor),
        render: node(drm.has_render, drm.render_major, drm.render_minor),
    }
}
