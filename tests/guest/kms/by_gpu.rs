//! Frames that a GPU copies for a screen. The imitated GPU of [`Hardware`] takes a copy before its fence has come, and
//! makes it after.

use std::os::fd::AsFd;
use std::time::Duration;

use primeshare::Device;
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Scaling, Strategy, SyncFiles};
use primeshare::kms::{Event, PresentInfo, Way};

use super::presenting::{Loop, frame, greys};
use super::{assert_all, wait_readable};
use crate::blit::forced;
use crate::blit::ring::Hardware;
use crate::support::{PATIENCE, give_back_memory, in_guest};
use crate::vulkan::fences::Gate;

/// A presenter that has its frames copied by the GPU, which has passed its trial for frames of half the screen's size.
fn by_gpu(hardware: &Hardware<'_>, source: &Device, screen: &Device) -> (Loop, (u32, u32)) {
    give_back_memory();
    let gpu = hardware.gpu();
    let options = forced(Strategy::Pull).sync_files(SyncFiles::Hardware);
    let program = Loop::with(screen, |screen| {
        let (from, to) = (
            BlitDevice::new(source, None),
            BlitDevice::new(screen, Some(&gpu)),
        );
        Blitter::new(from, to, &options).unwrap()
    });
    let size = program.size();
    let halves = (size.0 / 2, size.1 / 2);
    let models = [(source, halves), (screen, size)];
    let [from, to] = models.map(|(device, size)| frame(device, size, primeshare::Fourcc::XRGB8888));
    let info = BlitInfo::default().scaling(Some(Scaling::whole(halves, size)));
    let verdict = program
        .presenter
        .blitter()
        .settle_wait(&from, &to, &info, PATIENCE)
        .unwrap();
    assert_eq!(verdict.chosen, Some(Strategy::Pull), "{verdict}");
    (program, halves)
}

#[test]
fn a_copy_is_with_the_gpu_and_with_the_screen_before_its_fence_has_come() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let (mut program, size) = by_gpu(&hardware, &vgem, &vkms);
        let [before, after] = greys(&vgem, size);
        for _ in 0..3 {
            program.show(&before, &PresentInfo::default());
            assert_all(&program.picture(), [1; 3]);
            let (gate, fence) = Gate::new(&vgem);
            let info = PresentInfo::default().fence(fence.as_fd());
            program.presenter.present(&after, &info).unwrap();
            assert_eq!(hardware.on_rings(), 1, "the GPU has the copy");
            // The screen has the frame with the copy's sync file, and waits for it without the program.
            assert!(program.presenter.output().is_pending());
            assert!(program.presenter.is_ready());
            wait_readable(&program.program.card, Duration::from_millis(40));
            assert!(program.program.card.read_events().unwrap().is_empty());
            gate.open();
            match &program.events()[..] {
                [Event::Shown { way, .. }] => assert!(matches!(way, Way::Copied(_)), "{way:?}"),
                events => panic!("{events:?}"),
            }
            assert_all(&program.picture(), [2; 3]);
        }
    });
}

#[test]
fn a_frame_with_a_deadline_is_not_handed_to_the_gpu_before_its_fence_has_come() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let hardware = Hardware::new(guest);
        let (mut program, size) = by_gpu(&hardware, &vgem, &vkms);
        let [before, late, after] = greys(&vgem, size);
        program.show(&before, &PresentInfo::default());
        let (gate, fence) = Gate::new(&vgem);
        program.show_late(&late, fence.as_fd());
        assert_eq!(hardware.on_rings(), 0);
        assert_all(&program.picture(), [1; 3]);
        // Frames after it are copied as ever.
        program.show(&after, &PresentInfo::default());
        assert_all(&program.picture(), [3; 3]);
        gate.open();
        // And one whose fence comes in time.
        let (gate, fence) = Gate::new(&vgem);
        let info = PresentInfo::default().fence(fence.as_fd());
        let info = info.deadline(std::time::Instant::now() + PATIENCE);
        program.presenter.present(&late, &info).unwrap();
        assert!(!program.presenter.is_ready());
        gate.open();
        assert!(matches!(&program.events()[..], [Event::Shown { .. }]));
        assert_all(&program.picture(), [2; 3]);
    });
}
