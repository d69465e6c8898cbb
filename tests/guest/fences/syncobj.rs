//! Syncobjs and their timelines. virtio-gpu has them, in the QEMU guest; the other guests' drivers
//! have none and say so. The fences in them are vgem's.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use primeshare::device::{self, NodeKind};
use primeshare::sync::{Access, Deadline, Error, Stage, SyncFile, Syncobj, SyncobjSupport};
use primeshare::sync::{Status, implicit};
use primeshare::{Device, Errno};

use super::asleep::meanwhile;
use super::{is_readable, vgem};
use crate::faults::signals;
use crate::kernel::seccomp::without_ioctls;
use crate::support::{buffer_on, can_run, in_guest};

/// `DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL` and `DRM_IOCTL_SYNCOBJ_EVENTFD`.
const TIMELINE_SIGNAL: u32 = 0xc018_64cd;
const EVENTFD: u32 = 0xc018_64cf;

/// The first device that has timelines, as there must be in QEMU. Elsewhere the test is left out.
fn timelines() -> Option<Device> {
    let mut nodes = device::enumerate().unwrap();
    nodes.retain(|node| node.kind == NodeKind::Primary);
    let mut devices = nodes.iter().map(|node| Device::open(&node.path).unwrap());
    let found =
        devices.find(|device| Syncobj::support(device).unwrap() == SyncobjSupport::Timeline);
    let in_qemu = std::env::var_os("PRIMESHARE_GUEST").is_some_and(|machine| machine == "qemu");
    assert_eq!(found.is_some(), in_qemu);
    can_run(found.is_some(), "a device with timelines of syncobjs");
    found
}

/// Runs a test on a device that has timelines. Afterwards none of its syncobjs is left.
fn with_timelines(test: impl FnOnce(&Device)) {
    in_guest(|_| {
        let Some(device) = timelines() else { return };
        test(&device);
        // The kernel gives the lowest free number.
        assert_eq!(
            Syncobj::new(&device).unwrap().handle(),
            1,
            "syncobjs are left"
        );
    });
}

fn not_submitted(device: &Device, point: u64) -> Error {
    Error::NotSubmitted {
        device: device.to_string(),
        point,
    }
}

#[test]
fn a_driver_without_syncobjs_says_so() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let none = Error::NoSyncobj {
            device: vgem.to_string(),
        };
        assert_eq!(Syncobj::support(&vgem), Ok(SyncobjSupport::None));
        assert_eq!(Syncobj::new(&vgem).unwrap_err(), none);
        assert_eq!(Syncobj::signalled(&vgem).unwrap_err(), none);
        let fd = SyncFile::signalled().unwrap();
        assert_eq!(Syncobj::import(&vgem, &fd).unwrap_err(), none);
    });
}

#[test]
fn a_binary_syncobj_is_signalled_reset_and_signalled_again() {
    with_timelines(|device| {
        let syncobj = Syncobj::new(device).unwrap();
        for _ in 0..2 {
            assert!(!syncobj.has_come(0, Stage::Submitted).unwrap());
            assert!(!syncobj.has_come(0, Stage::Signalled).unwrap());
            let refused = syncobj.export_sync_file(0).unwrap_err();
            assert_eq!(refused, not_submitted(device, 0));
            let short = Duration::from_millis(1);
            let late = syncobj.wait(0, Stage::Signalled, short);
            assert_eq!(late, Err(Error::TimedOut));
            meanwhile(
                || syncobj.wait(0, Stage::Signalled, Deadline::Never).unwrap(),
                || syncobj.signal(0).unwrap(),
            );
            let fence = syncobj.export_sync_file(0).unwrap();
            fence.wait(Duration::ZERO).unwrap();
            syncobj.reset().unwrap();
        }
        let signalled = Syncobj::signalled(device).unwrap();
        signalled.wait(0, Stage::Signalled, Duration::ZERO).unwrap();
    });
}

