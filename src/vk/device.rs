//! A logical device: made here, or the host program's, and how its queue is locked.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ash::{ext, khr, vk};
use gpu_allocator::vulkan::{Allocator, AllocatorCreateDesc};

use super::cache::Images;
use super::capabilities::Brought;
use super::query::Answers;
use super::refusals::Refusals;
use super::unfinished;
use super::{Call, Capabilities, Error, Feature, PhysicalDevice};
use crate::sys::process;

/// A logical device that shares memory, and a queue of it: made here, or the host program's.
///
/// Cheap to clone. One that was made here is destroyed when the last clone and everything made of
/// it has gone. `Send` and `Sync`: the queue is locked for submissions.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    physical: PhysicalDevice,
    device: ash::Device,
    capabilities: Capabilities,
    functions: Functions,
    queue_family: u32,
    queue: QueueAccess,
    /// Locked for submissions to a queue that only the library uses.
    queue_lock: Mutex<()>,
    /// Whether a call has answered VK_ERROR_DEVICE_LOST.
    is_lost: AtomicBool,
    wish: QueueWish,
    answers: Answers,
    images: Images,
    closes_refused_fds: OnceLock<bool>,
    unfinished: unfinished::All,
    refusals: Refusals,
    /// Made when first used. Taken out, and so freed, before the device is destroyed.
    staging: Mutex<Option<Allocator>>,
    owner: Owner,
    process: process::Owner,
}

/// Who destroys the device.
enum Owner {
    Here,
    /// The host program, which may want something dropped when we are done.
    Host {
        _keep: Option<Box<dyn Any + Send + Sync>>,
    },
}

/// Functions of extensions. Those of an extension that is not enabled must not be called.
pub(super) struct Functions {
    pub(super) memory_fd: khr::external_memory_fd::Device,
    pub(super) semaphore_fd: khr::external_semaphore_fd::Device,
    pub(super) modifier: ext::image_drm_format_modifier::Device,
    pub(super) timeline: khr::timeline_semaphore::DeviceFn,
}

impl Functions {
    fn load(instance: &ash::Instance, device: &ash::Device) -> Self {
        let handle = device.handle();
        let timeline = khr::timeline_semaphore::DeviceFn::load(|name| {
            // SAFETY: device and name are valid.
            let address =
                |name: &CStr| unsafe { instance.get_device_proc_addr(handle, name.as_ptr()) };
            // Vulkan 1.2 has them by their plain names, and by these only with the extension.
            let plain = name.to_bytes().strip_suffix(b"KHR").unwrap_or_default();
            let plain = std::ffi::CString::new(plain).unwrap_or_default();
            let found = address(name).or_else(|| address(&plain));
            found.map_or(std::ptr::null(), |function| function as *const _)
        });
        Self {
            memory_fd: khr::external_memory_fd::Device::new(instance, device),
            semaphore_fd: khr::external_semaphore_fd::Device::new(instance, device),
            modifier: ext::image_drm_format_modifier::Device::new(instance, device),
            timeline,
        }
    }
}

/// A queue of the host program's, locked in the host's way: by whatever its language or library has.
///
/// Whoever uses a `VkQueue` must be the only one meanwhile ("externally synchronized" in the
/// specification). So the lock is to be held for vkQueueSubmit, vkQueueSubmit2, vkQueueBindSparse,
/// vkQueuePresentKHR and vkQueueWaitIdle on this queue, and for vkDeviceWaitIdle, which uses all queues
/// of the device: by the host whenever it makes one of these calls. The library makes the first of them
/// alone, by [`Commands`](super::Commands), and the last never.
pub trait HostQueue: Send + Sync {
    /// Calls `work` once with the queue, which nobody else uses meanwhile. `work` does not panic and
    /// does not come back here.
    fn with_locked(&self, work: &mut dyn FnMut(vk::Queue));
}

impl HostQueue for Mutex<vk::Queue> {
    fn with_locked(&self, work: &mut dyn FnMut(vk::Queue)) {
        let queue = self.lock().unwrap_or_else(PoisonError::into_inner);
        work(*queue);
    }
}

