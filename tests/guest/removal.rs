//! Devices that disappear.
//!
//! Removing a vkms device unregisters it (`drm_dev_unregister`), so its node and its place on the
//! bus go while open files work on, unlike a device whose driver calls `drm_dev_unplug`, where
//! every ioctl is ENODEV from then on and the library says [`Error::Lost`]. These tests allow for
//! both, as kernels may change.

use primeshare::device::{self, Node};
use primeshare::gem::{Error, ImportOrigin};
use primeshare::{Allocator, Device, Errno, Fourcc, Request};

use crate::support::{buffer_on, in_guest, scale};
use crate::vkms::{self, Vkms};

fn works_or_is_lost<T>(result: Result<T, Error>) {
    match result {
        Ok(_) | Err(Error::Lost { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_left_of_a_removed_device_can_be_used_and_dropped() {
    in_guest(|guest| {
        if !vkms::can_be_plugged() {
            return;
        }
        let vkms = Vkms::new("removed");
        vkms.plug();
        let Node { path, .. } = vkms.node();
        let device = Device::open(&path).unwrap();
        let (own, foreign) = (buffer_on(&device), buffer_on(&guest.vgem()));
        let imported = device.import(&foreign).unwrap();
        let elsewhere = guest.vgem().import(&own).unwrap();
        vkms.unplug();

        let gone = |node: &Node| node.path != path;
        assert!(device::enumerate().unwrap().iter().all(gone));
        assert_eq!(
            Device::open(&path).unwrap_err(),
            device::Error::Open {
                path,
                errno: Errno::ENOENT
            }
        );
        works_or_is_lost(imported.object().export());
        let unknown = buffer_on(&guest.vgem());
        works_or_is_lost(device.import(&unknown).map_err(|error| error.cause));
        let allocator = primeshare::alloc::Dumb::new(&device);
        let request = Request::new(64, 64, Fourcc::XRGB8888);
        works_or_is_lost(allocator.allocate(&request).map_err(|error| match error {
            primeshare::alloc::Error::Gem(error) => error,
            other => panic!("{other}"),
        }));
        // What the table knows it still knows; the memory lives on for others.
        let known = device.import(&foreign).unwrap();
        assert_eq!(known.origin(), ImportOrigin::AlreadyImported);
        assert!(elsewhere.object().export().is_ok());
        drop((imported, known, own, elsewhere));
        assert_eq!(
            (device.stats().handles, device.stats().failed_closes),
            (0, 0)
        );
    });
}

#[test]
fn a_device_plugged_in_again_is_another_device() {
    in_guest(|guest| {
        if !vkms::can_be_plugged() {
            return;
        }
        let vkms = Vkms::new("returning");
        vkms.plug();
        let before = Device::open(vkms.node().path).unwrap();
        let buffer = buffer_on(&guest.vgem());
        let old = before.import(&buffer).unwrap();
        vkms.unplug();
        vkms.plug();
        let after = Device::open(vkms.node().path).unwrap();
        assert!(!after.shares_handles_with(&before));
        assert_eq!(after.import(&buffer).unwrap().origin(), ImportOrigin::New);
        works_or_is_lost(old.object().export());
    });
}

#[test]
fn a_device_is_removed_in_mid_traffic() {
    in_guest(|guest| {
        if !vkms::can_be_plugged() {
            return;
        }
        let vkms = Vkms::new("busy");
        let buffer = buffer_on(&guest.vgem());
        for _ in 0..scale(10, 100) {
            vkms.plug();
            let device = Device::open(vkms.node().path).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let imported = device.import(&buffer).map_err(|error| error.cause);
                        works_or_is_lost(imported.and_then(|held| held.object().export()));
                    }
                });
                vkms.unplug();
            });
            let stats = device.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0));
        }
    });
}