#[test]
fn points_come_when_their_fences_do() {
    with_timelines(|device| {
        in_between(device, |timeline, fence, signal| {
            let stages = || {
                let come = |stage| timeline.has_come(2, stage).unwrap();
                (come(Stage::Submitted), come(Stage::Signalled))
            };
            assert_eq!(stages(), (false, false));
            let refused = timeline.export_sync_file(2).unwrap_err();
            assert_eq!(refused, not_submitted(device, 2));
            meanwhile(
                || timeline.wait(2, Stage::Submitted, Deadline::Never).unwrap(),
                || timeline.import_sync_file(2, fence).unwrap(),
            );
            assert_eq!(stages(), (true, false));
            assert_eq!(timeline.query(Stage::Submitted), Ok(2));
            assert_eq!(timeline.query(Stage::Signalled), Ok(0));
            let short = Duration::from_millis(1);
            let late = timeline.wait(2, Stage::Signalled, short);
            assert_eq!(late, Err(Error::TimedOut));
            let out = timeline.export_sync_file(2).unwrap();
            assert_eq!(out.status(), Ok(Status::Pending));
            meanwhile(
                || timeline.wait(2, Stage::Signalled, Deadline::Never).unwrap(),
                signal,
            );
            assert_eq!(stages(), (true, true));
            assert_eq!(timeline.query(Stage::Signalled), Ok(2));
            // And those before it.
            timeline.wait(1, Stage::Signalled, Duration::ZERO).unwrap();
            assert!(!timeline.has_come(3, Stage::Submitted).unwrap());
            out.wait(Duration::ZERO).unwrap();
        });
    });
}

