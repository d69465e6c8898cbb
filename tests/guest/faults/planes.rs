//! Imports of several planes of which one fails.

use std::fs;

use primeshare::import;

use super::memory::FailNth;
use crate::planes::of_planes_in;
use crate::support::{buffer_on, in_guest};

const PLANES: usize = 4;

#[test]
fn a_failed_plane_releases_those_before_it() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let faults = FailNth::here();
        let buffers = [(); PLANES].map(|()| buffer_on(&vgem));
        let buffer = of_planes_in(&buffers);
        // The dma-bufs that are in use already, by others: all 16 sets of them.
        for set in 0..1 << PLANES {
            let in_use = |plane: usize| set >> plane & 1 == 1;
            let used = (0..PLANES).filter(|plane| in_use(*plane));
            let kept: Vec<_> = used.map(|n| vkms.import(&buffers[n]).unwrap()).collect();
            let mut failed = [false; PLANES];
            for n in 1.. {
                let (before, fds) = (vkms.stats(), open_fds());
                let (imported, met) = faults.nth(n, || vkms.import(&buffer).map(drop));
                let (after, fds_after) = (vkms.stats(), open_fds());
                let failed_at = imported.as_ref().err().map(|error| error.object);
                assert_eq!(after.handles, kept.len(), "{set:04b}: {failed_at:?}");
                assert_eq!((fds_after, after.failed_closes), (fds, 0));
                // The import has closed exactly the handles that it opened.
                let tried = 0..failed_at.unwrap_or(PLANES);
                let opened = tried.filter(|plane| !in_use(*plane)).count() as u64;
                let closed = after.closes - before.closes;
                assert_eq!(closed, opened, "{set:04b}: {failed_at:?}");
                match imported {
                    Ok(()) if !met => break,
                    Ok(()) => {}
                    Err(import::Error { object, .. }) => failed[object] = true,
                }
            }
            // Every plane that needs the kernel has failed, and no other.
            let expected: [_; PLANES] = std::array::from_fn(|plane| !in_use(plane));
            assert_eq!(failed, expected, "{set:04b}");
            // Those in use were left alone.
            for held in &kept {
                held.object().export().unwrap();
            }
        }
    });
}

/// Their number, since Linux 6.2.
fn open_fds() -> u64 {
    fs::metadata("/proc/self/fd").unwrap().len()
}
