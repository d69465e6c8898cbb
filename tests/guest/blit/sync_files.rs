//! Copies that are handed to the GPU at once, with sync files going in and coming out.
//!
//! lavapipe gives a copy's sync file when it is done, so what is asked for here is `Always`, and
//! the call that starts a copy waits for it.

use std::io::Write;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use primeshare::blit::{BlitInfo, Blitter, Error, Options, StagingSource, Strategy, SyncFiles};
use primeshare::sync::{Access, Status};
use primeshare::{Device, DmaBuf};

use super::{PATIENCE, after_fences, assert_shows, blitter, forced, read, settle, write};
use crate::fences::busy::Busy;
use crate::fences::sw_sync;
use crate::support::{Guest, buffer_on, in_guest};

fn explicit(strategy: Strategy) -> Options {
    forced(strategy).sync_files(SyncFiles::Always)
}

/// A blitter that has settled on a strategy, and buffers that it has copied between.
fn settled(guest: &Guest, devices: [&Device; 2], options: &Options) -> (Blitter, DmaBuf, DmaBuf) {
    let blitter = blitter(guest, devices[0], devices[1], options);
    let (source, destination) = (buffer_on(devices[0]), buffer_on(devices[1]));
    settle(&blitter, &source, &destination);
    (blitter, source, destination)
}

/// By one GPU, and by two.
const GPUS: [Strategy; 2] = [Strategy::Pull, Strategy::Staged(StagingSource::DmaHeap)];

#[test]
fn a_copy_by_gpus_has_a_sync_file() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let by_cpu = [Strategy::Cpu, Strategy::HostMemory];
        let by_gpus = Strategy::ALL.iter().copied();
        for strategy in by_gpus.filter(|strategy| !by_cpu.contains(strategy)) {
            let options = explicit(strategy);
            let (blitter, source, destination) = settled(guest, [&vgem, &vkms], &options);
            for seed in 100..120 {
                write(&source, seed);
                let fence = blitter
                    .blit(&source, &destination, &BlitInfo::default())
                    .unwrap();
                let file = fence.sync_file().expect("a sync file at once");
                file.wait(PATIENCE).unwrap();
                assert_eq!(file.status(), Ok(Status::Signalled));
                assert_shows(&destination, seed, strategy.name());
                fence.wait(PATIENCE).unwrap();
            }
        }
    });
}

#[test]
fn what_no_gpu_copies_has_none_and_arrives_all_the_same() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let pull = forced(Strategy::Pull);
        let processors = pull.clone().sync_files(SyncFiles::Hardware);
        let ways = [Strategy::Cpu, Strategy::HostMemory].map(explicit);
        let ways = ways.into_iter().chain([processors, pull]);
        for (round, options) in ways.enumerate() {
            let (blitter, source, destination) = settled(guest, [&vgem, &vkms], &options);
            let seed = 100 + round as u8;
            write(&source, seed);
            let fence = blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap();
            fence.wait(PATIENCE).unwrap();
            assert!(fence.sync_file().is_none(), "{options:?}");
            assert_shows(&destination, seed, "the picture");
        }
    });
}

#[test]
fn the_gpu_waits_for_the_sync_files_that_it_is_given() {
    if !sw_sync::is_there() {
        return;
    }
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for strategy in GPUS {
            let options = explicit(strategy);
            let (blitter, source, destination) = settled(guest, [&vgem, &vkms], &options);
            let before = read(&destination);
            let timeline = sw_sync::Timeline::new();
            let (one, two) = (timeline.fence(1), timeline.fence(2));
            let fence = thread::scope(|scope| {
                let after = [one.as_fd(), two.as_fd()];
                let (blitter, source, destination) = (&blitter, &source, &destination);
                let copy = scope.spawn(move || {
                    blitter
                        .blit(source, destination, &after_fences(&after))
                        .unwrap()
                });
                for _ in 0..2 {
                    thread::sleep(Duration::from_millis(30));
                    assert!(read(destination) == before, "copied too early");
                    // The picture is finished only with the second.
                    write(source, 103);
                    timeline.advance(1);
                }
                copy.join().unwrap()
            });
            assert!(fence.sync_file().is_some(), "the GPU has waited");
            fence.wait(PATIENCE).unwrap();
            assert_shows(&destination, 103, "after the fences");
        }
    });
}

#[test]
fn the_gpu_waits_for_the_fences_in_the_dma_bufs() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        // Somebody writes to the source, or reads the destination.
        let users = [
            ([&vgem, &vkms], Access::Write),
            ([&vkms, &vgem], Access::Read),
        ];
        let by_all = GPUS.into_iter().flat_map(|by| users.map(|user| (by, user)));
        for (strategy, (devices, access)) in by_all {
            let options = explicit(strategy);
            let (blitter, source, destination) = settled(guest, devices, &options);
            write(&source, 103);
            let of_vgem = match access {
                Access::Write | Access::ReadWrite => &source,
                Access::Read => &destination,
            };
            let user = Busy::new(&vgem, of_vgem, access);
            let fence = thread::scope(|scope| {
                let (blitter, source, destination) = (&blitter, &source, &destination);
                let copy = scope.spawn(|| {
                    blitter
                        .blit(source, destination, &BlitInfo::default())
                        .unwrap()
                });
                thread::sleep(Duration::from_millis(50));
                assert!(!copy.is_finished(), "lavapipe's copy waits for the fence");
                user.end();
                copy.join().unwrap()
            });
            assert!(fence.sync_file().is_some(), "the GPU has waited");
            fence.wait(PATIENCE).unwrap();
            assert_shows(&destination, 103, "after the fence");
        }
    });
}

#[test]
fn for_what_is_no_sync_file_the_thread_waits() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for strategy in GPUS {
            let options = explicit(strategy);
            let (blitter, source, destination) = settled(guest, [&vgem, &vkms], &options);
            let (reader, mut writer) = std::io::pipe().unwrap();
            let after = [reader.as_fd()];
            let first = blitter
                .blit(&source, &destination, &after_fences(&after))
                .unwrap();
            // What comes after it does not overtake it.
            let second = blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap();
            thread::sleep(Duration::from_millis(30));
            assert!(!first.is_done() && !second.is_done());
            write(&source, 103);
            writer.write_all(b"!").unwrap();
            first.wait(PATIENCE).unwrap();
            second.wait(PATIENCE).unwrap();
            assert_shows(&destination, 103, "after the pipe");
            let third = blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap();
            assert!(third.sync_file().is_some(), "at once again");
            third.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn copies_one_after_the_other_keep_their_order() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        for strategy in GPUS {
            let options = explicit(strategy);
            let (blitter, _, destination) = settled(guest, [&vgem, &vkms], &options);
            let sources = [(); 5].map(|()| buffer_on(&vgem));
            for round in 0..20_u8 {
                let mut last = None;
                for (index, source) in sources.iter().enumerate() {
                    write(source, round * 5 + index as u8);
                    last = loop {
                        match blitter.blit(source, &destination, &BlitInfo::default()) {
                            Err(Error::Busy(_)) => thread::yield_now(),
                            started => break Some(started.unwrap()),
                        }
                    };
                }
                last.unwrap().wait(PATIENCE).unwrap();
                assert_shows(&destination, round * 5 + 4, "the last of them");
            }
        }
    });
}
