//! Trials of strategies harm nobody, and what they find out is kept.

use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use primeshare::DmaBuf;
use primeshare::blit::{
    BlitDevice, BlitInfo, Blitter, Failure, HeldBack, Outcome, Push, SavedError, Strategy, Verdict,
};
use primeshare::vk::{self, Commands};

use super::failures::{Faults, gpu, imported, with_late_failures};
use super::{PATIENCE, assert_shows, blit, blitter_by, forced, patient, settle, two_gpus, write};
use crate::support::{buffer_on, in_guest};

fn inode(buffer: &DmaBuf) -> u64 {
    fstat(buffer.objects()[0].as_fd()).unwrap().st_ino
}

fn is_lost(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Failed(Failure::Vulkan(error))) if error.is_device_lost())
}

#[test]
fn trials_import_nobodys_buffer_and_neither_does_a_verdict() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let _faults = Faults::none();
        let gpus = [(); 2].map(|()| gpu(guest, with_late_failures));
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let options = patient().push(Push::Freely);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &options);
        imported();
        let info = BlitInfo::default();
        let verdict = blitter.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        assert!(verdict.settled, "{verdict}");
        let all = imported();
        assert!(!all.is_empty(), "private buffers were imported");
        blitter.verdict(&from, &to, &info).unwrap();
        assert!(imported().is_empty());
        for buffer in [&from, &to] {
            assert!(!all.contains(&inode(buffer)), "{verdict}");
        }
    });
}

#[test]
fn a_trial_that_loses_its_device_costs_the_program_neither_its_device_nor_a_frame() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        // Whatever is submitted on a device that is made of this is lost.
        let faults = Faults::none();
        faults.submissions(0, i64::MAX);
        let physical = gpu(guest, with_late_failures);
        let own = guest.vulkan();
        let family = own.queue_family();
        let host = vk::Host::new(physical, own.raw().clone(), &[], family);
        // SAFETY: the program's device outlives what is made of it here.
        let host = unsafe { vk::Device::wrap(host) };
        let source = BlitDevice::new(&vgem, None);
        let destination = BlitDevice::with_host(&vkms, &host);
        let blitter = Blitter::new(source, destination, &patient()).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let verdict = settle(&blitter, &from, &to);
        println!("{verdict}");
        assert_eq!(verdict.chosen, Some(Strategy::Cpu), "{verdict}");
        assert!(is_lost(verdict.outcome(Strategy::Pull)), "{verdict}");
        assert_eq!(blitter.statistics().failed, 0);
        drop((blitter, host));
        faults.clear();
        let mut commands = Commands::new(&own).unwrap();
        // SAFETY: nothing is recorded.
        unsafe {
            commands.record(|_, _| ()).unwrap();
            commands.submit().unwrap();
        }
        commands.wait(PATIENCE).unwrap();
    });
}

/// As with NVIDIA's LINEAR buffers on AMD: the import succeeds, and the submission loses the device.
#[test]
fn what_loses_its_device_in_a_trial_is_given_up_and_the_next_is_not_condemned() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        // The destination's GPU poisons its buffer, and then copies.
        let faults = Faults::none();
        faults.submissions(1, 1);
        let gpu = gpu(guest, with_late_failures);
        let sides = (
            BlitDevice::new(&vgem, None),
            BlitDevice::new(&vkms, Some(&gpu)),
        );
        let options = patient().strategies([Strategy::Pull, Strategy::PullBytes, Strategy::Cpu]);
        let blitter = Blitter::new(sides.0, sides.1, &options).unwrap();
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let verdict = settle(&blitter, &from, &to);
        println!("{verdict}");
        assert!(is_lost(verdict.outcome(Strategy::Pull)), "{verdict}");
        let bytes = verdict.outcome(Strategy::PullBytes);
        assert!(
            matches!(bytes, Some(Outcome::Works { verified: true, .. })),
            "{verdict}"
        );
        faults.clear();
        blitter.measure_again();
        let verdict = settle(&blitter, &from, &to);
        assert!(!is_lost(verdict.outcome(Strategy::Pull)), "{verdict}");
    });
}

