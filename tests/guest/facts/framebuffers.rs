//! Framebuffers, of which the kernel checks little.

use std::os::fd::AsFd;

use nix::errno::Errno;
use primeshare::{Device, Fourcc};

use super::SIZE;
use crate::kernel::{Gem, errno};
use crate::support::{Guest, in_guest, next_handle};

const MODIFIERS: u32 = 2;

/// A vkms device of which we are the master, and a dumb buffer of [`SIZE`] bytes on it.
fn as_master(test: impl Fn(&Device, u32)) {
    in_guest(|guest: &Guest| {
        for device in [guest.vkms(), guest.third()] {
            drm_ffi::auth::acquire_master(device.as_fd()).unwrap();
            let handle = Gem(device.as_fd()).create().unwrap();
            test(&device, handle);
            Gem(device.as_fd()).close(handle).unwrap();
            assert_eq!(next_handle(&device), 1, "{device}");
            drm_ffi::auth::release_master(device.as_fd()).unwrap();
        }
    });
}

#[derive(Clone, Copy)]
struct Picture {
    size: (u32, u32),
    fourcc: u32,
    handle: u32,
    pitch: u32,
    offset: u32,
    modifier: u64,
    flags: u32,
}

/// 64 times 64 pixels of 4 bytes.
fn picture(handle: u32) -> Picture {
    Picture {
        size: (64, 64),
        fourcc: Fourcc::XRGB8888.0,
        handle,
        pitch: 256,
        offset: 0,
        modifier: 0,
        flags: 0,
    }
}

/// MODE_ADDFB2.
fn add(device: &Device, picture: Picture) -> Result<u32, Errno> {
    let first = |value| [value, 0, 0, 0];
    let added = drm_ffi::mode::add_fb2(
        device.as_fd(),
        picture.size.0,
        picture.size.1,
        picture.fourcc,
        &first(picture.handle),
        &first(picture.pitch),
        &first(picture.offset),
        &[picture.modifier, 0, 0, 0],
        picture.flags,
    );
    added.map(|added| added.fb_id).map_err(errno)
}

/// Adds it and takes it away again.
fn accepts(device: &Device, picture: Picture) -> Result<(), Errno> {
    let id = add(device, picture)?;
    drm_ffi::mode::rm_fb(device.as_fd(), id).map_err(errno)
}

#[test]
fn a_framebuffers_handles_are_fresh_with_every_question() {
    as_master(|device, handle| {
        let gem = Gem(device.as_fd());
        let id = add(device, picture(handle)).unwrap();
        // GETFB2 and GETFB.
        let by_2 = || drm_ffi::mode::get_framebuffer2(device.as_fd(), id).unwrap();
        let by_1 = || drm_ffi::mode::get_framebuffer(device.as_fd(), id).unwrap();
        let mut handles = vec![
            handle,
            by_2().handles[0],
            by_1().handle,
            by_2().handles[0],
            by_1().handle,
        ];
        handles.sort_unstable();
        assert_eq!(handles, [1, 2, 3, 4, 5]);
        // All of one object, and each is to be closed.
        for handle in handles.into_iter().filter(|other| *other != handle) {
            gem.export_writable(handle).unwrap();
            gem.close(handle).unwrap();
        }
        drm_ffi::mode::rm_fb(device.as_fd(), id).unwrap();
    });
}

#[test]
fn a_framebuffer_keeps_its_object_when_the_handle_is_closed() {
    as_master(|device, _| {
        let gem = Gem(device.as_fd());
        let closed = gem.create().unwrap();
        let id = add(device, picture(closed)).unwrap();
        gem.close(closed).unwrap();
        let fb = drm_ffi::mode::get_framebuffer2(device.as_fd(), id).unwrap();
        assert!(gem.export_writable(fb.handles[0]).is_ok());
        gem.close(fb.handles[0]).unwrap();
        drm_ffi::mode::rm_fb(device.as_fd(), id).unwrap();
    });
}

#[test]
fn what_no_framebuffer_can_be_is_told_by_errno() {
    as_master(|device, handle| {
        let good = picture(handle);
        assert_eq!(accepts(device, good), Ok(()));
        let refused = |picture| accepts(device, picture).unwrap_err();
        // Arithmetic that overflows.
        let size = (64, 64);
        for (pitch, offset) in [(u32::MAX, 0), (1 << 27, u32::MAX), (256, u32::MAX)] {
            let huge = Picture {
                size,
                pitch,
                offset,
                ..good
            };
            assert_eq!(refused(huge), Errno::ERANGE, "{device}: {pitch} {offset}");
        }
        // A handle that is none.
        let nobody = Picture {
            handle: 1000,
            ..good
        };
        assert_eq!(refused(nobody), Errno::ENOENT);
        // Everything else.
        let wrong = [
            Picture { handle: 0, ..good },
            Picture {
                size: (0, 64),
                ..good
            },
            Picture {
                size: (64, 0),
                ..good
            },
            Picture {
                size: (1 << 20, 64),
                ..good
            },
            Picture {
                fourcc: 0x1234_5678,
                ..good
            },
            Picture { pitch: 0, ..good },
            Picture { pitch: 255, ..good },
            Picture {
                modifier: 7,
                ..good
            },
            Picture {
                modifier: 0x0100_0000_0000_0001,
                flags: MODIFIERS,
                ..good
            },
            Picture {
                flags: 1 << 31,
                ..good
            },
        ];
        for (number, picture) in wrong.into_iter().enumerate() {
            assert_eq!(refused(picture), Errno::EINVAL, "{device}: number {number}");
        }
    });
}

#[test]
fn vkms_looks_at_bounds_and_at_nothing_else() {
    as_master(|device, handle| {
        let good = picture(handle);
        // Past the end of the object, by a byte.
        let rows = SIZE as u32 / 256;
        let past = [
            Picture {
                size: (64, rows + 1),
                ..good
            },
            Picture { offset: 1, ..good },
            Picture { pitch: 257, ..good },
        ];
        for picture in past {
            assert_eq!(accepts(device, picture), Err(Errno::EINVAL), "{device}");
        }
        // Pitches and offsets that no scanout hardware would take.
        let odd = Picture {
            size: (63, 63),
            pitch: 257,
            offset: 3,
            ..good
        };
        assert_eq!(accepts(device, odd), Ok(()), "{device}");
    });
}