/// How a device's queue is kept to one user at a time.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum QueueAccess {
    /// The host program keeps its queues to itself: everything that submits answers
    /// [`Error::NoQueue`], and the host submits what is recorded into its command buffers.
    #[default]
    None,
    /// A queue that the host program uses too, and locks in its own way: [`HostQueue`] says for which
    /// calls. A `Mutex<vk::Queue>` is one.
    Locked(Arc<dyn HostQueue>),
    /// A queue that the host program leaves to the library alone, the clones of this device. The host
    /// must not call vkDeviceWaitIdle meanwhile, which uses all queues.
    Exclusive(vk::Queue),
    /// A queue that was created with VK_DEVICE_QUEUE_CREATE_INTERNALLY_SYNCHRONIZED_BIT_KHR
    /// (VK_KHR_internally_synchronized_queues): the driver locks it.
    InternallySynchronized(vk::Queue),
}

/// A device that the host program made, for [`Device::wrap`].
#[non_exhaustive]
pub struct Host<'a> {
    /// What it was made of: see [`Instance::wrap`](super::Instance::wrap).
    pub physical: PhysicalDevice,
    /// The device.
    pub device: ash::Device,
    /// The extensions it was created with.
    pub extensions: &'a [&'a CStr],
    /// Whether it was created with feature `samplerYcbcrConversion`.
    pub ycbcr: bool,
    /// Whether it was created with feature `timelineSemaphore`.
    pub timeline: bool,
    /// The queue family that takes part: what is recorded is for a queue of it.
    pub queue_family: u32,
    /// A queue of that family to submit to, if there is one for the library.
    pub queue: QueueAccess,
    /// Dropped when the library is done with the device: for a host program whose device goes
    /// when the last user of it does.
    pub keep: Option<Box<dyn Any + Send + Sync>>,
}

impl<'a> Host<'a> {
    /// A device without the features that the other fields name, and without a queue to submit to.
    pub fn new(
        physical: PhysicalDevice,
        device: ash::Device,
        extensions: &'a [&'a CStr],
        queue_family: u32,
    ) -> Self {
        Self {
            physical,
            device,
            extensions,
            ycbcr: false,
            timeline: false,
            queue_family,
            queue: QueueAccess::None,
            keep: None,
        }
    }
}

/// What kind of queue a device is wanted with. What cannot be had is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueWish {
    /// Whether its work goes before that of other programs (`VK_QUEUE_GLOBAL_PRIORITY_HIGH`), so that a
    /// game that keeps the GPU busy does not hold back a compositor's copies. Some drivers want a
    /// privilege for it (`CAP_SYS_NICE`).
    pub high_priority: bool,
    /// Whether it is of a family that only transfers, beside the one that draws. Such a queue neither
    /// scales nor turns pictures, and changes no formats.
    pub transfer_only: bool,
}

impl QueueWish {
    /// As a compositor would have it: of high priority.
    pub fn high() -> Self {
        Self {
            high_priority: true,
            ..Self::default()
        }
    }
}

impl Device {
    /// Creates a device, with all that [`PhysicalDevice::capabilities`] has.
    ///
    /// What the device lacks is an error of the operations that need it: [`Error::Missing`]. A GPU
    /// without modifiers shares no images and still shares buffers ([`Self::import_buffer`]).
    pub fn new(physical: &PhysicalDevice) -> Result<Self, Error> {
        Self::with_queue_wish(physical, QueueWish::default())
    }

    /// As [`Self::new`], with a queue of this kind if there is one and it can be had.
    pub fn with_queue_wish(physical: &PhysicalDevice, wish: QueueWish) -> Result<Self, Error> {
        let family = queue_family(physical, wish.transfer_only)?;
        let priority = physical.global_priority().filter(|_| wish.high_priority);
        if let Some(extension) = priority {
            match Self::create(physical, family, Some(extension), wish) {
                // For want of a privilege, mostly (VK_ERROR_NOT_PERMITTED).
                Err(error) if !error.is_device_lost() => log::debug!("no high priority: {error}"),
                made_or_lost => return made_or_lost,
            }
        }
        Self::create(physical, family, None, wish)
    }

