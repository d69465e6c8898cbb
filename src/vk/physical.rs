//! Physical devices, and which DRM device each one drives.

use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::Arc;

use ash::{ext, khr, vk};

use super::capabilities::Brought;
use super::{Capabilities, Error, Feature, Instance, query, quirks};
use crate::device::{self, NodeId};

/// The DRM nodes of a Vulkan device (VK_EXT_physical_device_drm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrmNodes {
    /// `card*`.
    pub primary: Option<NodeId>,
    /// `renderD*`.
    pub render: Option<NodeId>,
}

/// A Vulkan device that could be used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PhysicalDevice(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    handle: vk::PhysicalDevice,
    name: String,
    kind: vk::PhysicalDeviceType,
    driver: Option<vk::DriverId>,
    version: u32,
    driver_version: u32,
    driver_info: Option<String>,
    /// The extension for queues of another priority, where there is one.
    global_priority: Option<&'static CStr>,
    nodes: Option<DrmNodes>,
    max_allocation: u64,
    capabilities: Capabilities,
}

/// Which Vulkan device to take: of all that are meant, the first that shares images, else the first
/// that shares buffers, else the first.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Select<'a> {
    /// One that drives this DRM device: by its numbers and bus if there is one, else as
    /// [`PhysicalDevice::may_drive`] says.
    Drm(&'a device::Device),
    /// A software device: of several that share equally well, Mesa's lavapipe.
    Software,
    /// One whose name contains this, in any case of letters.
    Name(&'a str),
    /// One of this driver. Several can drive one device, such as RADV and AMDVLK.
    Driver(vk::DriverId),
}

impl Select<'_> {
    /// How well a device answers: the least is the best. `None`: it is not meant.
    pub(super) fn rank(&self, device: &PhysicalDevice) -> Option<Rank> {
        let mut rank = Rank {
            may_be_another: false,
            sharing: device.sharing(),
            is_second_choice: false,
        };
        let is_meant = match self {
            Self::Drm(drm) => {
                rank.may_be_another = !device.drives(drm);
                !rank.may_be_another || device.may_drive(drm)
            }
            Self::Software => {
                rank.is_second_choice = device.driver_id() != Some(vk::DriverId::MESA_LLVMPIPE);
                device.is_software()
            }
            Self::Name(part) => {
                let name = device.name().to_lowercase();
                name.contains(&part.to_lowercase())
            }
            Self::Driver(id) => device.driver_id() == Some(*id),
        };
        is_meant.then_some(rank)
    }
}

/// How well a device answers a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Only the bus says that it is the device.
    may_be_another: bool,
    sharing: Sharing,
    /// There is a better driver of the kind.
    is_second_choice: bool,
}

/// What a device shares with others, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharing {
    Images,
    Buffers,
    Nothing,
}

impl fmt::Display for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drm(device) => write!(f, "for {device}"),
            Self::Software => f.write_str("in software"),
            Self::Name(part) => write!(f, "named \"{part}\""),
            Self::Driver(id) => write!(f, "of the driver {id:?}"),
        }
    }
}

impl PhysicalDevice {
    /// [`Error::DeviceVersion`] for a device below version 1.1.
    pub(super) fn describe(instance: &Instance, handle: vk::PhysicalDevice) -> Result<Self, Error> {
        let raw = instance.raw();
        // SAFETY: the handle is of this instance.
        let extensions = unsafe { raw.enumerate_device_extension_properties(handle) }
            .map_err(Error::Enumerate)?;
        let extensions: Vec<CString> = extensions
            .iter()
            .filter_map(|e| Some(e.extension_name_as_c_str().ok()?.to_owned()))
            .collect();
        let has = |name: &CStr| extensions.iter().any(|known| known.as_c_str() == name);
        // SAFETY: as above.
        let properties = unsafe { raw.get_physical_device_properties(handle) };
        let name = properties
            .device_name_as_c_str()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if properties.api_version < vk::API_VERSION_1_1 {
            return Err(Error::DeviceVersion { device: name });
        }
        let version = properties.api_version.min(instance.version());
        let has_drm = has(ext::physical_device_drm::NAME);
        let has_driver = version >= vk::API_VERSION_1_2 || has(khr::driver_properties::NAME);
        let has_timeline = version >= vk::API_VERSION_1_2 || has(khr::timeline_semaphore::NAME);
        let mut drm = vk::PhysicalDeviceDrmPropertiesEXT::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut sizes = vk::PhysicalDeviceMaintenance3Properties::default();
        let mut more = vk::PhysicalDeviceProperties2::default().push_next(&mut sizes);
        if has_drm {
            more = more.push_next(&mut drm);
        }
        if has_driver {
            more = more.push_next(&mut driver);
        }
        let mut ycbcr = vk::PhysicalDeviceSamplerYcbcrConversionFeatures::default();
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut ycbcr);
        if has_timeline {
            features = features.push_next(&mut timeline);
        }
        // SAFETY: the device is of version 1.1, and what is chained is of that version or of an
        // extension it has.
        unsafe {
            raw.get_physical_device_properties2(handle, &mut more);
            raw.get_physical_device_features2(handle, &mut features);
        }
        let driver_info = has_driver.then(|| {
            let [name, info] = [driver.driver_name_as_c_str(), driver.driver_info_as_c_str()]
                .map(|text| text.unwrap_or_default().to_string_lossy());
            format!("{name} {info}").trim().to_owned()
        });
        let driver = has_driver.then_some(driver.driver_id);
        quirks::keep_loaded(driver);
        let capabilities = Capabilities::of(&Brought {
            version,
            has: &has,
            imports: has(ext::external_memory_dma_buf::NAME) && {
                let on = query::On {
                    instance: raw,
                    device: handle,
                };
                query::imports(on, has(ext::image_drm_format_modifier::NAME))
            },
            ycbcr: ycbcr.sampler_ycbcr_conversion == vk::TRUE,
            timeline: timeline.timeline_semaphore == vk::TRUE,
            semaphore_fd: semaphore_fd(raw, handle),
        });
        Ok(Self(Arc::new(Inner {
            instance: instance.clone(),
            handle,
            name,
            kind: properties.device_type,
            driver,
            version,
            driver_version: properties.driver_version,
            driver_info,
            global_priority: [khr::global_priority::NAME, ext::global_priority::NAME]
                .into_iter()
                .find(|name| has(name)),
            nodes: has_drm.then(|| nodes_of(&drm)),
            max_allocation: sizes.max_memory_allocation_size,
            capabilities,
        })))
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::PhysicalDevice {
        self.0.handle
    }

