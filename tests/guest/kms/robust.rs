//! What must not harm a screen: unplugging, a lack of fds, other code on the program's fd, a load.

use std::os::fd::AsFd;

use primeshare::alloc::{Allocator, Dumb};
use primeshare::kms::{CommitOptions, Error, FramebufferOptions, Layer, PresentInfo, Way};
use primeshare::{Device, Errno, ErrorKind, Fourcc, Request};

use super::presenting::{Loop, frame};
use super::{Program, assert_shown, picture, pictures};
use crate::faults::fds::with_room_for;
use crate::support::{in_guest, scale};
use crate::unplug::Slot;
use crate::vkms::{Vkms, can_be_plugged};

#[test]
fn a_screen_that_is_unplugged_in_the_middle_of_a_flip_leaves_nothing_behind() {
    in_guest(|guest| {
        if !can_be_plugged() {
            return;
        }
        let vgem = guest.vgem();
        for round in 0..scale(20, 100) {
            let slot = Vkms::new("flips");
            slot.plug();
            let device = Device::open(slot.node().path).unwrap();
            let program = Program::on(&device);
            let mut output = program.output();
            let frames = [1, 2].map(|_| frame(&vgem, output.mode().size(), Fourcc::XRGB8888));
            output
                .commit(&[Layer::new(&frames[0])], CommitOptions::default())
                .unwrap();
            if round % 2 == 0 {
                program.wait_for_flip(&mut output);
            }
            slot.unplug();
            match output.commit(&[Layer::new(&frames[1])], CommitOptions::default()) {
                Ok(_) | Err(Error::Pending | Error::Lost { .. }) => {}
                // vkms answers on (other drivers say ENODEV), but takes no connector that is gone.
                Err(error) => assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}"),
            }
        }
    });
}

#[test]
fn a_pci_screen_that_is_unplugged_in_the_middle_of_a_flip_is_lost_and_leaves_nothing_behind() {
    in_guest(|guest| {
        for slot in Slot::all(guest) {
            for _ in 0..scale(2, 34) {
                let device = slot.open();
                let program = Program::on(&device);
                let mut output = program.output();
                let dumb = Dumb::new(program.card.device());
                let (width, height) = output.mode().size();
                let request = Request::new(width, height, Fourcc::XRGB8888);
                let frame = dumb.allocate(&request).unwrap();
                output
                    .commit(&[Layer::new(&frame)], CommitOptions::default())
                    .unwrap();
                slot.remove();
                let layers = [Layer::new(&frame)];
                match output.commit(&layers, CommitOptions::default()) {
                    Err(Error::Pending | Error::Lost { .. }) => {}
                    other => panic!("{device}: {other:?}"),
                }
                assert!(
                    matches!(output.test(&layers), Err(Error::Lost { .. })),
                    "{device}"
                );
                drop((output, frame, dumb, program, device));
                slot.rescan();
            }
        }
    });
}

#[test]
fn handles_that_the_program_closes_on_its_own_fd_are_not_the_librarys() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let program = Program::on(&vkms);
        let mut output = program.output();
        let frames: [_; 2] = pictures(&vgem, output.mode().size());
        for frame in frames.iter().cycle().take(6) {
            let own = || {
                let fd = frame.objects()[0].as_fd();
                let imported = drm_ffi::gem::fd_to_handle(program.master.as_fd(), fd).unwrap();
                drm_ffi::gem::close(program.master.as_fd(), imported.handle).unwrap();
                // And once more, as programs do that count wrong.
                drm_ffi::gem::close(program.master.as_fd(), imported.handle).unwrap_err();
            };
            own();
            output
                .commit(&[Layer::new(frame)], CommitOptions::default())
                .unwrap();
            own();
            program.wait_for_flip(&mut output);
            assert_shown(&program.picture(&output), frame, "the frame");
        }
        assert_eq!(vkms.stats().failed_closes, 0);
        assert_eq!(program.card.device().stats().failed_closes, 0);
    });
}

#[test]
fn without_room_for_an_fd_a_frame_is_refused_for_the_moment_and_nothing_is_lost() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let program = Program::on(&vkms);
        let mut output = program.output();
        let frame = picture(&vgem, output.mode().size(), 1);
        let layers = [Layer::new(&frame)];
        let options = CommitOptions::default().out_fence();
        let error = with_room_for(0, || output.commit(&layers, options).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(!output.is_pending());
        output.commit(&layers, options).unwrap();
        program.wait_for_flip(&mut output);
        let seen = with_room_for(0, || {
            primeshare::kms::capture::on_plane(&program.card, output.primary())
        });
        assert_eq!(seen.unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(program.on_screen(&output).unwrap().id(), frame.id());
    });
}

#[test]
fn direct_and_copied_frames_take_turns_under_load_and_each_is_shown_in_its_turn() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let mut program = Loop::new(&vgem, &vkms);
        let size = program.size();
        let mut recorder = program.recorder();
        let direct: Vec<_> = (0..3)
            .map(|_| frame(&vgem, size, Fourcc::XRGB8888))
            .collect();
        let halves = (size.0 / 2, size.1 / 2);
        let copied: Vec<_> = (0..3)
            .map(|_| frame(&vgem, halves, Fourcc::XRGB8888))
            .collect();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let is_stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_stopped() {
                        std::hint::spin_loop();
                    }
                });
            }
            let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for number in 0..scale(60, 1000) as u32 {
                    // In runs of different lengths.
                    let is_direct = number % 7 % 3 < 2;
                    let of = if is_direct { &direct } else { &copied };
                    let frame = &of[number as usize % 3];
                    // The number of the frame, in every pixel.
                    let colour = [number as u8, (number >> 8) as u8, 1];
                    super::paint(frame, colour);
                    let way = program.show(frame, &PresentInfo::default());
                    assert_eq!(way == Way::Direct, is_direct, "{way:?}");
                    super::assert_all(&recorder.picture(), colour);
                }
            }));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            shown.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}

#[test]
fn virtio_gpus_frames_are_copied_to_screens_that_refuse_them() {
    in_guest(|guest| {
        if !guest.in_qemu() || guest.has_gpu() {
            println!("left out: this guest has no screens that refuse memory");
            return;
        }
        let source = guest.nth("virtio_gpu", 0);
        for driver in ["bochs-drm", "qxl"] {
            let screen = guest.nth(driver, 0);
            let mut program = Loop::new(&source, &screen);
            let size = program.size();
            let frames: [_; 3] = pictures(&source, size);
            for frame in &frames {
                let options = FramebufferOptions::default();
                let framebuffers = program.program.card.framebuffers();
                assert!(framebuffers.get(frame, options).is_err());
                let way = program.show(frame, &PresentInfo::default());
                assert!(matches!(way, Way::Copied(_)), "{driver}: {way:?}");
                let shown = program
                    .program
                    .on_screen(program.presenter.output())
                    .unwrap();
                assert_shown(&crate::blit::read(&shown), frame, driver);
            }
        }
    });
}
