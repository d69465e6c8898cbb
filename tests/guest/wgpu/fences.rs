//! Sync files in and out. The kernel's sw_sync makes fences that are signalled when the test says
//! so, since lavapipe's own are at once.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use primeshare::alloc::Dumb;
use primeshare::vk::{Error as VulkanError, Feature};
use primeshare::wgpu::Error;
use primeshare::{Allocator, Request};
use wgpu::TextureAspect;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// `struct sw_sync_create_fence_data` of `drivers/dma-buf/sw_sync.c`.
#[repr(C)]
struct CreateFence {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

nix::ioctl_readwrite!(create_fence, b'W', 0, CreateFence);
nix::ioctl_write_ptr!(increment, b'W', 1, u32);

/// A timeline of the kernel's.
struct SwSync(File);

impl SwSync {
    fn new() -> Self {
        let path = "/sys/kernel/debug/sync/sw_sync";
        let mut options = File::options();
        Self(options.read(true).write(true).open(path).unwrap())
    }

    /// A sync file that is signalled when the timeline gets to `value`.
    fn fence(&self, value: u32) -> OwnedFd {
        let mut data = CreateFence {
            value,
            name: [0; 32],
            fence: -1,
        };
        // SAFETY: the fd is open, and `data` outlives the call.
        unsafe { create_fence(self.0.as_raw_fd(), &mut data) }.unwrap();
        // SAFETY: the ioctl made this fd.
        unsafe { OwnedFd::from_raw_fd(data.fence) }
    }

    fn advance(&self) {
        // SAFETY: the fd is open.
        unsafe { increment(self.0.as_raw_fd(), &1) }.unwrap();
    }
}

/// Runs `work` while another thread does `late` and then signals all fences up to `value`.
///
/// On lavapipe a submission that follows one whose fences are not signalled yet does not return
/// before they are: Mesa's vkQueueSubmit waits there until the semaphore between them, which wgpu
/// orders its submissions by, is pending. So nothing can be tried between the two.
fn meanwhile<T: Send>(
    timeline: &SwSync,
    late: impl FnOnce() -> T + Send,
    work: impl FnOnce(),
) -> T {
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            // Time enough to go wrong in.
            std::thread::sleep(Duration::from_millis(20));
            timeline.advance();
            std::thread::sleep(Duration::from_millis(20));
            let result = late();
            timeline.advance();
            result
        });
        work();
        late.join().unwrap()
    })
}

#[test]
fn wgpu_waits_for_all_who_write_and_says_when_it_is_done() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let host = Host(&device);
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        let timeline = SwSync::new();
        for round in 1..=5 {
            cpu_writes(&buffer, 0, 200);
            let files = [timeline.fence(round * 2 - 1), timeline.fence(round * 2)];
            let mut read = Vec::new();
            let late = || cpu_writes(&buffer, 0, round as u8);
            let wrote = meanwhile(&timeline, late, || {
                device.acquire(&[&texture], files).unwrap();
                let bytes = host.begin_read(texture.get(), TextureAspect::All, (256, 64));
                let done = device.release(&[&texture]).unwrap();
                read = host.finish_read(&bytes, 256);
                if let Some(done) = done {
                    assert!(crate::kernel::flags(done.as_fd()).0, "not close-on-exec");
                    let mut fds = [PollFd::new(done.as_fd(), PollFlags::POLLIN)];
                    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
                }
            });
            assert!(read == wrote, "round {round}: a fence was not waited for");
        }
    });
}

#[test]
fn everything_may_go_while_a_fence_is_waited_for() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        let timeline = SwSync::new();
        let file = timeline.fence(2);
        meanwhile(
            &timeline,
            || {},
            || {
                device.acquire(&[&texture], [file]).unwrap();
                drop((buffer, texture));
                // wgpu waits for its queue when that goes.
                drop(device);
            },
        );
    });
}

#[test]
fn without_sync_files_a_release_can_be_waited_for() {
    in_wgpu(|guest, instance| {
        // As a host that adds one extension to wgpu's.
        let adapter = host::adapter(instance);
        let descriptor = wgpu::DeviceDescriptor::default();
        // SAFETY: lavapipe has the extension.
        let (plain, queue) = unsafe {
            let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>().unwrap();
            let open = hal.open_with_callback(
                descriptor.required_features,
                &descriptor.required_limits,
                &descriptor.memory_hints,
                Some(Box::new(|arguments| {
                    let foreign = primeshare::vk::ash::ext::queue_family_foreign::NAME;
                    arguments.extensions.push(foreign);
                })),
            );
            adapter
                .create_device_from_hal(open.unwrap(), &descriptor)
                .unwrap()
        };
        let device = Device::wrap(&plain, &queue).unwrap();
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let wrote = cpu_writes(&buffer, 0, 5);
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        device.acquire(&[&texture], []).unwrap();
        let read = Host(&device).read(texture.get(), TextureAspect::All, (256, 64));
        assert!(read == wrote);
        match device.release(&[&texture]).unwrap_err() {
            Error::Vulkan(VulkanError::Missing {
                feature, missing, ..
            }) => {
                assert_eq!(feature, Feature::SyncFdSemaphores);
                assert_eq!(missing, "VK_KHR_external_semaphore_fd");
            }
            other => panic!("{other}"),
        }
        assert!(texture.is_acquired());
        device.release_wait(&[&texture], PATIENCE).unwrap();
        assert!(!texture.is_acquired());
    });
}
