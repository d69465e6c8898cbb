//! Handles that pass between the library and the host program's own code.

use std::os::fd::AsFd;

use primeshare::device::{self, Device};
use primeshare::gem::{Error, ImportOrigin, Object, Released};
use primeshare::{DmaBuf, Errno};

use crate::kernel::Gem;
use crate::support::{buffer_on, in_guest};

/// A dumb buffer by the host program's own ioctl.
fn own_handle(device: &Device) -> u32 {
    let dumb = drm_ffi::mode::dumbbuffer::create(device.as_fd(), 64, 64, 32, 0);
    dumb.unwrap().handle
}

#[test]
fn an_adopted_handle_is_the_librarys_to_close() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let handle = own_handle(&vgem);
        let object = vgem.adopt(handle).unwrap();
        assert_eq!(object.handle().raw(), handle);
        let (fd, _) = object.export().unwrap();
        let (again, found) = vgem.import_fd(&fd).unwrap();
        assert_eq!((found, &again), (ImportOrigin::AlreadyImported, &object));
        drop((object, again, fd));
        assert_eq!((vgem.stats().closes, vgem.stats().failed_closes), (1, 0));
        // It is closed: the kernel knows it no more.
        let closed = drm_ffi::gem::close(vgem.as_fd(), handle).unwrap_err();
        assert_eq!(closed.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn a_handle_that_is_here_already_is_adopted_as_a_clone() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let ours = vkms.import(&buffer).unwrap().object().clone();
        // The host's own import is given the handle that we have.
        let fd = buffer.plane_fd(0).unwrap();
        let theirs = drm_ffi::gem::fd_to_handle(vkms.as_fd(), fd).unwrap().handle;
        assert_eq!(theirs, ours.handle().raw());
        let adopted = vkms.adopt(theirs).unwrap();
        assert_eq!(adopted, ours);
        drop(ours);
        assert_eq!(adopted.export().unwrap().1, buffer.id());
        drop(adopted);
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 0));
    });
}

#[test]
fn a_released_handle_is_the_hosts_to_close() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let object = vgem.import(&buffer).unwrap().object().clone();
        let clone = object.clone();
        let released = object.release().unwrap();
        // The other clone does nothing to the handle any more.
        let handle = released.handle().raw();
        assert_eq!(clone.export().unwrap_err(), no_such_handle(&vgem, handle));
        assert!(clone.release().is_none());
        drop(buffer);
        assert_eq!((vgem.stats().handles, vgem.stats().closes), (0, 0));
        drm_ffi::gem::close(vgem.as_fd(), handle).unwrap();
        released.closed();
    });
}

fn no_such_handle(device: &Device, handle: u32) -> Error {
    Error::Export {
        device: device.to_string(),
        handle,
        errno: Errno::ENOENT,
    }
}

/// An object that was imported, and its dma-buf, once its handle was released to the host.
fn released(vgem: &Device, vkms: &Device) -> (Released, DmaBuf) {
    let buffer = buffer_on(vgem);
    let object = vkms.import(&buffer).unwrap().object().clone();
    (object.release().unwrap(), buffer)
}

#[test]
fn an_import_of_what_was_released_leaves_the_handle_to_the_host() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (released, buffer) = released(&vgem, &vkms);
        for _ in 0..2 {
            let again = vkms.import(&buffer).unwrap();
            assert_eq!(again.origin(), ImportOrigin::AlreadyImported);
            assert_eq!(again.object().handle(), released.handle());
            assert_eq!(again.object().export().unwrap().1, buffer.id());
            drop(again);
            // The host's handle is as good as before.
            let handle = released.handle().raw();
            assert!(Gem(vkms.as_fd()).export_writable(handle).is_ok());
        }
        assert_eq!((vkms.stats().handles, vkms.stats().closes), (0, 0));
        released.close().unwrap();
        let anew = vkms.import(&buffer).unwrap();
        assert_eq!(anew.origin(), ImportOrigin::New);
        drop(anew);
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (2, 0));
    });
}

#[test]
fn an_object_on_a_handle_that_the_host_closed_is_of_no_use_and_closes_nothing() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (released, buffer) = released(&vgem, &vkms);
        let again = vkms.import(&buffer).unwrap().object().clone();
        let handle = released.handle().raw();
        Gem(vkms.as_fd()).close(handle).unwrap();
        released.closed();
        assert_eq!(again.export().unwrap_err(), no_such_handle(&vkms, handle));
        let anew = vkms.import(&buffer).unwrap();
        assert_eq!(anew.origin(), ImportOrigin::New);
        drop(again);
        assert_eq!(anew.object().export().unwrap().1, buffer.id());
    });
}

#[test]
fn what_was_imported_after_the_hosts_close_is_the_librarys() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (released, buffer) = released(&vgem, &vkms);
        Gem(vkms.as_fd()).close(released.handle().raw()).unwrap();
        // Before the host has said so: the kernel gives the new handle the old number.
        let again = vkms.import(&buffer).unwrap().object().clone();
        assert_eq!(again.handle(), released.handle());
        released.closed();
        assert_eq!(again.export().unwrap().1, buffer.id());
        drop(again);
        // `in_guest` finds a handle that was left open.
        assert_eq!((vkms.stats().handles, vkms.stats().failed_closes), (0, 0));
    });
}

#[test]
fn the_number_of_a_handle_that_the_host_closed_serves_another_object() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (released, buffer) = released(&vgem, &vkms);
        Gem(vkms.as_fd()).close(released.handle().raw()).unwrap();
        let other = buffer_on(&vgem);
        let imported = vkms.import(&other).unwrap();
        assert_eq!(imported.object().handle(), released.handle());
        assert_eq!(imported.origin(), ImportOrigin::New);
        // If the host says that the old handle is closed, that does not affect the new one.
        released.clone().closed();
        assert!(matches!(released.close(), Err(Error::Close { .. })));
        assert_eq!(imported.object().export().unwrap().1, other.id());
        drop((imported, buffer));
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 0));
    });
}