    /// Creates the device, with a queue of high priority if an extension for it is given.
    fn create(
        physical: &PhysicalDevice,
        queue_family: u32,
        priority: Option<&'static CStr>,
        wish: QueueWish,
    ) -> Result<Self, Error> {
        let capabilities = physical.capabilities().clone();
        let instance = physical.instance().raw();
        let priorities = [1.0];
        let mut high = vk::DeviceQueueGlobalPriorityCreateInfoKHR::default()
            .global_priority(vk::QueueGlobalPriorityKHR::HIGH);
        let mut queue = vk::DeviceQueueCreateInfo::default()
            .queue_family_index(queue_family)
            .queue_priorities(&priorities);
        if priority.is_some() {
            queue = queue.push_next(&mut high);
        }
        let queues = [queue];
        // VUID-vkCreateDevice-ppEnabledExtensionNames-01387: what else these need is in Vulkan 1.1.
        let extensions = capabilities.extensions(physical.version()).into_iter();
        let extensions: Vec<_> = extensions.chain(priority).map(CStr::as_ptr).collect();
        let mut ycbcr = vk::PhysicalDeviceSamplerYcbcrConversionFeatures::default()
            .sampler_ycbcr_conversion(capabilities.has(Feature::Ycbcr));
        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut ycbcr);
        if capabilities.has(Feature::Timeline) {
            info = info.push_next(&mut timeline);
        }
        // SAFETY: the handle is of the instance, and `info` lives until the call returns.
        let device = unsafe { instance.create_device(physical.raw(), &info, None) }
            .map_err(failed(physical, Call::CreateDevice))?;
        // SAFETY: the queue was asked for above.
        let queue = unsafe { device.get_device_queue(queue_family, 0) };
        let queue = QueueAccess::Exclusive(queue);
        Ok(Self::build(
            physical.clone(),
            device,
            capabilities,
            (queue_family, wish),
            queue,
            Owner::Here,
        ))
    }

    /// Takes part in the host program's device. Operations that need what it was not created with
    /// answer [`Error::Missing`]; [`Self::capabilities`] tells beforehand.
    ///
    /// # Safety
    /// - `device` was made of `physical`, with `extensions` and the features as said, and with a
    ///   queue of `queue_family`, which `queue` is; the queue was not created protected.
    /// - It is alive until the last clone of what is returned, and everything made of it, has
    ///   gone, or until `keep` is dropped. The host program destroys it; nothing here does.
    /// - The host program locks `queue` whenever it uses that queue itself, as [`HostQueue`] says.
    pub unsafe fn wrap(host: Host<'_>) -> Self {
        let Host { physical, .. } = host;
        let offered = physical.capabilities();
        let capabilities = Capabilities::of(&Brought {
            version: physical.version(),
            has: &|name| host.extensions.contains(&name),
            imports: offered.has(Feature::Import),
            ycbcr: host.ycbcr,
            timeline: host.timeline,
            semaphore_fd: offered.has(Feature::SyncFdSemaphores),
        });
        Self::build(
            physical,
            host.device,
            capabilities,
            (host.queue_family, QueueWish::default()),
            host.queue,
            Owner::Host { _keep: host.keep },
        )
    }

    fn build(
        physical: PhysicalDevice,
        device: ash::Device,
        capabilities: Capabilities,
        (queue_family, wish): (u32, QueueWish),
        queue: QueueAccess,
        owner: Owner,
    ) -> Self {
        Self(Arc::new(Inner {
            functions: Functions::load(physical.instance().raw(), &device),
            physical,
            device,
            capabilities,
            queue_family,
            queue,
            queue_lock: Mutex::default(),
            is_lost: AtomicBool::new(false),
            wish,
            answers: Answers::default(),
            images: Images::default(),
            closes_refused_fds: OnceLock::new(),
            unfinished: unfinished::All::default(),
            refusals: Refusals::default(),
            staging: Mutex::new(None),
            owner,
            process: process::Owner::current(),
        }))
    }

    /// Whether both are clones of one device.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether this is the process that made it, and no forked child of that.
    pub(super) fn is_here(&self) -> bool {
        self.0.process.is_here()
    }

    /// The ash device, for calls of the caller's own.
    pub fn raw(&self) -> &ash::Device {
        &self.0.device
    }

    /// The physical device.
    pub fn physical(&self) -> &PhysicalDevice {
        &self.0.physical
    }

    /// What this device was created able to do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The family of the queue.
    pub fn queue_family(&self) -> u32 {
        self.0.queue_family
    }

    /// What the driver says of the queue's family.
    pub(crate) fn queue_properties(&self) -> vk::QueueFamilyProperties {
        let families = families(self.physical());
        let family = families.get(self.queue_family() as usize);
        family.copied().unwrap_or_default()
    }

    /// What the queue can do.
    pub(crate) fn queue_flags(&self) -> vk::QueueFlags {
        self.queue_properties().queue_flags
    }

    /// What the queue of a device can do that is made with this wish.
    pub(crate) fn wished_queue_flags(physical: &PhysicalDevice, wish: QueueWish) -> vk::QueueFlags {
        let family = queue_family(physical, wish.transfer_only).ok();
        let family = family.and_then(|at| families(physical).get(at as usize).copied());
        family.map(|family| family.queue_flags).unwrap_or_default()
    }

    /// Calls `work` with the queue, for calls of the caller's own: those that [`HostQueue`] names.
    /// Others wait meanwhile; `work` must not submit through the library.
    /// [`Error::NoQueue`] if the host program keeps its queues to itself.
    pub fn with_queue<T>(&self, work: impl FnOnce(vk::Queue) -> T) -> Result<T, Error> {
        match &self.0.queue {
            QueueAccess::None => Err(Error::NoQueue {
                device: self.physical().name().to_owned(),
            }),
            QueueAccess::Locked(queue) => {
                let (mut work, mut result) = (Some(work), None);
                queue.with_locked(&mut |queue| result = work.take().map(|work| work(queue)));
                result.ok_or_else(|| Error::NoQueue {
                    device: self.physical().name().to_owned(),
                })
            }
            QueueAccess::Exclusive(queue) => {
                let lock = self.0.queue_lock.lock();
                let _lock = lock.unwrap_or_else(PoisonError::into_inner);
                Ok(work(*queue))
            }
            QueueAccess::InternallySynchronized(queue) => Ok(work(*queue)),
        }
    }

    /// Whether a call on it has answered VK_ERROR_DEVICE_LOST: everything made on it is gone. A lost
    /// device stays lost; [`Self::renew`] makes another.
    ///
    /// Buffers outlive it: every [`DmaBuf`](crate::DmaBuf) can be imported anew. What memory of the lost
    /// GPU held is undefined, and memory of others holds what they have written.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost.load(Ordering::Relaxed)
    }

    /// A new device of the same physical device, with the same kind of queue, for one that was lost. It
    /// shares nothing with this one: import the buffers into it again.
    ///
    /// Also for a host program's device: the new one is the library's own.
    pub fn renew(&self) -> Result<Self, Error> {
        Self::with_queue_wish(self.physical(), self.0.wish)
    }

    /// The error of a call on this device, for `map_err`.
    pub(super) fn failed(&self, call: Call) -> impl Fn(vk::Result) -> Error {
        let failed = failed(self.physical(), call);
        move |result| {
            if result == vk::Result::ERROR_DEVICE_LOST {
                self.0.is_lost.store(true, Ordering::Relaxed);
            }
            failed(result)
        }
    }

    /// [`Error::Missing`] where the device lacks the feature.
    pub(super) fn require(&self, feature: Feature) -> Result<(), Error> {
        require(self.physical(), self.capabilities(), feature)
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// What the driver has answered before.
    pub(super) fn answers(&self) -> &Answers {
        &self.0.answers
    }

    /// What has been imported before.
    pub(super) fn images(&self) -> &Images {
        &self.0.images
    }

    /// See [`super::fds`].
    pub(super) fn closes_refused_fds(&self) -> &OnceLock<bool> {
        &self.0.closes_refused_fds
    }

    /// See [`super::refusals`].
    pub(super) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// See [`super::unfinished`].
    pub(super) fn unfinished(&self) -> &unfinished::All {
        &self.0.unfinished
    }

    /// Does something with the allocator of staging memory.
    pub(super) fn with_staging<T>(
        &self,
        work: impl FnOnce(&mut Allocator) -> gpu_allocator::Result<T>,
    ) -> Result<T, Error> {
        let mut staging = self.0.staging();
        let allocator = match staging.as_mut() {
            Some(allocator) => allocator,
            None => staging.insert(self.new_allocator()?),
        };
        work(allocator).map_err(staging_error)
    }

    fn new_allocator(&self) -> Result<Allocator, Error> {
        Allocator::new(&AllocatorCreateDesc {
            instance: self.physical().instance().raw().clone(),
            device: self.raw().clone(),
            physical_device: self.physical().raw(),
            debug_settings: Default::default(),
            buffer_device_address: false,
            allocation_sizes: Default::default(),
        })
        .map_err(staging_error)
    }
}

