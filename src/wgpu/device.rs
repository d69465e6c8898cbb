//! A wgpu device with the extensions that sharing needs.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ash::vk::API_VERSION_1_3;
use wgpu::hal::api::Vulkan;

use super::Error;
use super::texture::Textures;
use crate::vk::{self, Feature, Host, Instance, PhysicalDevice};

/// A wgpu device and its queue, able to share textures.
///
/// Cheap to clone. `Send` and `Sync`.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    vulkan: vk::Device,
    textures: Textures,
}

/// The Vulkan device that a wgpu adapter stands for: which DRM device it
/// [drives](PhysicalDevice::drives), and what it can do for sharing. It keeps the adapter.
pub fn physical(adapter: &wgpu::Adapter) -> Result<PhysicalDevice, Error> {
    // SAFETY: nothing is destroyed through it.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }.ok_or(Error::NotVulkan)?;
    let keep = Box::new(adapter.clone());
    // SAFETY: the adapter, which is kept, keeps its instance.
    unsafe { wrap_physical(hal.shared_instance(), hal.raw_physical_device(), keep) }
}

/// # Safety
/// `keep` keeps the instance, and the handle is of it.
unsafe fn wrap_physical(
    instance: &wgpu::hal::vulkan::InstanceShared,
    handle: ash::vk::PhysicalDevice,
    keep: Box<dyn Any + Send + Sync>,
) -> Result<PhysicalDevice, Error> {
    // wgpu-hal asks for no newer version, whatever the loader has.
    let version = instance.instance_api_version().min(API_VERSION_1_3);
    // SAFETY: as the caller promises.
    unsafe {
        let instance = Instance::wrap_kept(instance.raw_instance().clone(), version, Some(keep))?;
        Ok(instance.physical_device(handle)?)
    }
}

/// wgpu's Vulkan adapters. wgpu has them at once, but for the web.
fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let listed = pin!(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    match listed.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(adapters) => adapters,
        Poll::Pending => Vec::new(),
    }
}

impl Device {
    /// Creates a wgpu device as `descriptor` asks, with the extensions added that sharing needs
    /// and that the adapter has: for images ([`vk::Error::Missing`] where it lacks them), and for
    /// sync files.
    ///
    /// To share NV12 or P010, or formats of 16 bits, ask for wgpu's feature of the format, as for
    /// any texture.
    pub fn open(
        adapter: &wgpu::Adapter,
        descriptor: &wgpu::DeviceDescriptor<'_>,
    ) -> Result<Self, Error> {
        let physical = physical(adapter)?;
        let capabilities = physical.capabilities();
        for feature in Feature::IMAGES {
            vk::require(&physical, capabilities, feature)?;
        }
        // The extensions of all sharing features that the adapter has.
        let ours = capabilities.extensions(physical.version());
        // SAFETY: nothing is destroyed through it.
        let hal = unsafe { adapter.as_hal::<Vulkan>() }.ok_or(Error::NotVulkan)?;
        let add: Box<wgpu::hal::vulkan::CreateDeviceCallback<'_>> = Box::new(|arguments| {
            for name in ours {
                if !arguments.extensions.contains(&name) {
                    arguments.extensions.push(name);
                }
            }
        });
        // SAFETY: the adapter has the extensions; nothing else is changed.
        let open = unsafe {
            hal.open_with_callback(
                descriptor.required_features,
                &descriptor.required_limits,
                &descriptor.memory_hints,
                Some(add),
            )
        }
        .map_err(|error| Error::Open(error.to_string()))?;
        // SAFETY: it was opened by this adapter, as the descriptor says.
        let (device, queue) = unsafe { adapter.create_device_from_hal(open, descriptor) }
            .map_err(|error| Error::Open(error.to_string()))?;
        Self::wrap(&device, &queue)
    }

    /// Creates a device, as [`Self::open`] does, on the adapter that drives this DRM device; else on the first that shares
    /// textures, hardware before software. [`Error::NoAdapter`] with all reasons if none does.
    pub fn find(
        instance: &wgpu::Instance,
        drm: Option<&crate::Device>,
        descriptor: &wgpu::DeviceDescriptor<'_>,
    ) -> Result<Self, Error> {
        let drives = |adapter: &wgpu::Adapter| {
            drm.is_some_and(|drm| physical(adapter).is_ok_and(|gpu| gpu.drives(drm)))
        };
        let is_software =
            |adapter: &wgpu::Adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu;
        let mut adapters = adapters(instance);
        adapters.sort_by_key(|adapter| (!drives(adapter), is_software(adapter)));
        let mut reasons = Vec::new();
        for adapter in &adapters {
            match Self::open(adapter, descriptor) {
                Ok(device) => return Ok(device),
                Err(error) => reasons.push(format!("{}: {error}", adapter.get_info().name)),
            }
        }
        Err(Error::NoAdapter(reasons))
    }

    /// Takes part in the host program's wgpu device. The capabilities of [`Self::vulkan`] say what it was
    /// created without, and operations that need that answer [`vk::Error::Missing`].
    ///
    /// By itself, wgpu enables all extensions that images need, if they are there, except
    /// VK_EXT_queue_family_foreign. It does not enable VK_KHR_external_semaphore_fd. A host that wants to share adds both with wgpu-hal's
    /// `Adapter::open_with_callback`, as [`Self::open`] does.
    pub fn wrap(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Self, Error> {
        // SAFETY: nothing is destroyed through them.
        let (hal, hal_queue) = unsafe { (device.as_hal::<Vulkan>(), queue.as_hal::<Vulkan>()) };
        let (hal, hal_queue) = hal.zip(hal_queue).ok_or(Error::NotVulkan)?;
        if hal.raw_queue() != hal_queue.as_raw() {
            return Err(Error::OtherQueue);
        }
        let keep = Box::new(device.clone());
        // SAFETY: the device, which is kept, keeps its instance, and is made of this handle.
        let physical =
            unsafe { wrap_physical(hal.shared_instance(), hal.raw_physical_device(), keep) }?;
        // wgpu-hal knows the features for YCbCr and timelines and tells nobody whether it enables them;
        // neither is used for textures. The queue is wgpu's, which submits.
        let host = Host::new(
            physical,
            hal.raw_device().clone(),
            hal.enabled_device_extensions(),
            hal.queue_family_index(),
        );
        // SAFETY: extensions and family are as wgpu-hal created the device. `physical` keeps it.
        let vulkan = unsafe { vk::Device::wrap(host) };
        Ok(Self(Arc::new(Inner {
            device: device.clone(),
            queue: queue.clone(),
            vulkan,
            textures: Textures::default(),
        })))
    }

    /// wgpu's device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// wgpu's queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// The same device as a Vulkan device: what it can do for sharing, what it imports, and images
    /// for work that wgpu cannot express. It keeps the wgpu device. Its queue is wgpu's:
    /// submitting answers [`vk::Error::NoQueue`].
    pub fn vulkan(&self) -> &vk::Device {
        &self.0.vulkan
    }

    /// The textures that are in use.
    pub(super) fn textures(&self) -> &Textures {
        &self.0.textures
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("vulkan", &self.0.vulkan)
            .finish()
    }
}