#[test]
fn what_is_known_is_shared_and_saved() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let first = blitter_by(&gpus, &vgem, &vkms, &patient());
        let info = BlitInfo::default();
        first.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        let second = blitter_by(&gpus, &vgem, &vkms, &patient());
        let verdict = second.verdict(&from, &to, &info).unwrap();
        assert!(verdict.settled, "{verdict}");
        let saved = first.save_records();
        drop((first, second));
        let next = blitter_by(&gpus, &vgem, &vkms, &patient());
        assert_eq!(next.verdict(&from, &to, &info), None);
        next.load_records(&saved).unwrap();
        let loaded = next.verdict(&from, &to, &info).unwrap();
        assert!(loaded.settled, "{loaded}");
        // Two of them may be so close that another one is chosen.
        assert!(loaded.chosen.is_some(), "{loaded}");
        for &strategy in Strategy::ALL {
            let works = |verdict: &Verdict| {
                matches!(
                    verdict.outcome(strategy),
                    Some(Outcome::Works { verified: true, .. })
                )
            };
            assert!(works(&loaded) && works(&verdict), "{loaded}");
        }
        write(&from, 77);
        blit(&next, &from, &to, &[], &[]).unwrap();
        assert_shows(&to, 77, "by what was known");
        let other = blitter_by(&gpus, &vkms, &vgem, &patient());
        assert_eq!(other.load_records(&saved), Err(SavedError::OtherDevices));
    });
}

#[test]
fn a_verdict_says_which_strategies_its_own_blitter_may_not_use() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let info = BlitInfo::default();
        let all = blitter_by(&gpus, &vgem, &vkms, &patient());
        let verdict = all.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        let push = |verdict: &Verdict| {
            let mut attempts = verdict.attempts.iter();
            let push = attempts.find(|attempt| attempt.strategy == Strategy::Push);
            push.and_then(|attempt| attempt.held_back)
        };
        assert_eq!(push(&verdict), Some(HeldBack::LastResort), "{verdict}");
        // What works is known of the other blitter.
        let one = blitter_by(&gpus, &vgem, &vkms, &forced(Strategy::Cpu));
        let verdict = one.verdict(&from, &to, &info).unwrap();
        println!("{verdict}");
        assert_eq!(verdict.chosen, Some(Strategy::Cpu));
        for attempt in &verdict.attempts {
            let wanted = (attempt.strategy != Strategy::Cpu).then_some(HeldBack::NotAllowed);
            assert_eq!(attempt.held_back, wanted, "{verdict}");
        }
        drop((all, one));
        // Nothing is known, and one strategy is tried.
        let alone = blitter_by(&gpus, &vgem, &vkms, &forced(Strategy::Cpu));
        let verdict = alone.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        for attempt in &verdict.attempts {
            let is_forbidden = attempt.outcome == Outcome::NotAllowed;
            assert_eq!(is_forbidden, attempt.strategy != Strategy::Cpu, "{verdict}");
        }
    });
}

/// Nothing that is made privately is like it, so it is read, and nothing is written to anybody's buffer.
#[test]
fn a_source_of_a_foreign_exporter_is_only_read() {
    in_guest(|guest| {
        use primeshare::alloc::Udmabuf;
        use primeshare::{Allocator, Fourcc, Request};
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let _faults = Faults::none();
        let gpus = [(); 2].map(|()| gpu(guest, with_late_failures));
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        let from = Udmabuf::open().unwrap().allocate(&request).unwrap();
        let to = buffer_on(&vkms);
        write(&from, 5);
        write(&to, 6);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &patient());
        imported();
        let info = BlitInfo::default();
        let verdict = blitter.settle_wait(&from, &to, &info, PATIENCE).unwrap();
        println!("{verdict}");
        assert_shows(&from, 5, "the source is as it was");
        assert_shows(&to, 6, "the destination is as it was");
        assert!(!imported().contains(&inode(&to)), "{verdict}");
        blit(&blitter, &from, &to, &[], &[]).unwrap();
        assert_shows(&to, 5, "the picture");
    });
}