#[test]
fn a_released_handle_is_the_librarys_again_once_it_is_adopted() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (released, buffer) = released(&vgem, &vkms);
        let borrowed = vkms.import(&buffer).unwrap().object().clone();
        let adopted = vkms.adopt(released.handle().raw()).unwrap();
        assert_eq!(adopted, borrowed);
        drop((adopted, borrowed));
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 0));
        assert!(matches!(released.close(), Err(Error::Close { .. })));
    });
}

#[test]
fn a_handle_that_is_not_open_is_not_adopted() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        assert_eq!(vkms.adopt(7).unwrap_err(), no_such_handle(&vkms, 7));
        // The table does not use a handle that the host closed.
        let buffer = buffer_on(&vgem);
        let object = vkms.import(&buffer).unwrap().object().clone();
        let handle = object.handle().raw();
        Gem(vkms.as_fd()).close(handle).unwrap();
        assert_eq!(
            vkms.adopt(handle).unwrap_err(),
            no_such_handle(&vkms, handle)
        );
        let anew = vkms.import(&buffer).unwrap();
        assert_eq!(anew.origin(), ImportOrigin::New);
        assert_eq!(anew.object().export().unwrap().1, buffer.id());
        drop((object, anew));
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 1));
    });
}

/// What mapping an object as a dumb buffer gives.
fn map(device: &Device, object: &Object) -> Result<(), device::Error> {
    let page = 4096.try_into().unwrap();
    device.map_dumb(object, page).map(drop)
}

fn not_mapped(device: &Device, handle: u32) -> device::Error {
    device::Error::Gem(Error::MapDumb {
        device: device.to_string(),
        handle,
        errno: Errno::ENOENT,
    })
}

#[test]
fn a_released_object_is_not_mapped() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let object = vgem.import(&buffer).unwrap().object().clone();
        assert_eq!(map(&vgem, &object), Ok(()));
        let released = object.clone().release().unwrap();
        let handle = released.handle().raw();
        drop(buffer);
        released.close().unwrap();
        // The kernel gives the number to another object, whose memory is not this one's.
        let other = own_handle(&vgem);
        assert_eq!(other, handle);
        assert_eq!(map(&vgem, &object), Err(not_mapped(&vgem, handle)));
        Gem(vgem.as_fd()).close(other).unwrap();
    });
}

#[test]
fn an_object_whose_number_was_recycled_behind_our_back_is_not_mapped() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let object = vgem.import(&buffer).unwrap().object().clone();
        let handle = object.handle().raw();
        Gem(vgem.as_fd()).close(handle).unwrap();
        assert_eq!(own_handle(&vgem), handle);
        assert_eq!(map(&vgem, &object), Err(not_mapped(&vgem, handle)));
        drop((object, buffer));
        Gem(vgem.as_fd()).close(handle).unwrap();
    });
}

#[test]
fn zero_is_no_handle() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let device = vgem.to_string();
        assert_eq!(vgem.adopt(0).unwrap_err(), Error::NoHandle { device });
    });
}

#[test]
fn a_flink_name_opens_another_handle_of_the_same_object() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let object = vgem.import(&buffer).unwrap().object().clone();
        let name = crate::kernel::flink(vgem.as_fd(), object.handle().raw());
        let (first, second) = (vgem.open_name(name).unwrap(), vgem.open_name(name).unwrap());
        // Each opening is a handle of its own ...
        assert_ne!(first.handle(), object.handle());
        assert_ne!(first.handle(), second.handle());
        assert_eq!(vgem.stats().handles, 3);
        // ... of one object.
        for opened in [&first, &second] {
            assert_eq!(opened.export().unwrap().1, buffer.id());
        }
        // They may be dropped in any order. The buffer is found by those that are left.
        drop(second);
        assert!(vgem.import(&buffer).is_ok());
        drop((object, first));
        assert_eq!(
            vgem.import(&buffer).unwrap().object().export().unwrap().1,
            buffer.id()
        );
        drop(buffer);
        assert_eq!((vgem.stats().handles, vgem.stats().closes), (0, 3));
        assert_eq!(vgem.stats().failed_closes, 0);
    });
}

#[test]
fn a_name_that_nobody_has_is_a_typed_error() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        assert_eq!(
            vgem.open_name(0x7fff_ffff).unwrap_err(),
            Error::OpenName {
                device: vgem.to_string(),
                name: 0x7fff_ffff,
                errno: Errno::ENOENT
            }
        );
    });
}

#[test]
fn handles_from_getfb2_are_fresh_and_can_be_adopted() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        drm_ffi::auth::acquire_master(vkms.as_fd()).unwrap();
        let buffer = buffer_on(&vkms);
        let object = vkms.import(&buffer).unwrap().object().clone();
        let framebuffer = crate::kernel::Framebuffer::new(&vkms, &buffer, object.handle().raw());
        let fresh = [framebuffer.handle(), framebuffer.handle()];
        assert!(!fresh.contains(&object.handle().raw()));
        assert_ne!(fresh[0], fresh[1]);
        let adopted = fresh.map(|handle| vkms.adopt(handle).unwrap());
        assert_eq!(vkms.stats().handles, 3);
        for object in &adopted {
            assert_eq!(object.export().unwrap().1, buffer.id());
        }
        drop((adopted, framebuffer, object, buffer));
        assert_eq!((vkms.stats().handles, vkms.stats().closes), (0, 3));
        drm_ffi::auth::release_master(vkms.as_fd()).unwrap();
    });
}
