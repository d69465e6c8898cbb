//! Threads that race on two CPUs. On the single CPU of the compatibility guest they may never meet, so only
//! what has to hold in any case is asserted there.

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use primeshare::Device;

use crate::support::{buffer_on, in_guest};

/// Runs `work` on `threads` threads, together at least the first number of times, and then until `enough` or
/// until the last number of times. Gives how often it was run.
fn hammer(
    threads: usize,
    times: RangeInclusive<u64>,
    enough: impl Fn() -> bool + Sync,
    work: impl Fn(usize) + Sync,
) -> u64 {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (stop, rounds) = (&stop, &rounds);
            let (times, enough, work) = (&times, &enough, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work(thread);
                    let done = rounds.fetch_add(1, Ordering::Relaxed) + 1;
                    // Asked for now and then only, since asking may disturb the race.
                    let ask = done >= *times.start() && done % 100 == 0;
                    if done >= *times.end() || ask && enough() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    rounds.into_inner()
}

#[test]
fn an_import_meets_the_last_drop() {
    in_guest(|guest| {
        let cpus = thread::available_parallelism().unwrap().get();
        let wanted = if guest.is_compat() { 1 } else { 2 };
        assert!(cpus >= wanted, "{wanted} CPUs wanted, there are {cpus}");
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (buffer, other) = (buffer_on(&vgem), buffer_on(&vgem));
        let race = |thread| {
            // Two threads take and drop the same buffer: the last drop of one meets the import of
            // the other all the time. The third keeps them waiting at the table's lock, between
            // the count's zero and the close, with ioctls for another buffer.
            let (buffer, fd) = match thread {
                0 => (&other, other.plane_fd(0).unwrap()),
                _ => (&buffer, buffer.plane_fd(0).unwrap()),
            };
            let object = match thread {
                1 => vkms.import(buffer).unwrap().object().clone(),
                _ => vkms.import_fd(fd).unwrap().0,
            };
            assert_eq!(object.export().unwrap().1, buffer.id(), "a closed handle");
        };
        // A busy host gives the guest few chances to switch threads at the right place: seen are
        // some tens of thousands of rounds. Where there is one CPU it may never happen.
        let one_cpu = guest.is_compat();
        let met = || vkms.stats().resurrected > 0 || one_cpu;
        let rounds = hammer(3, 20_000..=2_000_000, met, race);
        let stats = vkms.stats();
        println!("{rounds} rounds: {stats:?}");
        assert_eq!((stats.handles, stats.failed_closes), (0, 0));
        assert_eq!(stats.imports, stats.closes);
        assert!(stats.hits > 0 && stats.imports > 1, "no race: {stats:?}");
        assert!(
            stats.resurrected > 0 || guest.is_compat(),
            "no import met a last drop: {stats:?}"
        );
    });
}

#[test]
fn a_self_import_meets_the_drop_of_the_exporter() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let rounds = hammer(
            2,
            1_000..=1_000,
            || true,
            |_| {
                let buffer = buffer_on(&vgem);
                let fd = buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| drop(buffer));
                    let (object, _) = vgem.import_fd(&fd).unwrap();
                    object.export().unwrap();
                });
            },
        );
        let stats = vgem.stats();
        println!("{rounds} rounds: {stats:?}");
        assert_eq!((stats.handles, stats.failed_closes), (0, 0));
        // Created ones and those imported after the exporter's handle had gone.
        assert_eq!(stats.closes, rounds + stats.imports);
    });
}

#[test]
fn devices_made_of_one_file_description_at_once_have_one_table() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let file = vgem.as_fd().try_clone_to_owned().unwrap();
        drop(vgem);
        let device = || Device::from_fd(file.try_clone().unwrap()).unwrap();
        for _ in 0..300 {
            // Two come while the last of those before goes.
            let (old, start) = (device(), Barrier::new(3));
            thread::scope(|scope| {
                let make = || {
                    start.wait();
                    device()
                };
                let new = [scope.spawn(make), scope.spawn(make)];
                start.wait();
                drop(old);
                let [one, other] = new.map(|thread| thread.join().unwrap());
                assert!(one.shares_handles_with(&other));
            });
        }
    });
}
