//! What becomes a udmabuf.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use crate::kernel::dma_buf::{udmabuf, udmabuf_with};
use crate::kernel::flags;
use crate::support::in_guest;

const PAGE: u64 = 4096;

/// A memfd of so many pages.
fn memory(pages: u64, seals: SealFlag) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"test", flags).unwrap();
    ftruncate(&memory, (pages * PAGE) as i64).unwrap();
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    memory
}

#[test]
fn memory_must_not_shrink_and_must_be_writable() {
    in_guest(|_| {
        let shrink = SealFlag::F_SEAL_SHRINK;
        assert!(udmabuf(memory(1, shrink), 0, PAGE).is_ok());
        let grow = memory(1, shrink | SealFlag::F_SEAL_GROW);
        assert!(udmabuf(grow, 0, PAGE).is_ok());
        for seals in [
            SealFlag::empty(),
            SealFlag::F_SEAL_GROW,
            shrink | SealFlag::F_SEAL_WRITE,
        ] {
            let refused = udmabuf(memory(1, seals), 0, PAGE).unwrap_err();
            assert_eq!(refused, Errno::EINVAL, "{seals:?}");
        }
        // Sealable at all.
        let plain = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&plain, PAGE as i64).unwrap();
        assert_eq!(udmabuf(plain, 0, PAGE).unwrap_err(), Errno::EINVAL);
    });
}

#[test]
fn places_are_whole_pages_inside_the_memory() {
    in_guest(|_| {
        let memory = memory(4, SealFlag::F_SEAL_SHRINK);
        for (offset, size) in [(0, 4 * PAGE), (PAGE, 3 * PAGE), (3 * PAGE, PAGE)] {
            assert!(udmabuf(&memory, offset, size).is_ok(), "{offset} {size}");
        }
        for (offset, size) in [
            (0, 1),
            (0, PAGE - 1),
            (1, PAGE),
            (PAGE / 2, PAGE),
            (0, 0),
            (0, 5 * PAGE),
            (4 * PAGE, PAGE),
            (u64::MAX - PAGE + 1, 2 * PAGE),
        ] {
            let refused = udmabuf(&memory, offset, size).unwrap_err();
            assert_eq!(refused, Errno::EINVAL, "{offset} {size}");
        }
    });
}

#[test]
fn sizes_have_a_limit_of_the_modules() {
    in_guest(|_| {
        let limit = fs::read_to_string("/sys/module/udmabuf/parameters/size_limit_mb").unwrap();
        let pages = limit.trim().parse::<u64>().unwrap() * 1024 * 1024 / PAGE;
        // Of memory that is never touched.
        let memory = memory(pages + 1, SealFlag::F_SEAL_SHRINK);
        let refused = udmabuf(&memory, 0, (pages + 1) * PAGE).unwrap_err();
        assert_eq!(refused, Errno::EINVAL);
    });
}

#[test]
fn fds_are_writable_and_close_on_exec_if_asked() {
    in_guest(|_| {
        let memory = memory(1, SealFlag::F_SEAL_SHRINK);
        for close_on_exec in [false, true] {
            let fd = udmabuf_with(&memory, u32::from(close_on_exec), 0, PAGE).unwrap();
            assert_eq!(flags(fd.as_fd()), (close_on_exec, true));
        }
    });
}

#[test]
fn only_memory_files_become_one() {
    in_guest(|_| {
        let file = fs::File::open("/dev/null").unwrap();
        assert!(file.as_raw_fd() > 2);
        let refused = udmabuf(&file, 0, PAGE).unwrap_err();
        assert!(
            matches!(refused, Errno::EBADFD | Errno::EINVAL | Errno::EBADF),
            "{refused}"
        );
    });
}

#[test]
fn the_node_belongs_to_root() {
    in_guest(|_| {
        let node = fs::metadata("/dev/udmabuf").unwrap();
        assert_eq!((node.uid(), node.mode() & 0o777), (0, 0o600));
    });
}
