//! A kernel that refuses some ioctls, as old ones and sandboxes do: `seccomp(2)`.

use std::thread;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use primeshare::Errno;

/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE` and `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`.
pub(crate) const SYNC_FILE_IOCTLS: [u32; 2] = [0xc008_6202, 0x4008_6203];

/// Offsets into `struct seccomp_data` (little endian): the system call's number, the low half of
/// its second argument.
const NUMBER: u32 = 0;
const COMMAND: u32 = 24;

/// Runs `work` in a thread for which the kernel answers these ioctls with an errno, and has no
/// code for them.
pub(crate) fn without<R: Send>(
    ioctls: [u32; 2],
    errno: Errno,
    work: impl FnOnce() -> R + Send,
) -> R {
    thread::scope(|scope| {
        let refused = scope.spawn(move || {
            refuse(ioctls, errno);
            work()
        });
        refused.join().unwrap()
    })
}

/// For this thread, for good.
fn refuse(ioctls: [u32; 2], errno: Errno) {
    let load = |offset| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    let answer = |action| statement(BPF_RET | BPF_K, action);
    let equal = |value, yes, no| libc::sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: yes,
        jf: no,
        k: value,
    };
    let mut filter = [
        load(NUMBER),
        equal(libc::SYS_ioctl as u32, 0, 3),
        load(COMMAND),
        equal(ioctls[0], 2, 0),
        equal(ioctls[1], 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both take integers, or a program that outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program);
        assert_eq!(set, 0, "{}", Errno::last());
    }
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}
