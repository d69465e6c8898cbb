//! Work that never ends, since what it waits for does not happen.

use std::time::Duration;

use primeshare::vk::{Commands, Device, Point, Semaphore, Transfer, Use, acquire, release};

use crate::child::{self, Child};
use crate::fences::sw_sync::{self, Timeline};
use crate::support::{Guest, buffer_on, in_guest, kernel_dma_bufs, without_checks};

/// For the other process, which says nothing while it waits.
const PATIENCE: Duration = Duration::from_secs(300);

/// In a process of its own, since things leak.
fn in_child(name: &str, test: impl FnOnce(&Guest)) {
    if child::is_here() {
        return without_checks(|guest| {
            test(guest);
            assert_eq!(guest.instance().validation_messages(), [""; 0]);
        });
    }
    in_guest(|_| {
        if sw_sync::is_there() {
            let name = format!("vulkan::unfinished::{name}");
            Child::start(&name, &[]).assert_success(PATIENCE);
        }
    });
}

/// Commands that use an image of a buffer, submitted to be executed when the timeline is at 1. All
/// but the buffer has been dropped.
fn leave_work(vulkan: &Device, guest: &Guest, timeline: &Timeline) {
    let image = vulkan
        .import_image(&buffer_on(&guest.vgem()), Use::Source)
        .unwrap();
    let fence = timeline.fence(1);
    let fence = Semaphore::from_sync_file(vulkan, Some(fence)).unwrap();
    let mut commands = Commands::new(vulkan).unwrap();
    let transfers = [Transfer::image(&image, Use::Source)];
    // SAFETY: the image is of this device, and nobody else uses the semaphore.
    unsafe {
        commands
            .record(|_, buffer| {
                acquire(buffer, &transfers);
                release(buffer, &transfers);
            })
            .unwrap();
        commands.submit_with(&[Point::Binary(fence)], &[]).unwrap();
    }
    drop(commands);
}

#[test]
fn the_end_of_commands_has_a_deadline_and_what_they_use_is_not_destroyed() {
    let name = "the_end_of_commands_has_a_deadline_and_what_they_use_is_not_destroyed";
    in_child(name, |guest| {
        let vulkan = guest.vulkan();
        let before = kernel_dma_bufs();
        let timeline = Timeline::new();
        leave_work(&vulkan, guest, &timeline);
        assert!(kernel_dma_bufs() > before, "the image has been destroyed");
        // Destroys neither the device nor the instance.
        drop(vulkan);
        assert!(kernel_dma_bufs() > before, "the image has been destroyed");
    });
}

#[test]
fn what_was_kept_for_late_work_is_destroyed_after_its_end() {
    let name = "what_was_kept_for_late_work_is_destroyed_after_its_end";
    in_child(name, |guest| {
        let vulkan = guest.vulkan();
        let (before, timeline) = (kernel_dma_bufs(), Timeline::new());
        leave_work(&vulkan, guest, &timeline);
        assert!(kernel_dma_bufs() > before, "the image has been destroyed");
        timeline.advance(1);
        // lavapipe's queue needs a moment to see it. The end of any object looks for it.
        while kernel_dma_bufs() > before {
            std::thread::sleep(Duration::from_millis(10));
            drop(Semaphore::new(&vulkan).unwrap());
        }
    });
}
