//! What Mesa's gbm does with handles and fds on devices without a GPU.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use gbm::{BufferObject, BufferObjectFlags, Format};
use nix::errno::Errno;
use primeshare::buffer::BufferId;

use crate::kernel::{Gem, flags};
use crate::support::{Guest, in_guest};

/// A file description of gbm's own, on vkms.
fn open(guest: &Guest) -> gbm::Device<OwnedFd> {
    let path = guest.vkms().node().path.clone();
    let file = File::options().read(true).write(true).open(path).unwrap();
    gbm::Device::new(file.into()).unwrap()
}

fn create(gbm: &gbm::Device<OwnedFd>) -> BufferObject<()> {
    let usage = BufferObjectFlags::RENDERING;
    gbm.create_buffer_object(64, 64, Format::Xrgb8888, usage)
        .unwrap()
}

fn handle(bo: &BufferObject<()>) -> u32 {
    // SAFETY: every member of the union is plain data of the same eight bytes.
    unsafe { bo.handle().u32_ }
}

#[test]
fn gbms_own_export_is_read_only_on_mesa_25_0() {
    in_guest(|guest| {
        let gbm = open(guest);
        let bo = create(&gbm);
        let (close_on_exec, writable) = flags(bo.fd().unwrap().as_fd());
        assert!(close_on_exec);
        assert_eq!(writable, !guest.has_old_mesa());
    });
}

#[test]
fn an_export_before_gbms_decides() {
    in_guest(|guest| {
        let gbm = open(guest);
        let bo = create(&gbm);
        let ours = Gem(gbm.as_fd()).export_writable(handle(&bo)).unwrap();
        assert!(flags(ours.as_fd()).1);
        let gbms = bo.fd().unwrap();
        assert!(flags(gbms.as_fd()).1);
        assert_eq!(BufferId::of(&gbms), BufferId::of(&ours));
    });
}

#[test]
fn gbm_closes_its_handle_whoever_imported_it_too() {
    in_guest(|guest| {
        let gbm = open(guest);
        let gem = Gem(gbm.as_fd());
        let bo = create(&gbm);
        let fd = gem.export_writable(handle(&bo)).unwrap();
        // Somebody else on gbm's file description is given gbm's handle ...
        let theirs = gem.import(&fd).unwrap();
        assert_eq!(theirs, handle(&bo));
        // ... and loses it with gbm's buffer.
        drop(bo);
        assert!(gem.export_writable(theirs).is_err());
    });
}

/// kmsro gives -1 for the handle of what is not for a display, and an error may leave 0.
#[test]
fn what_is_no_handle_cannot_be_exported() {
    in_guest(|guest| {
        let gbm = open(guest);
        for handle in [u32::MAX, 0] {
            let refused = Gem(gbm.as_fd()).export_writable(handle);
            assert_eq!(refused.err(), Some(Errno::ENOENT));
        }
    });
}

#[test]
fn both_of_gbms_exports_are_one_dma_buf() {
    in_guest(|guest| {
        let gbm = open(guest);
        let bo = create(&gbm);
        let [whole, plane] = [bo.fd().unwrap(), bo.fd_for_plane(0).unwrap()];
        assert_eq!(BufferId::of(&whole), BufferId::of(&plane));
    });
}