/// Gives `test` a timeline, an implicit fence of vgem that is not signalled yet, and a way to
/// signal it.
fn in_between(device: &Device, test: impl FnOnce(&Syncobj, &SyncFile, Box<dyn FnOnce() + '_>)) {
    let vgem = Device::open(
        &device::enumerate()
            .unwrap()
            .iter()
            .find(|node| Device::open(&node.path).unwrap().driver() == "vgem")
            .unwrap()
            .path,
    )
    .unwrap();
    let buffer = buffer_on(&vgem);
    let held = vgem::Fence::attach(&vgem, &buffer, Access::Write);
    let fence = implicit::export_sync_file(&buffer, Access::Read).unwrap();
    let timeline = Syncobj::new(device).unwrap();
    test(&timeline, &fence, Box::new(|| held.signal()));
    assert!(fence.is_signalled().unwrap());
}

#[test]
fn a_point_becomes_an_implicit_fence() {
    with_timelines(|device| {
        in_between(device, |timeline, fence, signal| {
            timeline.import_sync_file(5, fence).unwrap();
            let explicit = timeline.export_sync_file(5).unwrap();
            let buffer = super::udmabuf(primeshare::Fourcc::XRGB8888);
            implicit::import_sync_file(&buffer, &explicit, Access::Write).unwrap();
            assert_eq!(super::waits(&buffer), (true, true));
            signal();
            assert_eq!(super::waits(&buffer), (false, false));
        });
    });
}

#[test]
fn fences_are_transferred_between_points() {
    with_timelines(|device| {
        in_between(device, |timeline, fence, signal| {
            let (other, binary) = (Syncobj::new(device).unwrap(), Syncobj::new(device).unwrap());
            let refused = timeline.transfer(3, &other, 7).unwrap_err();
            assert_eq!(refused, not_submitted(device, 3));
            timeline.import_sync_file(3, fence).unwrap();
            timeline.transfer(3, &other, 7).unwrap();
            other.transfer(7, &binary, 0).unwrap();
            assert!(!other.has_come(7, Stage::Signalled).unwrap());
            assert!(!binary.has_come(0, Stage::Signalled).unwrap());
            signal();
            assert!(other.has_come(7, Stage::Signalled).unwrap());
            binary.wait(0, Stage::Signalled, Duration::ZERO).unwrap();
            // Another file description has other handles.
            let elsewhere = Syncobj::new(&device.reopen().unwrap()).unwrap();
            let refused = timeline.transfer(3, &elsewhere, 1).unwrap_err();
            let device = device.to_string();
            assert_eq!(refused, Error::OtherDevice { device });
        });
    });
}

#[test]
fn an_exported_syncobj_is_the_same_elsewhere() {
    with_timelines(|device| {
        let here = Syncobj::new(device).unwrap();
        let fd = here.export().unwrap();
        assert!(crate::kernel::flags(fd.as_fd()).0);
        let there = Syncobj::import(&device.reopen().unwrap(), &fd).unwrap();
        drop(fd);
        meanwhile(
            || here.wait(9, Stage::Signalled, Deadline::Never).unwrap(),
            || there.signal(9).unwrap(),
        );
        drop(here);
        assert_eq!(there.query(Stage::Signalled), Ok(9));
        // A sync_file is no syncobj.
        let refused = Syncobj::import(device, SyncFile::signalled().unwrap()).unwrap_err();
        let expected = Error::Syncobj {
            device: device.to_string(),
            ioctl: "SYNCOBJ_FD_TO_HANDLE",
            errno: Errno::EINVAL,
        };
        assert_eq!(refused, expected);
    });
}

#[test]
fn an_eventfd_tells_of_points_that_come() {
    with_timelines(|device| {
        in_between(device, |timeline, fence, signal| {
            let submitted = timeline.eventfd(4, Stage::Submitted).unwrap();
            let signalled = timeline.eventfd(4, Stage::Signalled).unwrap();
            let later = timeline.eventfd(5, Stage::Submitted).unwrap();
            let readable = || [&submitted, &signalled, &later].map(is_readable);
            assert!(crate::kernel::flags(submitted.as_fd()).0);
            assert_eq!(readable(), [false, false, false]);
            timeline.import_sync_file(4, fence).unwrap();
            assert_eq!(readable(), [true, false, false]);
            // The kernel signals fence and eventfd one after the other, under one lock.
            signal();
            assert_eq!(readable(), [true, true, false]);
        });
    });
}

#[test]
fn what_a_kernel_does_not_know_of_syncobjs_is_told_apart() {
    with_timelines(|device| {
        let timeline = Syncobj::new(device).unwrap();
        let without = |ioctl, errno, work: &(dyn Fn() + Sync)| {
            without_ioctls(&[ioctl], errno, work);
        };
        without(TIMELINE_SIGNAL, Errno::EOPNOTSUPP, &|| {
            assert_eq!(Syncobj::support(device), Ok(SyncobjSupport::Binary));
            let device = device.to_string();
            assert_eq!(timeline.signal(1), Err(Error::NoTimeline { device }));
            timeline.signal(0).unwrap();
        });
        without(EVENTFD, Errno::EINVAL, &|| {
            let refused = timeline.eventfd(1, Stage::Signalled).unwrap_err();
            let expected = Error::Unsupported {
                ioctl: "SYNCOBJ_EVENTFD",
                errno: Errno::EINVAL,
            };
            assert_eq!(refused, expected);
        });
    });
}

#[test]
fn signals_do_not_end_a_wait_for_a_point() {
    with_timelines(|device| {
        let timeline = Syncobj::new(device).unwrap();
        const SIGNALS: u64 = 100;
        let signals = signals::under(|received| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while received() < SIGNALS {
                        std::thread::yield_now();
                    }
                    timeline.signal(1).unwrap();
                });
                timeline.wait(1, Stage::Signalled, Deadline::Never).unwrap();
                received()
            })
        });
        assert!(signals >= SIGNALS, "it did not wait: {signals} signals");
    });
}

/// A device taken out of its slot on the PCI bus, until dropped.
struct Removed(());

impl Removed {
    fn new(device: &Device) -> Self {
        let bus = device.node().bus.as_ref().unwrap();
        fs::write(format!("/sys/bus/pci/devices/{}/remove", bus.name), "1").unwrap();
        Self(())
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        fs::write("/sys/bus/pci/rescan", "1").unwrap();
    }
}

