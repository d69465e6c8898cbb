//! Handles that pass between the library and the host program's own code.

use std::os::fd::AsFd;

use primeshare::Errno;
use primeshare::gem::{Error, Found};

use crate::support::{buffer_on, in_guest};

/// A dumb buffer by the host program's own ioctl.
fn own_handle(device: &primeshare::Device) -> u32 {
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
        assert_eq!((found, &again), (Found::AlreadyImported, &object));
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
        let handle = object.release().unwrap();
        // What is left of it does nothing to the handle any more.
        assert_eq!(
            clone.export().unwrap_err(),
            Error::Export {
                device: vgem.to_string(),
                handle: handle.raw(),
                errno: Errno::ENOENT
            }
        );
        assert_eq!(clone.release(), None);
        drop(buffer);
        assert_eq!((vgem.stats().handles, vgem.stats().closes), (0, 0));
        drm_ffi::gem::close(vgem.as_fd(), handle.raw()).unwrap();
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
        // They go in any order, and the buffer is found by what is left.
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
