//! Fences in and out. What is waited for is anything that polls readable when it is time, as sync
//! files do; here a pipe stands for one where nothing else matters.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use primeshare::blit::{Error, Failure, Options, Strategy};

use super::{PATIENCE, assert_shows, blitter, forced, read, write};
use crate::support::{buffer_on, in_guest};

#[test]
fn nothing_is_copied_before_what_it_waits_for() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for strategy in Strategy::ALL {
            let blitter = blitter(guest, &vgem, &vkms, &forced(strategy));
            let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
            write(&source, 1);
            write(&destination, 2);
            let before = read(&destination);
            let (reader, mut writer) = std::io::pipe().unwrap();
            let fence = blitter
                .blit(&source, &destination, &[], &[reader.as_fd()])
                .unwrap();
            drop(reader);
            let early = fence.wait(Duration::from_millis(30)).unwrap_err();
            assert!(matches!(early, Failure::TimedOut(_)), "{early}");
            assert!(!fence.is_done());
            assert!(read(&destination) == before, "{strategy}: copied too early");
            // The picture is finished only now.
            write(&source, 3);
            writer.write_all(b"!").unwrap();
            fence.wait(PATIENCE).unwrap();
            assert_shows(&destination, 3, strategy.name());
        }
    });
}

#[test]
fn a_fence_that_never_comes_is_an_error_and_the_next_copy_works() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let options = Options {
            patience: Duration::from_millis(200),
            ..Options::default()
        };
        let blitter = blitter(guest, &vgem, &vkms, &options);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        write(&source, 1);
        let (reader, _writer) = std::io::pipe().unwrap();
        let first = blitter.blit(&source, &destination, &[], &[reader.as_fd()]);
        let second = blitter.blit(&source, &destination, &[], &[]).unwrap();
        let failure = first.unwrap().wait(PATIENCE).unwrap_err();
        assert_eq!(failure, Failure::Deadline(options.patience));
        second.wait(PATIENCE).unwrap();
        assert_shows(&destination, 1, "after the failed one");
    });
}

#[test]
fn no_more_copies_are_taken_than_may_be_in_flight() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let options = Options {
            in_flight: 2,
            ..Options::default()
        };
        let blitter = blitter(guest, &vgem, &vkms, &options);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let (reader, writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let first = blitter.blit(&source, &destination, &[], &after).unwrap();
        let second = blitter.blit(&source, &destination, &[], &[]).unwrap();
        let third = blitter.blit(&source, &destination, &[], &[]).unwrap_err();
        assert_eq!(third, Error::Busy(2));
        // A pipe without a writer hangs up, which is the end of the wait too.
        drop(writer);
        first.wait(PATIENCE).unwrap();
        second.wait(PATIENCE).unwrap();
        let fence = blitter.blit(&source, &destination, &[], &[]).unwrap();
        fence.wait(PATIENCE).unwrap();
    });
}

#[test]
fn what_has_not_begun_is_cancelled_with_its_blitter() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let options = Options {
            patience: Duration::from_millis(300),
            ..Options::default()
        };
        let blitter = blitter(guest, &vgem, &vkms, &options);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let (reader, _writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let fences = [&after[..], &[]].map(|after| {
            let fence = blitter.blit(&source, &destination, &[], after);
            fence.unwrap()
        });
        drop(blitter);
        let results = fences.map(|fence| fence.result().unwrap().unwrap_err());
        assert!(
            matches!(results[0], Failure::Deadline(_) | Failure::Cancelled),
            "{results:?}"
        );
        assert_eq!(results[1], Failure::Cancelled);
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
            drop(blitter.blit(&source, &destination, &[], &[]).unwrap());
            let last = loop {
                match blitter.blit(&source, &destination, &[], &[]) {
                    Err(Error::Busy(_)) => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            last.wait(PATIENCE).unwrap();
            assert_shows(&destination, seed, "the last");
        }
    });
}
