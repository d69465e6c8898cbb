//! Sync files in and out. The fences are those of [`Gate`], since lavapipe's own are signalled at
//! once.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::PollFlags;
use primeshare::alloc::Dumb;
use primeshare::vk::{Error as VulkanError, Feature};
use primeshare::wgpu::Error;
use primeshare::{Allocator, Request};
use wgpu::TextureAspect;

use super::*;
use crate::kernel::dma_buf::ready;
use crate::support::PATIENCE;
use crate::vulkan::fences::Gate;

/// Runs `work` while another thread opens the first gate, does `late`, and opens the second.
///
/// On lavapipe a submission that follows one whose fences are not signalled yet does not return
/// before they are: Mesa's vkQueueSubmit waits there until the semaphore between them, which wgpu
/// orders its submissions by, is pending. So nothing can be tried between the two.
fn meanwhile<T: Send>(gates: [Gate; 2], late: impl FnOnce() -> T + Send, work: impl FnOnce()) -> T {
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            // Time enough to go wrong in.
            std::thread::sleep(Duration::from_millis(20));
            let [first, second] = gates;
            first.open();
            std::thread::sleep(Duration::from_millis(20));
            let result = late();
            second.open();
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
        let vgem = guest.vgem();
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&vgem).allocate(&request).unwrap();
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        for round in 1..=5 {
            cpu_writes(&buffer, 0, 200);
            let ((first, a), (second, b)) = (Gate::new(&vgem), Gate::new(&vgem));
            let mut read = Vec::new();
            let late = || cpu_writes(&buffer, 0, round);
            let wrote = meanwhile([first, second], late, || {
                device.acquire(&[&texture], [a, b]).unwrap();
                let bytes = host.begin_read(texture.get(), TextureAspect::All, (256, 64));
                let done = device.release(&[&texture]).unwrap();
                read = host.finish_read(&bytes, 256);
                if let Some(done) = done {
                    assert!(crate::kernel::flags(done.as_fd()).0, "not close-on-exec");
                    assert_eq!(ready(done.as_fd(), PollFlags::POLLIN), PollFlags::POLLIN);
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
        let vgem = guest.vgem();
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let buffer = Dumb::new(&vgem).allocate(&request).unwrap();
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        let ((first, a), (second, b)) = (Gate::new(&vgem), Gate::new(&vgem));
        meanwhile(
            [first, second],
            || {},
            || {
                device.acquire(&[&texture], [a, b]).unwrap();
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
