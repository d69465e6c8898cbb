//! Devices that are removed while copies to their buffers are under way. Each copy ends with a frame or an
//! error that says why, nothing is left behind, and the next device works.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use primeshare::alloc::{Allocator, Dumb};
use primeshare::blit::{BlitInfo, Blitter, Failure, Options, StagingSource, Strategy};
use primeshare::{Device, DmaBuf, Fourcc, Request};

use super::{PATIENCE, assert_shows, blit, blitter_by, forced, two_gpus, unlike, write};
use crate::support::{Held, buffer_on, in_guest, scale};
use crate::vkms::{self, Vkms};

/// What became of frames.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    frames: usize,
    failures: BTreeMap<String, usize>,
}

impl Outcomes {
    pub(crate) fn add(&mut self, others: Self) {
        self.frames += others.frames;
        for (failure, count) in others.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }
}

/// Copies to buffers of a device, several at a time, and now and then to new ones. `remove` takes the device
/// away after some frames, and some more frames follow. What the memory shows then is only known if it is
/// system memory.
pub(crate) fn copy_while(
    blitter: &Blitter,
    source: &DmaBuf,
    device: &Device,
    frames_before: usize,
    in_system_memory: bool,
    remove: impl FnOnce(),
) -> Outcomes {
    let (removed, end) = (AtomicBool::new(false), AtomicBool::new(false));
    let (made, rounds) = mpsc::channel();
    let destinations = [(); 3].map(|()| buffer_on(device));
    let is_sure = || in_system_memory || !removed.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let copies = scope.spawn(|| {
            let allocator = Dumb::new(device);
            copy_until(
                &end,
                blitter,
                source,
                destinations,
                &allocator,
                &is_sure,
                &made,
            )
        });
        let wait_for_rounds = |count| rounds.iter().take(count).for_each(drop);
        wait_for_rounds(frames_before);
        removed.store(true, Ordering::SeqCst);
        remove();
        wait_for_rounds(8);
        end.store(true, Ordering::SeqCst);
        copies.join().unwrap()
    })
}

fn copy_until(
    end: &AtomicBool,
    blitter: &Blitter,
    source: &DmaBuf,
    mut destinations: [DmaBuf; 3],
    allocator: &Dumb,
    is_sure: &dyn Fn() -> bool,
    made: &Sender<()>,
) -> Outcomes {
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    let mut outcomes = Outcomes::default();
    let mut seed = 0_u8;
    while !end.load(Ordering::SeqCst) {
        seed = seed.wrapping_add(1);
        write(source, seed);
        let start = |to: &DmaBuf| blitter.blit(source, to, &BlitInfo::default()).unwrap();
        let fences = destinations.each_ref().map(start);
        for (fence, destination) in fences.iter().zip(&destinations) {
            match fence.wait(PATIENCE) {
                Ok(()) => {
                    let unlike = unlike(destination, seed);
                    assert!(unlike.is_none() || !is_sure(), "{unlike:?}");
                    outcomes.frames += 1;
                }
                Err(Failure::TimedOut(_)) => panic!("a copy hangs"),
                Err(failure) => {
                    *outcomes.failures.entry(failure.to_string()).or_default() += 1;
                }
            }
        }
        // A device that is lost gives no more.
        if let Ok(fresh) = allocator.allocate(&request) {
            destinations[usize::from(seed) % 3] = fresh;
        }
        // At the end nobody receives this any more.
        let _ = made.send(());
    }
    outcomes
}

#[test]
fn a_destination_that_is_removed_in_mid_traffic_costs_nothing_but_its_frames() {
    in_guest(|guest| {
        if !vkms::can_be_plugged() {
            return;
        }
        let plans = [
            Options::default(),
            forced(Strategy::Cpu),
            forced(Strategy::Push),
            forced(Strategy::Pull),
            forced(Strategy::PushBytes),
            forced(Strategy::Staged(StagingSource::Destination)),
        ];
        let vgem = guest.vgem();
        let vkms = Vkms::new("blitted");
        let gpus = two_gpus(guest);
        let source = buffer_on(&vgem);
        // The validation layer starts threads of its own with the first submissions, which have the
        // name of the thread that makes them.
        for strategy in [Strategy::Push, Strategy::Pull] {
            let blitter = blitter_by(&gpus, &vgem, &guest.vkms(), &forced(strategy));
            blit(&blitter, &source, &buffer_on(&guest.vkms()), &[], &[]).unwrap();
        }
        let before = Held::settled();
        let mut outcomes = Outcomes::default();
        for (round, plan) in plans.iter().cycle().take(scale(6, 100)).enumerate() {
            vkms.plug();
            let device = Device::open(vkms.node().path).unwrap();
            let blitter = blitter_by(&gpus, &vgem, &device, plan);
            let frames_before = round % 7;
            outcomes.add(copy_while(
                &blitter,
                &source,
                &device,
                frames_before,
                true,
                || vkms.unplug(),
            ));
            drop(blitter);
            let stats = device.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0), "{device}");
            drop(device);

            vkms.plug();
            let device = Device::open(vkms.node().path).unwrap();
            let blitter = blitter_by(&gpus, &vgem, &device, plan);
            let destination = buffer_on(&device);
            for seed in 100..105 {
                write(&source, seed);
                blit(&blitter, &source, &destination, &[], &[]).unwrap();
                assert_shows(&destination, seed, "on the device plugged in again");
            }
            drop((blitter, destination, device));
            vkms.unplug();
            before.assert_no_more("after an unplug");
        }
        println!("{outcomes:?}");
        assert!(outcomes.frames > 0);
    });
}
