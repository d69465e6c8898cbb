//! The host program's own instance, device and queue.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::vk::ash::{self, ext, khr, vk};
use primeshare::vk::{
    Commands, Device, Error, Feature, Host, HostQueue, Instance, QueueAccess, Transfer, Use,
    acquire, copy_region, release,
};
use primeshare::{Allocator, Fourcc, Request};

use super::bytes::{Bytes, bytes_to_image, cpu_has, gradient, image_to_bytes, packed_size};
use crate::support::{Guest, PATIENCE, buffer_on, in_guest};

const SHARING: [&CStr; 5] = [
    khr::external_memory_fd::NAME,
    ext::external_memory_dma_buf::NAME,
    khr::image_format_list::NAME,
    ext::image_drm_format_modifier::NAME,
    ext::queue_family_foreign::NAME,
];

/// A device made by plain Vulkan calls, as a host program would; destroyed on drop.
struct HostDevice {
    device: ash::Device,
    queue: Arc<Mutex<vk::Queue>>,
    wrapped: Instance,
    raw: vk::PhysicalDevice,
}

impl HostDevice {
    fn new(guest: &Guest, extensions: &[&CStr]) -> Self {
        let physical = guest.physical();
        let instance = guest.instance().raw();
        let priorities = [1.0];
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&priorities)];
        let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names);
        // SAFETY: plain creation; the guest's instance outlives the test.
        unsafe {
            let device = instance.create_device(physical.raw(), &info, None).unwrap();
            let queue = device.get_device_queue(0, 0);
            Self {
                queue: Arc::new(Mutex::new(queue)),
                wrapped: Instance::wrap(instance.clone(), vk::API_VERSION_1_1).unwrap(),
                raw: physical.raw(),
                device,
            }
        }
    }

    fn host<'a>(&self, extensions: &'a [&'a CStr]) -> Host<'a> {
        // SAFETY: the handle is of the instance.
        let physical = unsafe { self.wrapped.physical_device(self.raw) };
        Host::new(physical.unwrap(), self.device.clone(), extensions, 0)
    }

    fn wrap(&self, extensions: &[&CStr], queue: QueueAccess) -> Device {
        let mut host = self.host(extensions);
        host.queue = queue;
        // SAFETY: all of it is as said, and outlives what is made of it in each test.
        unsafe { Device::wrap(host) }
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        // SAFETY: what was made of it has gone.
        unsafe { self.device.destroy_device(None) };
    }
}

#[test]
fn images_are_shared_through_the_hosts_device_and_queue() {
    in_guest(|guest| {
        let host = HostDevice::new(guest, &SHARING);
        let vulkan = host.wrap(&SHARING, QueueAccess::Locked(host.queue.clone()));
        let dumb = Dumb::new(&guest.vgem());
        let buffer = dumb
            .allocate(&Request::new(100, 50, Fourcc::XRGB8888))
            .unwrap();
        let usage = vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST;
        let image = vulkan.import_image(&buffer, usage).unwrap();
        let mut bytes = Bytes::new(&vulkan, packed_size(&buffer));
        let picture = gradient(&buffer, 9);
        bytes.contents().copy_from_slice(&picture);
        bytes_to_image(&bytes, &image, &buffer);
        let mut mapping = primeshare::sync::Mapping::new(&buffer.objects()[0]).unwrap();
        assert!(cpu_has(&buffer, &mut mapping, &picture));
        bytes.contents().fill(0);
        image_to_bytes(&image, &buffer, &bytes);
        assert!(bytes.contents() == picture);
    });
}

/// A lock that is none of Rust's, as of a host program in another language.
struct Counted {
    queue: vk::Queue,
    is_locked: AtomicBool,
    times: AtomicUsize,
}

