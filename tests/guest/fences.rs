//! Fences that are really pending: those of sw_sync's timelines and of vgem.

pub(crate) mod asleep;
pub(crate) mod busy;
pub(crate) mod sw_sync;
mod syncobj;
pub(crate) mod vgem;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use primeshare::alloc::Udmabuf;
use primeshare::sync::{Access, Deadline, Error, Fence, Polled, Status, SyncFile, implicit};
use primeshare::{Allocator, DmaBuf, Errno, Fourcc, Request};

use crate::faults::signals;
use crate::kernel::seccomp::without_ioctls;
use crate::support::{buffer_on, in_guest, of_two_dma_bufs};
use asleep::meanwhile;
use busy::Busy;
use sw_sync::Timeline;
use vgem::Fence as VgemFence;

/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE` and `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`.
const SYNC_FILE_IOCTLS: [u32; 2] = [0xc008_6202, 0x4008_6203];

fn udmabuf(fourcc: Fourcc) -> DmaBuf {
    let request = Request::new(64, 64, fourcc);
    Udmabuf::open().unwrap().allocate(&request).unwrap()
}

/// Whether a reader and a writer would have to wait now.
fn waits(buffer: &DmaBuf) -> (bool, bool) {
    let wait = |access| {
        let exported = implicit::export_sync_file(buffer, access).unwrap();
        let exported = !exported.is_signalled().unwrap();
        let polled = Polled::new(buffer, access).unwrap();
        let polled = !polled.is_signalled().unwrap();
        assert_eq!(exported, polled, "the kernel's two ways to ask differ");
        exported
    };
    (wait(Access::Read), wait(Access::Write))
}

#[test]
fn a_fence_is_waited_for_until_it_is_signalled() {
    in_guest(|_| {
        if !sw_sync::is_there() {
            return;
        }
        let timeline = Timeline::new();
        let fence = timeline.fence(1);
        assert!(!fence.is_signalled().unwrap());
        assert_eq!(fence.status().unwrap(), Status::Pending);
        assert_eq!(fence.wait(Duration::from_millis(1)), Err(Error::TimedOut));
        assert_eq!(fence.wait(Instant::now()), Err(Error::TimedOut));
        meanwhile(
            || fence.wait(Deadline::Never).unwrap(),
            || timeline.advance(1),
        );
        assert!(fence.is_signalled().unwrap());
        assert_eq!(fence.status().unwrap(), Status::Signalled);
        assert_eq!(fence.wait(Duration::ZERO), Ok(()));
    });
}

#[test]
fn a_merged_fence_waits_for_all() {
    in_guest(|_| {
        if !sw_sync::is_there() {
            return;
        }
        // More than a few, so that the kernel's list of them is long.
        let timelines: Vec<_> = (0..20).map(|_| Timeline::new()).collect();
        let fences = timelines.iter().map(|timeline| timeline.fence(1));
        let all = SyncFile::merge_all(fences).unwrap().unwrap();
        assert_eq!(all.info().unwrap().fences.len(), timelines.len());
        for timeline in &timelines {
            assert!(!all.is_signalled().unwrap());
            assert_eq!(all.status().unwrap(), Status::Pending);
            timeline.advance(1);
        }
        all.wait(Duration::ZERO).unwrap();
        assert!(SyncFile::merge_all([]).unwrap().is_none());
    });
}

#[test]
fn what_the_kernel_knows_of_a_fence_is_told() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let (first, second) = (Timeline::new(), Timeline::new());
        let merged = first.fence(1).merge(&second.fence(1)).unwrap();
        first.advance(1);
        let info = merged.info().unwrap();
        assert_eq!(
            (info.name.as_str(), info.status),
            ("primeshare", Status::Pending)
        );
        let mut statuses = Vec::new();
        for fence in &info.fences {
            // Since Linux 6.17 one that is signalled has forgotten its driver.
            assert!(["sw_sync", "detached-driver"].contains(&fence.driver.as_str()));
            assert_eq!(
                fence.driver == "sw_sync",
                fence.status == Status::Pending || guest.is_compat()
            );
            assert!(!fence.timeline.is_empty());
            assert_eq!(fence.timestamp.is_some(), fence.status == Status::Signalled);
            statuses.push(fence.status);
        }
        statuses.sort_by_key(|status| *status == Status::Signalled);
        assert_eq!(statuses, [Status::Pending, Status::Signalled]);
    });
}

#[test]
fn failed_work_wakes_its_waiters_with_the_reason() {
    in_guest(|_| {
        if !sw_sync::is_there() {
            return;
        }
        let failed = Error::Failed {
            errno: Errno::ENOENT,
        };
        // Alone, and with others that do not fail.
        let (timeline, other) = (Timeline::new(), Timeline::new());
        let alone = timeline.fence(1);
        let first = alone.merge(&other.fence(1)).unwrap();
        let last = other.fence(1).merge(&alone).unwrap();
        let woken = meanwhile(|| alone.wait(Deadline::Never), || timeline.end());
        assert_eq!(woken, Err(failed.clone()));
        for fence in [&first, &last] {
            assert_eq!(fence.status().unwrap(), Status::Pending);
            assert_eq!(fence.info().unwrap().status, Status::Pending);
        }
        other.advance(1);
        for fence in [&alone, &first, &last] {
            // Before anything has waited for it.
            assert_eq!(fence.status().unwrap(), Status::Failed(Errno::ENOENT));
            assert!(fence.is_signalled().unwrap());
            assert_eq!(fence.wait(Duration::ZERO), Err(failed.clone()));
        }
        assert_eq!(
            alone.info().unwrap().fences[0].status,
            Status::Failed(Errno::ENOENT)
        );
    });
}

#[test]
fn only_a_sync_file_is_taken_for_one() {
    in_guest(|_| {
        let buffer = udmabuf(Fourcc::XRGB8888);
        let others: [OwnedFd; 3] = [
            buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
            std::fs::File::open("/dev/null").unwrap().into(),
            std::fs::File::open("/dev/dri/card0").unwrap().into(),
        ];
        for fd in others {
            assert_eq!(SyncFile::new(fd).unwrap_err(), Error::NotASyncFile);
        }
        // Nor a sync_file, or anything else, for a dma-buf.
        let signalled = SyncFile::signalled().unwrap();
        let refused = implicit::export_sync_file_fd(&signalled, Access::Read).unwrap_err();
        assert_eq!(refused, Error::NotADmaBuf);
        let refused =
            implicit::import_sync_file_fd(&signalled, &signalled, Access::Read).unwrap_err();
        assert_eq!(refused, Error::NotADmaBuf);
        let fd = OwnedFd::from(signalled);
        let fence = SyncFile::try_from(fd).unwrap();
        fence.wait(Duration::ZERO).unwrap();
    });
}

#[test]
fn fds_of_fences_are_close_on_exec() {
    in_guest(|_| {
        let buffer = udmabuf(Fourcc::XRGB8888);
        let signalled = SyncFile::signalled().unwrap();
        let fences = [
            signalled.try_clone().unwrap(),
            signalled.merge(&signalled).unwrap(),
            implicit::export_sync_file(&buffer, Access::Read).unwrap(),
            signalled,
        ];
        for fence in &fences {
            assert!(fence.is_signalled().unwrap());
            assert!(crate::kernel::flags(fence.as_fd()).0);
        }
        let polled = Polled::new(&buffer, Access::Write).unwrap();
        assert!(crate::kernel::flags(polled.as_fd()).0);
    });
}

#[test]
fn a_readers_fence_keeps_writers_waiting_and_a_writers_everybody() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        for buffer in [udmabuf(Fourcc::XRGB8888), buffer_on(&guest.vgem())] {
            assert_eq!(waits(&buffer), (false, false));
            let timeline = Timeline::new();
            implicit::import_sync_file(&buffer, &timeline.fence(1), Access::Read).unwrap();
            assert_eq!(waits(&buffer), (false, true));
            implicit::import_sync_file(&buffer, &timeline.fence(2), Access::Write).unwrap();
            assert_eq!(waits(&buffer), (true, true));
            let exported = implicit::export_sync_file(&buffer, Access::Read).unwrap();
            timeline.advance(1);
            assert_eq!(waits(&buffer), (true, true));
            timeline.advance(1);
            assert_eq!(waits(&buffer), (false, false));
            exported.wait(Duration::ZERO).unwrap();
        }
    });
}

#[test]
fn a_drivers_own_fences_are_seen() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        for (access, waiting) in [(Access::Read, (false, true)), (Access::Write, (true, true))] {
            let fence = VgemFence::attach(&vgem, &buffer, access);
            assert_eq!(waits(&buffer), waiting);
            let exported = implicit::export_sync_file(&buffer, Access::Write).unwrap();
            let info = exported.info().unwrap();
            assert_eq!(info.status, Status::Pending);
            assert_eq!(info.fences[0].driver, "vgem");
            meanwhile(
                || exported.wait(Deadline::Never).unwrap(),
                || fence.signal(),
            );
            assert_eq!(waits(&buffer), (false, false));
        }
    });
}

#[test]
fn a_buffer_of_two_dma_bufs_has_the_fences_of_both() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let parts = [buffer_on(&vgem), buffer_on(&vgem)];
        let whole = of_two_dma_bufs(&parts[0], &parts[1]);
        // Out of both.
        let mut fences: Vec<_> = parts
            .iter()
            .map(|part| VgemFence::attach(&vgem, part, Access::Write))
            .collect();
        let exported = implicit::export_sync_file(&whole, Access::Read).unwrap();
        let polled = Polled::new(&whole, Access::Read).unwrap();
        assert_eq!(exported.info().unwrap().fences.len(), 2);
        fences.pop().unwrap().signal();
        assert!(!exported.is_signalled().unwrap());
        // The one that is ready wakes an event loop once, and not again.
        assert!(is_readable(&polled));
        assert!(!polled.is_signalled().unwrap());
        assert!(!is_readable(&polled));
        assert_eq!(polled.wait(Duration::from_millis(1)), Err(Error::TimedOut));
        let signal = || fences.pop().unwrap().signal();
        meanwhile(|| polled.wait(Deadline::Never).unwrap(), signal);
        assert!(is_readable(&polled) && polled.is_signalled().unwrap());
        exported.wait(Duration::ZERO).unwrap();
        // What comes later does not undo it.
        let later = VgemFence::attach(&vgem, &parts[0], Access::Write);
        assert!(polled.is_signalled().unwrap());
        // And into both.
        let exported = implicit::export_sync_file(&parts[0], Access::Read).unwrap();
        let copy = udmabuf(Fourcc::XRGB8888);
        let target = of_two_dma_bufs(&buffer_on(&vgem), &copy);
        implicit::import_sync_file(&target, &exported, Access::Write).unwrap();
        for object in target.objects() {
            let plane = one_dma_buf(object);
            assert_eq!(waits(&plane), (true, true));
        }
        later.signal();
        assert_eq!(waits(&target), (false, false));
    });
}

#[test]
fn planes_in_one_dma_buf_share_its_fence() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let busy = buffer_on(&vgem);
        let fence = VgemFence::attach(&vgem, &busy, Access::Write);
        let exported = implicit::export_sync_file(&busy, Access::Read).unwrap();
        let planar = udmabuf(Fourcc::NV12);
        assert_eq!((planar.planes().len(), planar.objects().len()), (2, 1));
        implicit::import_sync_file(&planar, &exported, Access::Write).unwrap();
        let exported = implicit::export_sync_file(&planar, Access::Write).unwrap();
        assert_eq!(exported.info().unwrap().fences.len(), 1);
        fence.signal();
        exported.wait(Duration::ZERO).unwrap();
    });
}

#[test]
fn without_the_kernels_ioctls_dma_bufs_are_polled_and_fences_waited_for() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (buffer, other) = (buffer_on(&vgem), buffer_on(&vgem));
        for errno in [Errno::ENOTTY, Errno::ENOSYS, Errno::EPERM] {
            let unsupported = |ioctl| Error::Unsupported { ioctl, errno };
            let writer = VgemFence::attach(&vgem, &buffer, Access::Write);
            let exported = implicit::export_sync_file(&buffer, Access::Read).unwrap();
            let fence = without_ioctls(&SYNC_FILE_IOCTLS, errno, || {
                let refused = implicit::export_sync_file(&buffer, Access::Read).unwrap_err();
                assert_eq!(refused, unsupported("DMA_BUF_IOCTL_EXPORT_SYNC_FILE"));
                let refused =
                    implicit::import_sync_file(&other, &exported, Access::Read).unwrap_err();
                assert_eq!(refused, unsupported("DMA_BUF_IOCTL_IMPORT_SYNC_FILE"));
                let import = |deadline: Duration| {
                    implicit::import_or_wait(&other, &exported, Access::Read, deadline)
                };
                assert_eq!(import(Duration::ZERO), Err(Error::TimedOut));
                implicit::fence(&buffer, Access::Read).unwrap()
            });
            assert!(matches!(fence, Fence::Polled(_)));
            assert!(!fence.is_signalled().unwrap() && !is_readable(&fence));
            meanwhile(|| fence.wait(Deadline::Never).unwrap(), || writer.signal());
            assert!(fence.is_signalled().unwrap() && is_readable(&fence));
        }
        // With them there is a fence of its own.
        let fence = implicit::fence(&buffer, Access::Read).unwrap();
        assert!(matches!(fence, Fence::SyncFile(_)));
        let signalled = SyncFile::signalled().unwrap();
        let left = Fence::from(signalled.try_clone().unwrap());
        assert!(left.is_signalled().unwrap() && is_readable(&left));
        implicit::import_or_wait(&other, &signalled, Access::Read, Duration::ZERO).unwrap();
    });
}

#[test]
fn signals_do_not_end_a_wait_for_a_fence() {
    in_guest(|guest| {
        const SIGNALS: u64 = 100;
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        for polled in [false, true] {
            let writer = Busy::new(&vgem, &buffer, Access::Write);
            let fence = match polled {
                false => {
                    Fence::SyncFile(implicit::export_sync_file(&buffer, Access::Read).unwrap())
                }
                true => Fence::Polled(Polled::new(&buffer, Access::Read).unwrap()),
            };
            let signals = signals::under(|received| {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while received() < SIGNALS {
                            std::thread::yield_now();
                        }
                        writer.end();
                    });
                    fence.wait(Deadline::Never).unwrap();
                    received()
                })
            });
            assert!(signals >= SIGNALS, "it did not wait: {signals} signals");
        }
    });
}

/// Whether an event loop would say that an fd is readable.
fn is_readable(fd: impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

/// A buffer that is one dma-buf of another.
fn one_dma_buf(object: &primeshare::buffer::PlaneObject) -> DmaBuf {
    use primeshare::BufferDesc;
    use primeshare::buffer::PlaneFd;
    let plane = PlaneFd {
        fd: object.as_fd().try_clone_to_owned().unwrap(),
        offset: 0,
        stride: 64,
    };
    DmaBuf::new(BufferDesc::linear(64, 1, Fourcc::R8), [plane]).unwrap()
}