fn staging_error(error: gpu_allocator::AllocationError) -> Error {
    Error::StagingMemory(error.to_string())
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

pub(crate) fn require(
    physical: &PhysicalDevice,
    capabilities: &Capabilities,
    feature: Feature,
) -> Result<(), Error> {
    match capabilities.missing(feature) {
        [] => Ok(()),
        missing => Err(Error::Missing {
            device: physical.name().to_owned(),
            feature,
            missing: missing.join(", "),
        }),
    }
}

fn families(physical: &PhysicalDevice) -> Vec<vk::QueueFamilyProperties> {
    let instance = physical.instance().raw();
    // SAFETY: the handle is of the instance.
    unsafe { instance.get_physical_device_queue_family_properties(physical.raw()) }
}

/// The first family that draws and computes, else the first that draws, else the first that computes:
/// all of them transfer without limits of granularity. Or, if that is asked for, the first that only
/// transfers.
fn queue_family(physical: &PhysicalDevice, transfer_only: bool) -> Result<u32, Error> {
    let families = families(physical);
    let (graphics, compute) = (vk::QueueFlags::GRAPHICS, vk::QueueFlags::COMPUTE);
    let transfers = |flags: vk::QueueFlags| {
        flags.contains(vk::QueueFlags::TRANSFER) && !flags.intersects(graphics | compute)
    };
    let find = |wanted: &dyn Fn(vk::QueueFlags) -> bool| {
        let index = families
            .iter()
            .position(|family| wanted(family.queue_flags))?;
        u32::try_from(index).ok()
    };
    transfer_only
        .then(|| find(&transfers))
        .flatten()
        .or_else(|| find(&|flags| flags.contains(graphics | compute)))
        .or_else(|| find(&|flags| flags.contains(graphics)))
        .or_else(|| find(&|flags| flags.contains(compute)))
        .ok_or_else(|| Error::NoQueue {
            device: physical.name().to_owned(),
        })
}

impl Drop for Inner {
    fn drop(&mut self) {
        let staging = self.staging.get_mut();
        let staging = staging.unwrap_or_else(PoisonError::into_inner).take();
        if !self.process.is_here() {
            // The driver would close handles that are the parent's as well, and what the host keeps is
            // the parent's too.
            std::mem::forget(staging);
            std::mem::forget(std::mem::replace(&mut self.owner, Owner::Here));
            return;
        }
        drop(staging);
        if matches!(self.owner, Owner::Here) {
            // SAFETY: everything made from the device holds it, so nothing is left, and whoever
            // submitted work has waited for it before dropping what it uses.
            unsafe { self.device.destroy_device(None) };
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("physical", &self.0.physical.name())
            .finish()
    }
}