#[test]
fn a_lost_device_wakes_who_waits_for_it() {
    in_guest(|_| {
        let Some(device) = timelines() else { return };
        let lost = Error::Lost {
            device: device.to_string(),
        };
        let timeline = Syncobj::new(&device).unwrap();
        let removed = std::sync::Mutex::new(None);
        let woken = meanwhile(
            || timeline.wait(1, Stage::Signalled, Deadline::Never),
            || *removed.lock().unwrap() = Some(Removed::new(&device)),
        );
        assert_eq!(woken, Err(lost.clone()));
        assert_eq!(timeline.signal(1), Err(lost.clone()));
        assert_eq!(Syncobj::support(&device), Err(lost));
        drop((timeline, device, removed));
        // Another device takes its place.
        assert!(timelines().is_some());
    });
}

/// The points of linux-drm-syncobj, as a compositor has them of its clients.
#[cfg(feature = "wayland")]
mod of_surfaces {
    use primeshare::wayland::{Points, PointsError, SurfacePoints};

    use super::*;

    /// Both points on one timeline of a client's, which the compositor has imported.
    fn committed(device: &Device, acquire: u32, release: u32) -> (Syncobj, Points) {
        let client = Syncobj::new(device).unwrap();
        let fd = client.export().unwrap();
        let imported = Syncobj::import(device, &fd).unwrap();
        let mut surface = SurfacePoints::new();
        surface.set_acquire(imported.clone(), 0, acquire);
        surface.set_release(imported, 0, release);
        let points = surface.commit(Some(true)).unwrap().unwrap();
        assert!(surface.commit(None).unwrap().is_none(), "they were taken");
        (client, points)
    }

    #[test]
    fn an_acquire_point_is_waited_for_before_the_client_has_submitted_its_work() {
        with_timelines(|device| {
            let (client, points) = committed(device, 1, 2);
            assert!(points.acquire_fence().unwrap().is_none());
            let eventfd = points.acquire_eventfd(Stage::Signalled).unwrap();
            assert!(!is_readable(&eventfd));
            client.signal(1).unwrap();
            assert!(is_readable(&eventfd));
            let fence = points.acquire_fence().unwrap().expect("it is submitted");
            assert!(fence.is_signalled().unwrap());
        });
    }

    #[test]
    fn a_release_point_is_signalled_when_the_last_user_has_gone() {
        with_timelines(|device| {
            let (client, points) = committed(device, 1, 2);
            client.signal(1).unwrap();
            let other = points.clone();
            drop(points);
            assert!(!client.has_come(2, Stage::Submitted).unwrap());
            drop(other);
            assert!(client.has_come(2, Stage::Signalled).unwrap());
        });
    }

    #[test]
    fn a_release_point_waits_for_the_fences_of_those_who_read() {
        with_timelines(|device| {
            let (client, points) = committed(device, 1, 2);
            client.signal(1).unwrap();
            in_between(device, |_, pending, signal| {
                points.release_after(pending).unwrap();
                points
                    .release_after(&SyncFile::signalled().unwrap())
                    .unwrap();
                drop(points);
                assert!(client.has_come(2, Stage::Submitted).unwrap());
                assert!(!client.has_come(2, Stage::Signalled).unwrap());
                signal();
                assert!(client.has_come(2, Stage::Signalled).unwrap());
            });
        });
    }

    #[test]
    fn a_point_that_would_be_released_before_it_is_acquired_is_refused() {
        with_timelines(|device| {
            let timeline = Syncobj::new(device).unwrap();
            let mut surface = SurfacePoints::new();
            surface.set_acquire(timeline.clone(), 1, 0);
            surface.set_release(timeline, 0, u32::MAX);
            let refused = surface.commit(Some(true)).unwrap_err();
            assert_eq!(refused, PointsError::ConflictingPoints);
            // Nothing of it is left for the next commit.
            assert!(surface.commit(None).unwrap().is_none());
        });
    }
}
