//! What venus on virtio-gpu must not be given.

use std::time::Duration;

use primeshare::alloc::{Allocator, Dumb, Request, Usage};
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Options};
use primeshare::device::{Node, enumerate, key_of};
use primeshare::gbm::Gbm;
use primeshare::negotiate::{self, Feedback, Tranche, TrancheFlags, Wanted, negotiate};
use primeshare::sync::{Access, implicit};
use primeshare::vk::ash::vk::BufferUsageFlags;
use primeshare::vk::{Commands, Error, Semaphore, Use};
use primeshare::{ErrorKind, Fourcc, Modifier};

use super::{VENUS, environment};
use crate::child::{self, Child};
use crate::fences::busy::Busy;
use crate::gl::{SIZE, picture};
use crate::support::{Guest, buffer_on, can_run, in_guest, without_checks};

const PATIENCE: Duration = Duration::from_secs(300);

/// A test by venus, in a process of its own, since Mesa may end it.
fn by_venus(name: &str, test: impl FnOnce(&Guest)) {
    if child::is_here() {
        return without_checks(test);
    }
    in_guest(|guest| {
        if can_run(guest.has_gpu(), "the guest gpu") {
            let name = format!("drivers::venus::{name}");
            Child::start(&name, &environment("venus", &[VENUS])).assert_success(PATIENCE);
        }
    });
}

#[test]
fn a_classic_resource_is_refused_before_venus_sees_it() {
    let name = "a_classic_resource_is_refused_before_venus_sees_it";
    by_venus(name, |guest| {
        let gpu = guest.nth("virtio_gpu", 0);
        let dumb = Dumb::new(&gpu)
            .allocate(&Request::new(SIZE, SIZE, Fourcc::XRGB8888))
            .unwrap();
        let venus = guest.vulkan();
        for buffer in [picture(&gpu), dumb] {
            let image = venus.import_image(&buffer, Use::Source).unwrap_err();
            let usage = BufferUsageFlags::TRANSFER_SRC;
            let bytes = venus.import_buffer(&buffer, usage).unwrap_err();
            for error in [image, bytes] {
                let refused = matches!(error, Error::ClassicResource { .. });
                assert!(refused, "{error}");
                assert_ne!(error.kind(), ErrorKind::Transient);
            }
        }
    });
}

/// venus would wait for the sync file while it submits.
#[test]
fn a_pending_sync_file_is_refused_instead_of_being_waited_for() {
    let name = "a_pending_sync_file_is_refused_instead_of_being_waited_for";
    by_venus(name, |guest| {
        let (venus, vgem) = (guest.vulkan(), guest.vgem());
        assert!(!venus.takes_pending_sync_files());
        let buffer = buffer_on(&vgem);
        let fence = Busy::new(&vgem, &buffer, Access::Write);
        let file = || implicit::export_sync_file(&buffer, Access::Read).unwrap();
        let refused = Semaphore::from_sync_file(&venus, Some(file())).unwrap_err();
        assert!(
            matches!(refused, Error::PendingSyncFile { .. }),
            "{refused}"
        );
        let mut commands = Commands::new(&venus).unwrap();
        // SAFETY: nothing is recorded.
        unsafe {
            commands.record(|_, _| {}).unwrap();
            let refused = commands.submit_after([file()]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
            assert!(!file().is_signalled().unwrap(), "waited for it");
            fence.end();
            commands.submit_after([file()]).unwrap();
        }
        commands.wait(PATIENCE).unwrap();
    });
}

/// Trials import what venus must not be given.
#[test]
fn a_trial_does_not_end_the_program() {
    by_venus("a_trial_does_not_end_the_program", |guest| {
        let (gpu, display) = (guest.nth("virtio_gpu", 0), guest.vkms());
        let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
        let allocate = |device| Dumb::new(device).allocate(&request).unwrap();
        let (source, destination) = (allocate(&gpu), allocate(&display));
        let venus = guest.vulkan();
        let from = BlitDevice::new(&gpu, Some(venus.physical()));
        let blitter =
            Blitter::new(from, BlitDevice::new(&display, None), &Options::default()).unwrap();
        let fence = blitter
            .blit(&source, &destination, &BlitInfo::default())
            .unwrap();
        fence.wait(PATIENCE).unwrap();
    });
}

#[test]
fn a_gpu_is_one_device_to_vulkan_to_gbm_and_to_whoever_has_either_node() {
    let name = "a_gpu_is_one_device_to_vulkan_to_gbm_and_to_whoever_has_either_node";
    by_venus(name, |guest| {
        let gpu = guest.nth("virtio_gpu", 0);
        let key = Some(gpu.key().unwrap());
        let venus = guest.vulkan().endpoint(negotiate::Usage::RENDER).unwrap();
        let pairs = [(Fourcc::XRGB8888, Modifier::INVALID)];
        let gbm = Gbm::new(&gpu).unwrap();
        let gbm = gbm.endpoint(Usage::RENDER, pairs).unwrap();
        assert_eq!((venus.device, gbm.device), (key, key));
        let nodes = enumerate().unwrap().into_iter();
        let own = nodes.filter(|node| node.bus == gpu.node().bus);
        let tranche = |node: Node| Tranche::new(node.id.dev_t(), TrancheFlags::SAMPLING, pairs);
        let told = Feedback::new(own.map(tranche)).main_device(gpu.node().id.dev_t());
        assert_eq!(told.tranches.len(), 2, "a primary and a render node");
        for tranche in told.endpoints("compositor", |number| key_of(number).ok()) {
            let agreement = negotiate(&[&gbm, &tranche], &Wanted::new(SIZE, SIZE));
            assert_eq!(agreement.best().unwrap().modifiers, [Modifier::INVALID]);
        }
    });
}
