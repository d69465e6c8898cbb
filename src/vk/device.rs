use std::ffi::CStr;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::{khr, vk};
use gpu_allocator::vulkan::{Allocator, AllocatorCreateDesc};

use super::physical::REQUIRED;
use super::{Call, Error, PhysicalDevice};

/// A logical device with what sharing dma-bufs needs, and one queue.
///
/// Cheap to clone; destroyed when the last clone and the last image of it have gone. `Send` and
/// `Sync`: the queue is locked for submissions.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    physical: PhysicalDevice,
    device: ash::Device,
    memory_fd: khr::external_memory_fd::Device,
    queue_family: u32,
    queue: Mutex<vk::Queue>,
    /// Taken out, and so freed, before the device is destroyed.
    staging: Mutex<Option<Allocator>>,
}

impl Device {
    /// Creates the device. [`Error::MissingExtensions`] says what it cannot do.
    pub fn new(physical: &PhysicalDevice) -> Result<Self, Error> {
        let missing = physical.missing_extensions();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|name| name.to_string_lossy()).collect();
            return Err(Error::MissingExtensions {
                device: physical.name().to_owned(),
                missing: names.join(", "),
            });
        }
        let instance = physical.instance().raw();
        let queue_family = queue_family(physical)?;
        let priorities = [1.0];
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(queue_family)
            .queue_priorities(&priorities)];
        let extensions = REQUIRED.map(CStr::as_ptr);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions);
        // SAFETY: the handle is of the instance, and `info` lives until the call returns.
        let device = unsafe { instance.create_device(physical.raw(), &info, None) }
            .map_err(failed(physical, Call::CreateDevice))?;
        // SAFETY: the queue was asked for above.
        let queue = unsafe { device.get_device_queue(queue_family, 0) };
        let inner = Inner {
            memory_fd: khr::external_memory_fd::Device::new(instance, &device),
            physical: physical.clone(),
            device,
            queue_family,
            queue: Mutex::new(queue),
            staging: Mutex::new(None),
        };
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: instance.clone(),
            device: inner.device.clone(),
            physical_device: physical.raw(),
            debug_settings: Default::default(),
            buffer_device_address: false,
            allocation_sizes: Default::default(),
        })
        .map_err(|error| Error::StagingMemory(error.to_string()))?;
        *inner.staging() = Some(allocator);
        Ok(Self(Arc::new(inner)))
    }

    /// The ash device, for calls of the caller's own.
    pub fn raw(&self) -> &ash::Device {
        &self.0.device
    }

    /// The physical device.
    pub fn physical(&self) -> &PhysicalDevice {
        &self.0.physical
    }

    /// The family of the queue.
    pub fn queue_family(&self) -> u32 {
        self.0.queue_family
    }

    /// The queue, for submissions of the caller's own. Others wait while it is held.
    pub fn queue(&self) -> MutexGuard<'_, vk::Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call on this device, for `map_err`.
    pub(super) fn failed(&self, call: Call) -> impl Fn(vk::Result) -> Error {
        failed(self.physical(), call)
    }

    pub(super) fn memory_fd(&self) -> &khr::external_memory_fd::Device {
        &self.0.memory_fd
    }

    /// Does something with the allocator of staging memory.
    pub(super) fn with_staging<T>(
        &self,
        work: impl FnOnce(&mut Allocator) -> gpu_allocator::Result<T>,
    ) -> Result<T, Error> {
        match self.0.staging().as_mut() {
            Some(allocator) => {
                work(allocator).map_err(|error| Error::StagingMemory(error.to_string()))
            }
            None => Err(Error::StagingMemory("the device is going".to_owned())),
        }
    }
}

impl Inner {
    fn staging(&self) -> MutexGuard<'_, Option<Allocator>> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(physical: &PhysicalDevice, call: Call) -> impl Fn(vk::Result) -> Error {
    move |result| Error::Call {
        device: physical.name().to_owned(),
        call,
        result,
    }
}

/// The first family that draws, else the first that computes: both transfer without limits of
/// granularity.
fn queue_family(physical: &PhysicalDevice) -> Result<u32, Error> {
    let instance = physical.instance().raw();
    // SAFETY: the handle is of the instance.
    let families = unsafe { instance.get_physical_device_queue_family_properties(physical.raw()) };
    [vk::QueueFlags::GRAPHICS, vk::QueueFlags::COMPUTE]
        .into_iter()
        .find_map(|flag| {
            let index = families.iter().position(|f| f.queue_flags.contains(flag))?;
            u32::try_from(index).ok()
        })
        .ok_or_else(|| Error::NoQueue {
            device: physical.name().to_owned(),
        })
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.staging().take();
        // SAFETY: everything made from the device holds it, so nothing is left, and whoever
        // submitted work has waited for it before dropping what it uses.
        unsafe { self.device.destroy_device(None) };
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("physical", &self.0.physical.name())
            .finish()
    }
}
