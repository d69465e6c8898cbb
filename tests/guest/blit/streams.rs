//! Copies of different streams do not wait for each other.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use primeshare::blit::{BlitInfo, Blitter, Error, Strategy};
use primeshare::sync::{Stage, Syncobj, SyncobjSupport};

use super::{PATIENCE, after_fences, assert_shows, blit, blitter_by, forced, patient, settle};
use super::{two_gpus, write};
use crate::support::{buffer_on, in_guest, left_out};

#[test]
fn a_fence_that_never_comes_holds_back_its_own_stream_only() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        for strategy in [Strategy::Cpu, Strategy::Pull, Strategy::HostMemory] {
            let blitter = blitter_by(&gpus, &vgem, &vkms, &forced(strategy));
            let (held, held_to) = (buffer_on(&vgem), buffer_on(&vkms));
            let (free, free_to) = (buffer_on(&vgem), buffer_on(&vkms));
            settle(&blitter, &free, &free_to);
            let (reader, mut writer) = std::io::pipe().unwrap();
            write(&held, 1);
            write(&held_to, 2);
            let after = [reader.as_fd()];
            let never = blitter
                .blit(&held, &held_to, &after_fences(&after))
                .unwrap();
            for seed in 10..20 {
                write(&free, seed);
                blit(&blitter, &free, &free_to, &[], &[]).unwrap();
                assert_shows(&free_to, seed, strategy.name());
            }
            assert!(!never.is_done());
            assert_shows(&held_to, 2, "held back");
            writer.write_all(b"!").unwrap();
            never.wait(PATIENCE).unwrap();
            assert_shows(&held_to, 1, "let go");
        }
    });
}

#[test]
fn copies_of_one_stream_happen_in_their_order_whatever_their_buffers() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &patient());
        let (one, one_to) = (buffer_on(&vgem), buffer_on(&vkms));
        let (other, other_to) = (buffer_on(&vgem), buffer_on(&vkms));
        settle(&blitter, &one, &one_to);
        let stream = Some(blitter.stream());
        let (reader, writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let held = after_fences(&after).stream(stream);
        let behind = BlitInfo::default().stream(stream);
        let first = blitter.blit(&one, &one_to, &held).unwrap();
        let second = blitter.blit(&other, &other_to, &behind).unwrap();
        assert!(second.wait(Duration::from_millis(50)).is_err());
        assert!(!first.is_done() && !second.is_done());
        drop(writer);
        second.wait(PATIENCE).unwrap();
        assert!(first.is_done());
    });
}

#[test]
fn a_syncobj_point_is_signalled_when_the_copy_is_done() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let has_points = |device: &primeshare::Device| {
            Syncobj::support(device).unwrap() == SyncobjSupport::Timeline
        };
        let devices = match guest.in_qemu() {
            true => vec![guest.nth("virtio_gpu", 0)],
            false => vec![vgem.clone(), vkms.clone()],
        };
        let Some(device) = devices.into_iter().find(has_points) else {
            assert!(!guest.in_qemu(), "virtio-gpu has timelines");
            return left_out("a device with timelines of syncobjs");
        };
        let gpus = two_gpus(guest);
        let options = patient().in_flight(1);
        let blitter = blitter_by(&gpus, &vgem, &vkms, &options);
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let syncobj = Syncobj::new(&device).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let points = [(&syncobj, 7)];
        let info = after_fences(&after).signal(&points);
        let copy = blitter.blit(&from, &to, &info).unwrap();
        assert!(copy.wait(Duration::from_millis(20)).is_err());
        // A copy that is refused signals nothing.
        let refused = blitter.blit(&from, &to, &info).unwrap_err();
        assert_eq!(refused, Error::Busy(1));
        assert!(!syncobj.has_come(7, Stage::Signalled).unwrap());
        drop(writer);
        copy.wait(PATIENCE).unwrap();
        assert!(syncobj.has_come(7, Stage::Signalled).unwrap());
        let points = [(); 5].map(|()| (&syncobj, 8));
        let info = BlitInfo::default().signal(&points);
        let refused = blitter.blit(&from, &to, &info).unwrap_err();
        assert!(matches!(refused, Error::Signals { given: 5, .. }));
    });
}

#[test]
fn a_blitter_is_closed_by_a_deadline_and_what_it_has_not_done_is_cancelled() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gpus = two_gpus(guest);
        let blitter: Blitter = blitter_by(&gpus, &vgem, &vkms, &patient());
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        settle(&blitter, &from, &to);
        let (reader, _writer) = std::io::pipe().unwrap();
        let after = [reader.as_fd()];
        let never = blitter.blit(&from, &to, &after_fences(&after)).unwrap();
        blitter.close_wait(PATIENCE).unwrap();
        let ended = never.result().expect("it has ended");
        assert_eq!(ended, Err(primeshare::blit::Failure::Cancelled));
    });
}