impl HostQueue for Counted {
    fn with_locked(&self, work: &mut dyn FnMut(vk::Queue)) {
        assert!(
            !self.is_locked.swap(true, Ordering::Acquire),
            "locked twice"
        );
        work(self.queue);
        self.is_locked.store(false, Ordering::Release);
        self.times.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_hosts_own_lock_is_held_for_submissions_and_nothing_else() {
    in_guest(|guest| {
        let host = HostDevice::new(guest, &SHARING);
        let lock = Arc::new(Counted {
            queue: *host.queue.lock().unwrap(),
            is_locked: AtomicBool::new(false),
            times: AtomicUsize::new(0),
        });
        let vulkan = host.wrap(&SHARING, QueueAccess::Locked(lock.clone()));
        let buffer = buffer_on(&guest.vgem());
        let image = vulkan.import_image(&buffer, Use::Source).unwrap();
        let mut commands = Commands::new(&vulkan).unwrap();
        // SAFETY: nothing is recorded.
        unsafe { commands.record(|_, _| {}) }.unwrap();
        assert_eq!(lock.times.load(Ordering::Relaxed), 0);
        for times in 1..=3 {
            // SAFETY: recorded above.
            unsafe { commands.submit() }.unwrap();
            commands.wait(PATIENCE).unwrap();
            assert_eq!(lock.times.load(Ordering::Relaxed), times);
        }
        drop((commands, image));
        assert_eq!(lock.times.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn transfers_are_recorded_into_the_hosts_command_buffer() {
    in_guest(|guest| {
        let host = HostDevice::new(guest, &SHARING);
        // The host keeps its queue to itself.
        let vulkan = host.wrap(&SHARING, QueueAccess::None);
        let udmabuf = Udmabuf::open().unwrap();
        let buffer = udmabuf
            .allocate(&Request::new(16, 16, Fourcc::XRGB8888))
            .unwrap();
        let image = vulkan.import_image(&buffer, Use::Destination).unwrap();
        let mut commands = Commands::new(&vulkan).unwrap();
        // SAFETY: nothing is recorded.
        let refused = unsafe { commands.record(|_, _| {}).and_then(|()| commands.submit()) };
        assert!(matches!(refused, Err(Error::NoQueue { .. })));

        let device = &host.device;
        let transfer = [Transfer::image(&image, Use::Destination)];
        let mut bytes = Bytes::new(&vulkan, packed_size(&buffer));
        bytes.contents().fill(0x5a);
        let region = [copy_region(&buffer, 0).unwrap().buffer_row_length(0)];
        // SAFETY: the host's own commands, waited for before anything goes.
        unsafe {
            let pool = vk::CommandPoolCreateInfo::default();
            let pool = device.create_command_pool(&pool, None).unwrap();
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(pool)
                .command_buffer_count(1);
            let buffers = device.allocate_command_buffers(&info).unwrap();
            let begin = vk::CommandBufferBeginInfo::default();
            device.begin_command_buffer(buffers[0], &begin).unwrap();
            acquire(buffers[0], &transfer);
            let layout = Use::Destination.layout();
            device.cmd_copy_buffer_to_image(buffers[0], bytes.raw(), image.raw(), layout, &region);
            release(buffers[0], &transfer);
            device.end_command_buffer(buffers[0]).unwrap();
            let submission = [vk::SubmitInfo::default().command_buffers(&buffers)];
            let queue = *host.queue.lock().unwrap();
            device
                .queue_submit(queue, &submission, vk::Fence::null())
                .unwrap();
            device.queue_wait_idle(queue).unwrap();
            device.destroy_command_pool(pool, None);
        }
        let mut mapping = primeshare::sync::Mapping::new(&buffer.objects()[0]).unwrap();
        assert!(cpu_has(&buffer, &mut mapping, bytes.contents()));
    });
}

#[test]
fn what_the_host_left_out_is_named_and_the_rest_works() {
    in_guest(|guest| {
        let some = [SHARING[0], SHARING[1], SHARING[4]];
        let host = HostDevice::new(guest, &some);
        let vulkan = host.wrap(&some, QueueAccess::Locked(host.queue.clone()));
        let dumb = Dumb::new(&guest.vgem());
        let buffer = dumb
            .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
            .unwrap();
        let refused = vulkan.import_image(&buffer, Use::Source).unwrap_err();
        assert_eq!(
            refused,
            Error::Missing {
                device: vulkan.physical().name().to_owned(),
                feature: Feature::Modifiers,
                missing: "VK_EXT_image_drm_format_modifier, VK_KHR_image_format_list".to_owned(),
            }
        );
        let usage = vk::BufferUsageFlags::TRANSFER_SRC;
        assert!(vulkan.import_buffer(&buffer, usage).is_ok());
        let able = vulkan.capabilities();
        assert!(able.has(Feature::DmaBuf) && able.has(Feature::Foreign));
        assert_eq!(able.missing(Feature::Timeline).len(), 2, "{able}");
    });
}

#[test]
fn an_instance_below_the_floor_is_refused() {
    in_guest(|guest| {
        let raw = guest.instance().raw().clone();
        // SAFETY: the guest's instance outlives the test.
        let refused = unsafe { Instance::wrap(raw, vk::API_VERSION_1_0) };
        assert_eq!(
            refused.unwrap_err(),
            Error::InstanceVersion { major: 1, minor: 0 }
        );
    });
}

#[test]
fn what_the_host_wants_kept_goes_with_the_last_user() {
    in_guest(|guest| {
        let host = HostDevice::new(guest, &SHARING);
        let kept = Arc::new(());
        let mut keeping = host.host(&SHARING);
        keeping.keep = Some(Box::new(kept.clone()));
        // SAFETY: as in `wrap`.
        let vulkan = unsafe { Device::wrap(keeping) };
        let dumb = Dumb::new(&guest.vgem());
        let buffer = dumb
            .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
            .unwrap();
        let image = vulkan.import_image(&buffer, Use::Source).unwrap();
        drop(vulkan);
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(image);
        assert_eq!(Arc::strong_count(&kept), 1);
    });
}
