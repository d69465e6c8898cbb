//! What the kernel says to what it does not do.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::every_exporter;
use crate::kernel::{Gem, errno};
use crate::support::in_guest;

/// `DRM_CAP_DUMB_BUFFER` and `DRM_CAP_PRIME` of `include/uapi/drm/drm.h`.
const CAP_DUMB_BUFFER: u64 = 1;
const CAP_PRIME: u64 = 5;

fn capability(gem: Gem<'_>, which: u64) -> Result<u64, Errno> {
    let answer = drm_ffi::get_capability(gem.0, which);
    answer.map(|answer| answer.value).map_err(errno)
}

#[test]
fn exports_have_two_flags() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            let handle = gem.create().unwrap();
            let both = libc::O_CLOEXEC | libc::O_RDWR;
            for bit in (0..32).map(|bit| 1 << bit) {
                let exported = gem.export(handle, bit).map(drop);
                let wanted = if bit & both != 0 {
                    Ok(())
                } else {
                    Err(Errno::EINVAL)
                };
                assert_eq!(exported, wanted, "{device}: {bit:#x}");
                assert_eq!(gem.export(handle, bit | both).map(drop), wanted);
            }
            gem.close(handle).unwrap();
        }
    });
}

#[test]
fn handles_that_are_none_are_not_exported_and_not_closed() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            let closed = gem.create().unwrap();
            gem.close(closed).unwrap();
            for handle in [0, closed, 1000, u32::MAX] {
                let refused = gem.export_writable(handle).unwrap_err();
                assert_eq!(refused, Errno::ENOENT, "{device}: {handle}");
                assert_eq!(gem.close(handle), Err(Errno::EINVAL), "{device}: {handle}");
                assert_eq!(gem.flink(handle), Err(Errno::ENOENT), "{device}: {handle}");
                assert_eq!(
                    gem.map_dumb(handle),
                    Err(Errno::ENOENT),
                    "{device}: {handle}"
                );
            }
            assert_eq!(gem.open_name(0x7fff_ffff), Err(Errno::ENOENT));
        }
    });
}

#[test]
fn only_dma_bufs_are_imported() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            for number in [-1, i32::MAX, i32::MIN] {
                assert_eq!(gem.import_number(number), Err(Errno::EBADF), "{number}");
            }
            let files: [OwnedFd; 4] = [
                File::open("/dev/null").unwrap().into(),
                File::open("/proc/self/exe").unwrap().into(),
                memfd_create(c"no dma-buf", MFdFlags::MFD_CLOEXEC).unwrap(),
                EventFd::new().unwrap().into(),
            ];
            for file in &files {
                assert_eq!(gem.import(file), Err(Errno::EINVAL));
            }
            assert_eq!(gem.import(&device), Err(Errno::EINVAL));
        }
    });
}

#[test]
fn render_nodes_share_but_make_nothing() {
    in_guest(|guest| {
        let render = guest.render_node();
        let gem = Gem(render.as_fd());
        assert_eq!(gem.create(), Err(Errno::EACCES));
        assert_eq!(gem.open_name(1), Err(Errno::EACCES));
        for (exporter, fd) in every_exporter(guest) {
            let handle = gem.import(&fd).unwrap();
            assert_eq!(gem.map_dumb(handle), Err(Errno::EACCES), "{exporter}");
            assert_eq!(gem.flink(handle), Err(Errno::EACCES), "{exporter}");
            assert!(gem.export_writable(handle).is_ok(), "{exporter}");
            assert_eq!(gem.close(handle), Ok(()), "{exporter}");
        }
    });
}

#[test]
fn capabilities_prove_nothing() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            // Import and export, whatever the driver can (since Linux 6.6).
            assert_eq!(capability(gem, CAP_PRIME), Ok(3), "{device}");
        }
        let vgem = guest.vgem();
        let gem = Gem(vgem.as_fd());
        assert_eq!(
            capability(gem, CAP_DUMB_BUFFER),
            Err(Errno::EOPNOTSUPP),
            "vgem refuses to be asked"
        );
        gem.close(gem.create().unwrap()).unwrap();
    });
}

#[test]
fn devices_without_a_gpu_have_no_syncobjs() {
    in_guest(|guest| {
        for device in guest.devices() {
            let refused = drm_ffi::syncobj::create(device.as_fd(), false).unwrap_err();
            assert_eq!(errno(refused), Errno::EOPNOTSUPP, "{device}");
        }
    });
}