    /// The instance it belongs to.
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// The name the driver gives.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.0.kind == vk::PhysicalDeviceType::CPU
    }

    /// Its DRM nodes. `None` where the driver does not say.
    pub fn drm_nodes(&self) -> Option<DrmNodes> {
        self.0.nodes
    }

    /// Whether it drives this DRM device: one of its nodes is the device's, or another node of the
    /// same device.
    ///
    /// So a render node finds the Vulkan device that names only a primary one and the other way
    /// about, and a Vulkan device whose render node is one device's and whose primary node is a
    /// display controller's (as on many SoCs) is found by either.
    pub fn drives(&self, device: &device::Device) -> bool {
        let Some(nodes) = self.0.nodes else {
            return false;
        };
        let node = device.node();
        if nodes.has(node.id) {
            return true;
        }
        let Some(bus) = node.bus.as_ref() else {
            return false;
        };
        let same = |other: &&device::Node| other.bus.as_ref() == Some(bus);
        let all = all_nodes();
        all.iter().filter(same).any(|other| nodes.has(other.id))
    }

    /// Whether it may be the GPU of this display controller: no number is the same, but both are
    /// devices of the platform bus, and the controller has no render node. On a SoC that has a
    /// display controller and a GPU as two devices, the GPU draws for the controller, and neither
    /// says so. (KWin takes them for compatible by the same rule, in `GpuManager`.)
    pub fn may_drive(&self, device: &device::Device) -> bool {
        let Some(nodes) = self.0.nodes else {
            return false;
        };
        nodes.may_drive(device.node(), &all_nodes())
    }

    fn sharing(&self) -> Sharing {
        let has = |feature| self.0.capabilities.has(feature);
        match has(Feature::DmaBuf) && has(Feature::Foreign) && has(Feature::Import) {
            true if has(Feature::Modifiers) => Sharing::Images,
            true => Sharing::Buffers,
            false => Sharing::Nothing,
        }
    }

    /// What it can do for sharing, and what it lacks.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Whether a device that [`Device::new`](super::Device::new) makes of it
    /// [takes pending sync files](super::Device::takes_pending_sync_files).
    pub(crate) fn takes_pending_sync_files(&self) -> bool {
        self.0.capabilities.has(Feature::SyncFdSemaphores) && !quirks::waits_in_submissions(self)
    }

    /// What it lacks for sharing images with others: extensions, and that it imports any. Empty:
    /// nothing.
    pub fn missing_extensions(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for feature in Feature::IMAGES.into_iter().chain([Feature::Import]) {
            for missing in self.0.capabilities.missing(feature) {
                if !all.contains(&missing.as_str()) {
                    all.push(missing.as_str());
                }
            }
        }
        all
    }

    /// The version of Vulkan to use it with.
    pub(crate) fn version(&self) -> u32 {
        self.0.version
    }

    /// Which driver it is of (`VkPhysicalDeviceDriverProperties::driverID`), unlike its name the
    /// same in all versions. `None` where it does not say: below Vulkan 1.2 without
    /// `VK_KHR_driver_properties`.
    pub fn driver_id(&self) -> Option<vk::DriverId> {
        self.0.driver
    }

    /// The driver's name and version for people (`driverName` and `driverInfo` of
    /// `VkPhysicalDeviceDriverProperties`), such as `radv Mesa 26.1.6`: for reports of errors. `None` where
    /// [`driver_id`](Self::driver_id) is.
    pub fn driver_info(&self) -> Option<&str> {
        self.0.driver_info.as_deref()
    }

    /// The extension for queues of another priority than other programs' queues.
    pub(super) fn global_priority(&self) -> Option<&'static CStr> {
        self.0.global_priority
    }

    /// The driver's version, in its vendor's own counting (`driverVersion`).
    pub(crate) fn driver_version(&self) -> u32 {
        self.0.driver_version
    }

    /// Bytes of the largest allocation (`maxMemoryAllocationSize`).
    pub(super) fn max_allocation(&self) -> u64 {
        self.0.max_allocation
    }
}

