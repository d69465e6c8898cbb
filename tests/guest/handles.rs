//! One object, one handle, closed once.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use primeshare::buffer::PlaneFd;
use primeshare::gem::ImportOrigin;
use primeshare::{Allocator, BufferDesc, Device, DmaBuf, Errno, Fourcc, Request};

use crate::support::{buffer_on, in_guest, of_two_dma_bufs};

/// A buffer of two planes in one dma-buf.
fn nv12_on(device: &Device) -> DmaBuf {
    let request = Request::new(64, 64, Fourcc::NV12);
    let buffer = primeshare::alloc::Dumb::new(device).allocate(&request);
    buffer.unwrap()
}

#[test]
fn a_foreign_buffer_is_new_once_and_known_after() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let first = vkms.import(&buffer).unwrap();
        assert_eq!(first.origin(), ImportOrigin::New);
        let second = vkms.import(&buffer).unwrap();
        assert_eq!(second.origin(), ImportOrigin::AlreadyImported);
        assert_eq!(second.object(), first.object());
        drop((first, second));
        assert_eq!(vkms.stats().handles, 0);
        assert_eq!(vkms.import(&buffer).unwrap().origin(), ImportOrigin::New);
    });
}

#[test]
fn a_self_import_gives_the_handle_there_is() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let imported = vgem.import(&buffer).unwrap();
        assert_eq!(imported.origin(), ImportOrigin::SelfImport);
        // The kernel agrees: asked behind the table's back it names the same handle.
        let kernel = drm_ffi::gem::fd_to_handle(vgem.as_fd(), buffer.plane_fd(0).unwrap());
        assert_eq!(kernel.unwrap().handle, imported.object().handle().raw());
        assert_eq!(vgem.stats().handles, 1);
        assert_eq!(vgem.stats().imports, 0);
    });
}

#[test]
fn a_self_import_may_be_closed_in_any_order() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let buffer = buffer_on(&vgem);
            let by_buffer = vgem.import(&buffer).unwrap();
            let (by_fd, found) = vgem.import_fd(buffer.plane_fd(0).unwrap()).unwrap();
            assert_eq!(found, ImportOrigin::SelfImport);
            let before = vgem.stats();
            let mut buffer = Some(buffer);
            let mut by_buffer = Some(by_buffer);
            let mut by_fd = Some(by_fd);
            for (step, which) in order.into_iter().enumerate() {
                assert_eq!(vgem.stats().handles, 1, "{order:?} step {step}");
                match which {
                    0 => drop(buffer.take()),
                    1 => drop(by_buffer.take()),
                    _ => drop(by_fd.take()),
                }
            }
            let after = vgem.stats();
            assert_eq!(after.handles, 0, "{order:?}");
            assert_eq!(after.closes - before.closes, 1, "{order:?}");
            assert_eq!(after.failed_closes, 0, "{order:?}");
        }
    });
}

#[test]
fn planes_in_one_object_share_its_handle_and_close_it_once() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = nv12_on(&vgem);
        assert_eq!(buffer.planes().len(), 2);
        assert_eq!(buffer.objects().len(), 1);
        let imported = vkms.import(&buffer).unwrap();
        assert_eq!(imported.plane(0), imported.plane(1));
        assert_eq!(imported.plane(2), None);
        assert_eq!(vkms.stats().handles, 1);
        drop(imported);
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 0));
    });
}

#[test]
fn planes_that_come_with_an_fd_each_are_still_one_object() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let original = nv12_on(&vgem);
        let planes = original.planes().iter().map(|plane| PlaneFd {
            fd: original.objects()[0].as_fd().try_clone_to_owned().unwrap(),
            offset: plane.offset,
            stride: plane.stride,
        });
        let received = DmaBuf::new(*original.desc(), planes.collect::<Vec<_>>()).unwrap();
        assert_eq!(received, original);
        assert_eq!(received.objects().len(), 1);
        let imported = vkms.import(&received).unwrap();
        assert_eq!(imported.objects().len(), 1);
        drop((imported, received));
        assert_eq!((vkms.stats().closes, vkms.stats().failed_closes), (1, 0));
    });
}

#[test]
fn planes_in_two_objects_have_a_handle_each() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (luma, chroma) = (buffer_on(&vgem), buffer_on(&vgem));
        let both = of_two_dma_bufs(&luma, &chroma);
        assert_eq!(both.objects().len(), 2);
        let imported = vkms.import(&both).unwrap();
        assert_ne!(imported.plane(0), imported.plane(1));
        assert_eq!(vkms.stats().handles, 2);
        // One of them stays in use by another import.
        let luma_alone = vkms.import(&luma).unwrap();
        assert_eq!(luma_alone.origin(), ImportOrigin::AlreadyImported);
        drop(imported);
        assert_eq!(vkms.stats().handles, 1);
    });
}

