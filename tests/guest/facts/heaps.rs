//! What dma-buf heaps give.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

use crate::kernel::dma_buf::heap;
use crate::kernel::flags;
use crate::support::in_guest;

const WRITABLE: i32 = libc::O_RDWR | libc::O_CLOEXEC;

#[test]
fn a_heap_gives_whole_pages() {
    in_guest(|_| {
        for (asked, given) in [(1, 4096), (4096, 4096), (4097, 8192)] {
            let fd = heap(asked, WRITABLE, 0).unwrap();
            assert_eq!(lseek64(&fd, 0, Whence::SeekEnd), Ok(given), "{asked}");
        }
    });
}

#[test]
fn a_heaps_fds_are_as_was_asked() {
    in_guest(|_| {
        for (wanted, is) in [
            (WRITABLE, (true, true)),
            (libc::O_RDWR, (false, true)),
            (libc::O_CLOEXEC, (true, false)),
        ] {
            assert_eq!(flags(heap(4096, wanted, 0).unwrap().as_fd()), is);
        }
    });
}

#[test]
fn what_a_heap_does_not_give_is_einval() {
    in_guest(|_| {
        let refused = |length, fd_flags, flags| heap(length, fd_flags, flags).unwrap_err();
        assert_eq!(refused(0, WRITABLE, 0), Errno::EINVAL);
        assert_eq!(refused(4096, WRITABLE | libc::O_APPEND, 0), Errno::EINVAL);
        assert_eq!(refused(4096, WRITABLE, 1), Errno::EINVAL);
        assert_eq!(refused(u64::MAX, WRITABLE, 0), Errno::EINVAL);
    });
}