fn all_nodes() -> Vec<device::Node> {
    device::enumerate().unwrap_or_else(|error| {
        log::warn!("{error}");
        Vec::new()
    })
}

fn semaphore_fd(instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
    let info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
        .handle_type(vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD);
    let mut answer = vk::ExternalSemaphoreProperties::default();
    // SAFETY: the device is of version 1.1.
    unsafe {
        instance.get_physical_device_external_semaphore_properties(device, &info, &mut answer);
    }
    answer.external_semaphore_features.contains(
        vk::ExternalSemaphoreFeatureFlags::IMPORTABLE
            | vk::ExternalSemaphoreFeatureFlags::EXPORTABLE,
    )
}

impl DrmNodes {
    fn has(&self, node: NodeId) -> bool {
        self.primary == Some(node) || self.render == Some(node)
    }

    /// Whether these are of a GPU on the platform bus and the node is of a display controller there.
    fn may_drive(&self, controller: &device::Node, all: &[device::Node]) -> bool {
        let is_platform = |node: &device::Node| {
            let bus = node.bus.as_ref();
            bus.is_some_and(|bus| bus.subsystem == "platform")
        };
        let draws_itself = all
            .iter()
            .any(|node| node.kind == device::NodeKind::Render && node.bus == controller.bus);
        let is_gpu = |node: &device::Node| self.has(node.id) && is_platform(node);
        is_platform(controller) && !draws_itself && all.iter().any(is_gpu)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{BusId, NodeKind};

    fn node(minor: u64) -> NodeId {
        NodeId { major: 226, minor }
    }

    fn named(kind: NodeKind, minor: u64, subsystem: &str, name: &str) -> device::Node {
        device::Node {
            path: format!("/dev/dri/{minor}").into(),
            kind,
            id: node(minor),
            bus: Some(BusId {
                subsystem: subsystem.to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    #[test]
    fn a_display_controller_and_a_gpu_on_the_platform_bus_belong_together() {
        let display = named(NodeKind::Primary, 0, "platform", "display-subsystem");
        let gpu = named(NodeKind::Render, 128, "platform", "fb000000.gpu");
        let card = named(NodeKind::Primary, 1, "pci", "0000:01:00.0");
        let of = |render| DrmNodes {
            primary: None,
            render: Some(node(render)),
        };
        let all = [display.clone(), gpu.clone(), card.clone()];
        assert!(of(128).may_drive(&display, &all));
        // Not what is on another bus, and not what has a GPU of its own.
        assert!(!of(128).may_drive(&card, &all));
        assert!(!of(1).may_drive(&display, &all));
        let own = named(NodeKind::Render, 129, "platform", "display-subsystem");
        let all = [display.clone(), gpu, own];
        assert!(!of(128).may_drive(&display, &all));
    }

    #[test]
    fn what_shares_comes_before_what_is_liked() {
        let rank = |may_be_another, sharing, is_second_choice| Rank {
            may_be_another,
            sharing,
            is_second_choice,
        };
        let best_first = [
            rank(false, Sharing::Images, false),
            rank(false, Sharing::Images, true),
            rank(false, Sharing::Buffers, false),
            rank(false, Sharing::Nothing, false),
            rank(true, Sharing::Images, false),
        ];
        assert!(best_first.is_sorted());
    }

    #[test]
    fn a_device_is_found_by_its_render_node_and_by_a_display_controllers_primary_node() {
        // As v3dv says it: the primary node is vc4's, the render node v3d's.
        let nodes = DrmNodes {
            primary: Some(node(1)),
            render: Some(node(128)),
        };
        assert!(nodes.has(node(1)) && nodes.has(node(128)));
        assert!(!nodes.has(node(0)));
        let hidden = vk::PhysicalDeviceDrmPropertiesEXT::default()
            .has_render(true)
            .render_major(226)
            .render_minor(129)
            .primary_major(226)
            .primary_minor(3);
        assert_eq!(
            nodes_of(&hidden),
            DrmNodes {
                primary: None,
                render: Some(node(129))
            }
        );
    }
}
