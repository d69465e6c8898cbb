//! Implicit fences: what waits for what.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use primeshare::Device;

use super::every_exporter;
use crate::kernel::dma_buf::{READ, WRITE, export_sync_file, import_sync_file, ready};
use crate::kernel::{Gem, fence, flags};
use crate::support::in_guest;

const BOTH: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLOUT);

fn is_signalled(fence: &OwnedFd) -> bool {
    ready(fence.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLIN)
}

/// A fence that waits for [`fence::signal`], as a file.
fn pending(vgem: &Device) -> (OwnedFd, u32) {
    let gem = Gem(vgem.as_fd());
    let handle = gem.create().unwrap();
    let fd = gem.export_writable(handle).unwrap();
    let fence = fence::attach(vgem, handle);
    gem.close(handle).unwrap();
    (export_sync_file(&fd, READ).unwrap(), fence)
}

#[test]
fn without_fences_a_sync_file_is_signalled_and_close_on_exec() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            for access in [READ, WRITE, READ | WRITE] {
                let fence = export_sync_file(&fd, access).unwrap();
                assert!(is_signalled(&fence), "{exporter}: {access}");
                assert!(flags(fence.as_fd()).0, "{exporter}: {access}");
            }
            assert_eq!(ready(fd.as_fd(), BOTH), BOTH, "{exporter}");
        }
    });
}

#[test]
fn sync_files_of_a_dma_buf_have_two_flags() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            let fence = export_sync_file(&fd, READ).unwrap();
            for wrong in [0, 4, READ | 4, 1 << 31] {
                let refused = export_sync_file(&fd, wrong).unwrap_err();
                assert_eq!(refused, Errno::EINVAL, "{exporter}: {wrong}");
                let refused = import_sync_file(&fd, wrong, fence.as_raw_fd());
                assert_eq!(refused, Err(Errno::EINVAL), "{exporter}: {wrong}");
            }
            // What is no fence.
            let file = File::open("/dev/null").unwrap();
            for number in [-1, file.as_raw_fd(), fd.as_raw_fd()] {
                let refused = import_sync_file(&fd, READ, number);
                assert_eq!(refused, Err(Errno::EINVAL), "{exporter}: {number}");
            }
            assert_eq!(import_sync_file(&fd, WRITE, fence.as_raw_fd()), Ok(()));
        }
    });
}

#[test]
fn a_writers_fence_is_waited_for_by_all_and_a_readers_by_writers() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        for (exporter, fd) in every_exporter(guest) {
            for (usage, readers_wait) in [(READ, false), (WRITE, true)] {
                let (pending, number) = pending(&vgem);
                import_sync_file(&fd, usage, pending.as_raw_fd()).unwrap();
                let waits = |access| !is_signalled(&export_sync_file(&fd, access).unwrap());
                assert_eq!(waits(READ), readers_wait, "{exporter}: {usage}");
                assert!(waits(WRITE), "{exporter}: {usage}");
                // POLLIN waits for writers, POLLOUT for everybody.
                let now = match readers_wait {
                    true => PollFlags::empty(),
                    false => PollFlags::POLLIN,
                };
                assert_eq!(ready(fd.as_fd(), BOTH), now, "{exporter}: {usage}");
                fence::signal(&vgem, number);
                assert!(!waits(READ) && !waits(WRITE), "{exporter}: {usage}");
                assert_eq!(ready(fd.as_fd(), BOTH), BOTH, "{exporter}: {usage}");
            }
        }
    });
}

#[test]
fn a_fence_belongs_to_the_dma_buf_through_whatever_fd() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let gem = Gem(vgem.as_fd());
        let handle = gem.create().unwrap();
        let fd = gem.export_writable(handle).unwrap();
        // The re-export of an import waits for the exporter's fence.
        let imported = Gem(vkms.as_fd()).import(&fd).unwrap();
        let again = Gem(vkms.as_fd()).export_writable(imported).unwrap();
        let fence = fence::attach(&vgem, handle);
        assert!(!is_signalled(&export_sync_file(&again, READ).unwrap()));
        fence::signal(&vgem, fence);
        assert!(is_signalled(&export_sync_file(&again, READ).unwrap()));
        Gem(vkms.as_fd()).close(imported).unwrap();
        gem.close(handle).unwrap();
    });
}