#[test]
fn a_known_buffer_is_imported_without_asking_the_kernel() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let first = vkms.import(&buffer).unwrap();
        let known = vkms.import(&buffer).unwrap();
        drop(known);
        // Only read, write and exit are left to the child: any other system call kills it.
        let ended = crate::kernel::seccomp::in_strict_mode(|| {
            (0..1000).all(|_| {
                let known = vkms.import(&buffer);
                matches!(known, Ok(known) if known.origin() == ImportOrigin::AlreadyImported)
            })
        });
        assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        // An unknown fd needs a system call, so this shows that the trap works.
        let ended = crate::kernel::seccomp::in_strict_mode(|| {
            vkms.import_fd(buffer.plane_fd(0).unwrap()).is_ok()
        });
        let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        assert!(killed, "{ended:?}");
        drop(first);
    });
}

#[test]
fn buffers_outlive_their_device() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let vkms = guest.vkms();
        let buffer = buffer_on(&vgem);
        let imported = vkms.import(&buffer).unwrap();
        drop((vgem, vkms));
        let (fd, id) = imported.object().export().unwrap();
        assert_eq!(id, buffer.id());
        drop((fd, buffer));
        let mut mapping = primeshare::sync::Mapping::new(&imported.object().export().unwrap().0);
        assert!(mapping.as_mut().unwrap().size() >= 64 * 64 * 4);
    });
}

#[test]
fn a_handle_closed_behind_our_back_is_a_typed_error() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let object = vgem.import(&buffer).unwrap().object().clone();
        let handle = object.handle().raw();
        drm_ffi::gem::close(vgem.as_fd(), handle).unwrap();
        assert_eq!(
            object.export().unwrap_err(),
            primeshare::gem::Error::Export {
                device: vgem.to_string(),
                handle,
                errno: Errno::ENOENT
            }
        );
        // It is not found any more, and not closed a second time.
        let (anew, found) = vgem.import_fd(buffer.plane_fd(0).unwrap()).unwrap();
        assert_eq!(found, ImportOrigin::New);
        drop((object, buffer, anew));
        assert_eq!(vgem.stats().failed_closes, 1);
        assert_eq!(vgem.stats().handles, 0);
    });
}

#[test]
fn a_number_recycled_behind_our_back_is_not_taken_for_the_old_buffer() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let old = buffer_on(&vgem);
        let old_object = vgem.import(&old).unwrap().object().clone();
        let handle = old_object.handle();
        drm_ffi::gem::close(vgem.as_fd(), handle.raw()).unwrap();
        // The kernel gives the number to the next object.
        let new = buffer_on(&vgem);
        let new_object = vgem.import(&new).unwrap().object().clone();
        assert_eq!(new_object.handle(), handle);
        // The old buffer is not the new one's memory: neither through its object ...
        let refused = old_object.export().unwrap_err();
        assert!(matches!(refused, primeshare::gem::Error::Export { .. }));
        assert_ne!(old_object, new_object);
        // ... nor through an import.
        let again = vgem.import(&old).unwrap();
        assert_ne!(again.object().handle(), handle);
        assert_eq!(again.object().export().unwrap().1, old.id());
        assert_eq!(new_object.export().unwrap().1, new.id());
        // And what is left of the old object does not close the new one's handle.
        drop((old_object, old, again));
        assert_eq!(new_object.export().unwrap().1, new.id());
        drop((new_object, new));
        assert_eq!((vgem.stats().handles, vgem.stats().failed_closes), (0, 0));
    });
}

#[test]
fn what_is_no_dma_buf_is_refused_with_the_reason() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let error = vgem.import_fd(&file).unwrap_err();
        assert_eq!(
            error,
            primeshare::gem::Error::Identify {
                device: vgem.to_string(),
                errno: Errno::EINVAL
            }
        );
        assert!(error.to_string().contains("vgem"), "{error}");

        let layout = BufferDesc::linear(1, 1, Fourcc::XRGB8888);
        let plane = |fd| PlaneFd {
            fd,
            offset: 0,
            stride: 4,
        };
        assert_eq!(
            DmaBuf::new(layout, [plane(file.into())]).unwrap_err(),
            primeshare::buffer::Error::NotADmaBuf { plane: 0 }
        );
        // SAFETY: a negative number is no fd to be owned.
        let minus_one = unsafe { PlaneFd::from_raw(-1, 0, 4) };
        assert_eq!(minus_one.unwrap_err(), primeshare::buffer::Error::BadFd(-1));
    });
}

#[test]
fn a_refused_description_closes_every_fd_that_came_with_it() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let dup = || buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
        let plane = |offset| PlaneFd {
            fd: dup(),
            offset,
            stride: 256,
        };
        let size = buffer.objects()[0].size();
        let layout = BufferDesc::linear(64, 64, Fourcc::XRGB8888);
        let last = u32::try_from(size).unwrap() - 64 * 256;
        assert_eq!(
            DmaBuf::new(layout, [plane(last + 4)]).unwrap_err(),
            primeshare::buffer::Error::OutOfBounds {
                plane: 0,
                end: size + 4,
                size
            }
        );
        assert_eq!(
            DmaBuf::new(layout, (0..5).map(plane)).unwrap_err(),
            primeshare::buffer::Error::PlaneCount(5)
        );
        assert_eq!(
            DmaBuf::new(layout, []).unwrap_err(),
            primeshare::buffer::Error::PlaneCount(0)
        );
        // If an fd was left open, `in_guest` finds it.
    });
}
