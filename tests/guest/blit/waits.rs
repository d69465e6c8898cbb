//! Fences that copies wait for, and fences of copies. They are those of sw_sync's timelines, whose sync files
//! are passed to copies and left in dma-bufs: lavapipe's own are signalled by the time one has them.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Completion, Error, Failure, Options};
use primeshare::sync::{Access, BufferMapping, Status, implicit};
use primeshare::{DmaBuf, Errno};

use super::{
    EACH_WAY, PATIENCE, after_fences, assert_shows, blit, blitter, blitter_by, draw, forced,
    patient, two_gpus, write,
};
use crate::fences::busy::Busy;
use crate::fences::sw_sync::{self, Timeline};
use crate::support::{Guest, buffer_on, in_guest};

/// Runs `check` with a blitter for each of [`EACH_WAY`](super::EACH_WAY), from vgem to vkms: once with a
/// blitter that has copied nothing yet, and once with one that is settled.
fn by_each_way(guest: &Guest, check: impl Fn(&str, &Blitter, [&DmaBuf; 2])) {
    let (vgem, vkms) = (guest.vgem(), guest.vkms());
    let gpus = two_gpus(guest);
    for strategy in EACH_WAY {
        let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        check(
            &format!("{strategy}, the first"),
            &blitter,
            [&source, &destination],
        );
        for _ in 0..5 {
            blit(&blitter, &source, &destination, &[], &[]).unwrap();
        }
        check(
            &format!("{strategy}, settled"),
            &blitter,
            [&source, &destination],
        );
    }
}

/// Fails unless the copy waits and the destination is unchanged.
fn assert_waits(copy: &Completion, destination: &DmaBuf, seed: u8, what: &str) {
    let early = copy.wait(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(early, Failure::TimedOut(_)), "{what}: {early}");
    assert!(!copy.is_done(), "{what}");
    assert_shows(destination, seed, &format!("{what}: copied too early"));
}

#[test]
fn nothing_is_copied_before_the_sync_file_that_it_waits_for() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        by_each_way(guest, |what, blitter, [source, destination]| {
            write(source, 1);
            write(destination, 2);
            let timeline = Timeline::new();
            let writer = timeline.fence(1);
            let after = [writer.as_fd()];
            let copy = blitter
                .blit(source, destination, &after_fences(&after))
                .unwrap();
            drop(writer);
            assert_waits(&copy, destination, 2, what);
            // The picture is finished only now.
            write(source, 3);
            timeline.advance(1);
            copy.wait(PATIENCE).unwrap();
            assert_shows(destination, 3, what);
        });
    });
}

#[test]
fn nothing_is_copied_before_a_device_has_written_the_source() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        by_each_way(guest, |what, blitter, [source, destination]| {
            write(destination, 2);
            // Begun before there is a fence, which it would wait for.
            let mut map = BufferMapping::new(source).unwrap();
            let mut access = map.begin_wait(Access::Write, PATIENCE).unwrap();
            draw(source, &mut access, 1);
            let writer = Busy::new(&vgem, source, Access::Write);
            let copy = blitter
                .blit(source, destination, &BlitInfo::default())
                .unwrap();
            assert_waits(&copy, destination, 2, what);
            draw(source, &mut access, 3);
            access.end().unwrap();
            writer.end();
            copy.wait(PATIENCE).unwrap();
            assert_shows(destination, 3, what);
        });
    });
}

#[test]
fn nothing_is_overwritten_while_a_device_reads_it() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        by_each_way(guest, |what, blitter, [source, destination]| {
            write(source, 1);
            write(destination, 2);
            let reader = Busy::new(&vgem, destination, Access::Read);
            let copy = blitter
                .blit(source, destination, &BlitInfo::default())
                .unwrap();
            assert_waits(&copy, destination, 2, what);
            reader.end();
            copy.wait(PATIENCE).unwrap();
            assert_shows(destination, 1, what);
        });
    });
}

#[test]
fn others_may_read_the_source_meanwhile() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        by_each_way(guest, |what, blitter, [source, destination]| {
            write(source, 1);
            write(destination, 2);
            let reader = Busy::new(&vgem, source, Access::Read);
            blit(blitter, source, destination, &[], &[]).unwrap();
            reader.end();
            assert_shows(destination, 1, what);
        });
    });
}

