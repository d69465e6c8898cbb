//! Who may do what with an object's memory.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;

use super::{LENGTH, every_exporter};
use crate::kernel::{Gem, flags};
use crate::support::in_guest;

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Maps the first page and unmaps it.
fn map(fd: impl AsFd, protection: ProtFlags, flags: MapFlags) -> Result<(), Errno> {
    // SAFETY: a new mapping disturbs no other, and nothing uses it before it goes.
    unsafe {
        let address = mmap(None, PAGE, protection, flags, fd, 0)?;
        munmap(address, PAGE.get())
    }
}

#[test]
fn the_first_export_fixes_the_access_mode() {
    in_guest(|guest| {
        let read_only = libc::O_CLOEXEC;
        let writable = libc::O_CLOEXEC | libc::O_RDWR;
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            for (first, is_writable) in [(read_only, false), (writable, true)] {
                let handle = gem.create().unwrap();
                let fds = [
                    gem.export(handle, first).unwrap(),
                    gem.export(handle, read_only).unwrap(),
                    gem.export(handle, writable).unwrap(),
                ];
                for fd in &fds {
                    assert_eq!(flags(fd.as_fd()), (true, is_writable));
                    let wanted = if is_writable {
                        Ok(())
                    } else {
                        Err(Errno::EACCES)
                    };
                    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
                    assert_eq!(map(fd, protection, MapFlags::MAP_SHARED), wanted);
                    let reading = map(fd, ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
                    assert_eq!(reading, Ok(()));
                }
                // Opening it anew is no way round it.
                let path = format!("/proc/self/fd/{}", fds[0].as_raw_fd());
                let reopened = open(path.as_str(), OFlag::O_RDWR, Mode::empty());
                assert_eq!(reopened.unwrap_err(), Errno::ENXIO);
                gem.close(handle).unwrap();
            }
        }
    });
}

#[test]
fn close_on_exec_is_of_each_fd() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            let handle = gem.create().unwrap();
            let close_on_exec = |wanted| flags(gem.export(handle, wanted).unwrap().as_fd()).0;
            assert!(!close_on_exec(libc::O_RDWR));
            assert!(close_on_exec(libc::O_RDWR | libc::O_CLOEXEC));
            assert!(!close_on_exec(libc::O_RDWR));
            gem.close(handle).unwrap();
        }
    });
}

#[test]
fn a_foreign_import_has_no_place_in_the_devices_file() {
    in_guest(|guest| {
        for device in guest.devices() {
            let gem = Gem(device.as_fd());
            for (exporter, fd) in every_exporter(guest) {
                let handle = gem.import(&fd).unwrap();
                // Exporters have file descriptions of their own, so all of them are foreign; but a
                // driver knows its own objects, and those are not.
                let own = exporter == device.to_string();
                let mapped = gem.map_dumb(handle).map(drop);
                let wanted = if own { Ok(()) } else { Err(Errno::EINVAL) };
                assert_eq!(mapped, wanted, "{exporter} on {device}");
                gem.close(handle).unwrap();
            }
            let handle = gem.create().unwrap();
            assert!(gem.map_dumb(handle).is_ok());
            gem.close(handle).unwrap();
        }
    });
}

#[test]
fn private_mappings_are_refused_but_of_heaps() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            let private = map(&fd, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
            let wanted = match exporter.as_str() {
                "heap" => Ok(()),
                _ => Err(Errno::EINVAL),
            };
            assert_eq!(private, wanted, "{exporter}");
        }
    });
}

#[test]
fn a_mapping_keeps_to_the_size() {
    in_guest(|guest| {
        for (exporter, fd) in every_exporter(guest) {
            let whole = NonZeroUsize::new(LENGTH as usize + 4096).unwrap();
            let (read, shared) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
            // SAFETY: a new mapping disturbs no other; it is refused.
            let refused = unsafe { mmap(None, whole, read, shared, &fd, 0) };
            assert_eq!(refused.unwrap_err(), Errno::EINVAL, "{exporter}");
        }
    });
}
