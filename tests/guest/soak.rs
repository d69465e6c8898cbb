//! Much traffic for a long time. `cargo xtask soak` runs these tests at their full length, `cargo test` runs
//! them shortly. Nothing may be left behind. If the kernel complains, the guest's runner fails the run.

use std::thread;

use primeshare::Device;
use primeshare::gem::ImportOrigin;

use crate::support::{buffer_on, in_guest, scale};

const THREADS: usize = 8;

/// Runs `work` on all threads, `total` times together.
fn on_all_threads(total: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let work = &work;
            scope.spawn(move || (0..total / THREADS).for_each(|round| work(thread + round)));
        }
    });
}

fn assert_nothing_left(device: &Device) {
    let stats = device.stats();
    println!("{device}: {stats:?}");
    assert_eq!((stats.handles, stats.failed_closes), (0, 0));
}

#[test]
fn imports_and_drops_over_eight_threads_and_four_buffers() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffers = [(); 4].map(|()| buffer_on(&vgem));
        on_all_threads(scale(20_000, 5_000_000), |number| {
            let buffer = &buffers[number % buffers.len()];
            let imported = match number % 3 {
                0 => vkms.import_fd(buffer.plane_fd(0).unwrap()).unwrap().0,
                _ => vkms.import(buffer).unwrap().object().clone(),
            };
            drop(imported);
        });
        drop(buffers);
        assert_nothing_left(&vkms);
        assert_nothing_left(&vgem);
    });
}

#[test]
fn exports_meet_closes_over_eight_threads_and_four_buffers() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffers = [(); 4].map(|()| buffer_on(&vgem));
        on_all_threads(scale(8_000, 1_000_000), |number| {
            let buffer = &buffers[number % buffers.len()];
            let imported = vkms.import(buffer).unwrap();
            let (fd, id) = imported.object().export().unwrap();
            // The fd comes back by another way while others drop and close.
            drop(imported);
            assert_eq!(id, buffer.id());
            let (home, found) = vgem.import_fd(&fd).unwrap();
            assert_eq!(found, ImportOrigin::SelfImport);
            drop((fd, home));
        });
        drop(buffers);
        assert_nothing_left(&vkms);
        assert_nothing_left(&vgem);
    });
}