#[test]
fn a_fence_that_never_comes_is_an_error_in_time_and_the_next_copy_works() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let input_timeout = Duration::from_millis(200);
        let options = Options::default().input_timeout(input_timeout);
        let blitter = blitter(guest, &vgem, &vkms, &options);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let (other, next) = (buffer_on(&vgem), buffer_on(&vkms));
        let timeline = Timeline::new();
        let never = timeline.fence(1);
        // In a sync file, by a writer of the source, and by a reader of the destination.
        for (round, held) in [
            None,
            Some((&source, Access::Write)),
            Some((&destination, Access::Read)),
        ]
        .into_iter()
        .enumerate()
        {
            let seed = 10 * round as u8;
            write(&source, seed);
            write(&destination, seed + 1);
            write(&other, seed + 2);
            let fence = held.map(|(buffer, access)| Busy::new(&vgem, buffer, access));
            let after = match fence {
                None => vec![never.as_fd()],
                Some(_) => Vec::new(),
            };
            let begun = Instant::now();
            let copy = blitter
                .blit(&source, &destination, &after_fences(&after))
                .unwrap();
            let behind = blitter.blit(&other, &next, &BlitInfo::default()).unwrap();
            assert_eq!(copy.wait(PATIENCE), Err(Failure::Deadline(input_timeout)));
            // The fence never comes, so that only the deadline ends this.
            assert!(begun.elapsed() >= input_timeout);
            assert_shows(&destination, seed + 1, "untouched");
            behind.wait(PATIENCE).unwrap();
            assert_shows(&next, seed + 2, "behind it");
            if let Some(fence) = fence {
                fence.end();
            }
            blit(&blitter, &source, &destination, &[], &[]).unwrap();
            assert_shows(&destination, seed, "without the fence");
        }
    });
}

/// A fence of the kernel's says that its work has ended, with success or not. So, as a wait in the kernel
/// does, the blitter's wait ends with a failed fence, and the picture is copied as it is.
#[test]
fn a_fence_that_fails_is_waited_for_no_longer() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        for (seed, in_dma_buf) in [(1, false), (2, true)] {
            write(&source, seed);
            let timeline = Timeline::new();
            let writer = timeline.fence(1);
            let after = match in_dma_buf {
                false => vec![writer.as_fd()],
                true => {
                    implicit::import_sync_file(&source, &writer, Access::Write).unwrap();
                    Vec::new()
                }
            };
            let copy = blitter
                .blit(&source, &destination, &after_fences(&after))
                .unwrap();
            let early = copy.wait(Duration::from_millis(20)).unwrap_err();
            assert!(matches!(early, Failure::TimedOut(_)), "{early}");
            timeline.end();
            assert_eq!(writer.status(), Ok(Status::Failed(Errno::ENOENT)));
            copy.wait(PATIENCE).unwrap();
            assert_shows(&destination, seed, "the picture as it is");
        }
    });
}

/// A copy can wait for anything that becomes readable. Here it is a pipe, which is no fence of the kernel's.
#[test]
fn no_more_copies_are_taken_than_may_be_in_flight() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let options = patient().in_flight(2);
        let blitter = blitter(guest, &vgem, &vkms, &options);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let first = blitter
            .blit(&source, &destination, &after_fences(&after))
            .unwrap();
        let second = blitter
            .blit(&source, &destination, &after_fences(&after))
            .unwrap();
        let third = blitter
            .blit(&source, &destination, &BlitInfo::default())
            .unwrap_err();
        assert_eq!(third, Error::Busy(2));
        writer.write_all(b"!").unwrap();
        first.wait(PATIENCE).unwrap();
        second.wait(PATIENCE).unwrap();
        // A pipe without a writer hangs up, which is the end of the wait too.
        let (reader, writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let fence = blitter
            .blit(&source, &destination, &after_fences(&after))
            .unwrap();
        drop(writer);
        fence.wait(PATIENCE).unwrap();
    });
}

#[test]
fn what_waits_is_cancelled_with_its_blitter() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let held = Busy::new(&vgem, &source, Access::Write);
        let fences = [(); 2].map(|()| {
            blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap()
        });
        let early = fences[0].wait(Duration::from_millis(20));
        assert!(matches!(early, Err(Failure::TimedOut(_))), "{early:?}");
        // Were the fence waited for, its deadline would be what they fail of.
        drop(blitter);
        for fence in fences {
            assert_eq!(fence.result(), Some(Err(Failure::Cancelled)));
        }
        held.end();
    });
}

#[test]
fn a_fence_may_go_before_its_copy() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = blitter(guest, &vgem, &vkms, &Options::default());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        for seed in 0..60 {
            write(&source, seed);
            drop(
                blitter
                    .blit(&source, &destination, &BlitInfo::default())
                    .unwrap(),
            );
            let last = loop {
                match blitter.blit(&source, &destination, &BlitInfo::default()) {
                    Err(Error::Busy(_)) => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            last.wait(PATIENCE).unwrap();
            assert_shows(&destination, seed, "the last");
        }
    });
}

#[test]
fn a_blitter_for_no_copy_at_a_time_or_for_too_many_is_refused() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for given in [0, 65] {
            let sides = [&vgem, &vkms].map(|device| BlitDevice::new(device, None));
            let [from, to] = sides;
            let options = patient().in_flight(given);
            let refused = Blitter::new(from, to, &options).unwrap_err();
            assert_eq!(refused, Error::InFlight { given, most: 64 });
        }
    });
}
