//! System calls that are forbidden to this process.

use std::thread;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Runs `work` in a child that the kernel kills at any system call but read, write and exit, and
/// says how it ended: status 0 where `work` was true.
pub(crate) fn in_strict_mode(work: impl FnOnce() -> bool) -> WaitStatus {
    // SAFETY: the child makes no system call, takes no lock that another thread may hold but the
    // table's (tests run one at a time), and leaves without running destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            // SAFETY: prctl and exit take integers. Not exit_group, which strict mode forbids.
            unsafe {
                if libc::prctl(libc::PR_SET_SECCOMP, 1) != 0 {
                    libc::_exit(77);
                }
                let status = if work() { 0 } else { 1 };
                libc::syscall(libc::SYS_exit, status);
            }
            unreachable!("exit does not return")
        }
    }
}

/// `F_DUPFD_QUERY` of `include/uapi/linux/fcntl.h`.
const F_DUPFD_QUERY: libc::c_int = 1024 + 3;

/// Forbids `kcmp` to this thread and those it will start, for good, as container runtimes do.
pub(crate) fn forbid_kcmp() {
    install(&[
        load(NUMBER),
        skip_unless(libc::SYS_kcmp as u32, 1),
        deny(libc::EPERM),
        allow(),
    ]);
    // SAFETY: kcmp takes integers only.
    let refused = unsafe { libc::syscall(libc::SYS_kcmp, 0, 0, 0, 0, 0) };
    assert_eq!((refused, Errno::last()), (-1, Errno::EPERM));
}

/// Lets `fcntl` answer to F_DUPFD_QUERY what kernels before 6.10 do.
pub(crate) fn forbid_dupfd_query() {
    install(&[
        load(NUMBER),
        skip_unless(libc::SYS_fcntl as u32, 3),
        load(SECOND_ARGUMENT),
        skip_unless(F_DUPFD_QUERY as u32, 1),
        deny(libc::EINVAL),
        allow(),
    ]);
    // SAFETY: the command takes an integer.
    let refused = unsafe { libc::fcntl(0, F_DUPFD_QUERY, 0) };
    assert_eq!((refused, Errno::last()), (-1, Errno::EINVAL));
}

/// Runs `work` in a thread to which the kernel answers each of these ioctls with an errno, as if it
/// had no code for it.
pub(crate) fn without_ioctls<R: Send>(
    commands: &[u32],
    errno: primeshare::Errno,
    work: impl FnOnce() -> R + Send,
) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            for &command in commands {
                install(&[
                    load(NUMBER),
                    skip_unless(libc::SYS_ioctl as u32, 3),
                    load(SECOND_ARGUMENT),
                    skip_unless(command, 1),
                    deny(errno.raw()),
                    allow(),
                ]);
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// Has this thread get SIGSYS in place of an ioctl, for good, unless the call has a certain fourth
/// argument, of which ioctl has no use.
pub(crate) fn trap_ioctl(command: u32, unless_fourth: u32) {
    install(&[
        load(NUMBER),
        skip_unless(libc::SYS_ioctl as u32, 6),
        load(SECOND_ARGUMENT),
        skip_unless(command, 4),
        load(FOURTH_ARGUMENT),
        skip_unless(unless_fourth, 1),
        allow(),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_TRAP),
        allow(),
    ]);
}

/// Forbids netlink sockets to this thread, for good, as sandboxes do.
pub(crate) fn forbid_netlink() {
    install(&[
        load(NUMBER),
        skip_unless(libc::SYS_socket as u32, 3),
        load(FIRST_ARGUMENT),
        skip_unless(libc::AF_NETLINK as u32, 1),
        deny(libc::EPERM),
        allow(),
    ]);
}

/// Places in `struct seccomp_data`, on a little-endian machine.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;
const FOURTH_ARGUMENT: u32 = 40;

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset)
}

fn skip_unless(value: u32, skipped: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, value)
}

fn deny(errno: i32) -> libc::sock_filter {
    let action = libc::SECCOMP_RET_ERRNO | errno as u32;
    instruction(libc::BPF_RET | libc::BPF_K, 0, action)
}

fn allow() -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW)
}

fn instruction(code: u32, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    }
}

fn install(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives both calls, and does not write to it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &program), 0);
    }
}
