//! The system calls of a warm frame, one by one, and what each is for.
//!
//! The frames are made by a child that this process traces (`ptrace(2)`). Two calls that fail by design say where
//! the call of `Blitter::blit` begins and ends.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// fds that nobody has, closed before and after.
const BEGIN: i32 = -1001;
const END: i32 = -1002;

/// Runs `frame` in a traced child, between marks that [`count`] knows. Never returns in the child.
pub(crate) fn of_frames(frames: impl FnOnce() -> Result<()>) -> Result<Vec<Frame>> {
    // SAFETY: this process has one thread here, and the child goes on as if it had been started anew.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let traced = ptrace::traceme().and_then(|()| raise(Signal::SIGSTOP));
            let made = traced.map_err(Into::into).and_then(|()| frames());
            if let Err(error) = &made {
                eprintln!("{error:#}");
            }
            // SAFETY: nothing of the parent's is to be undone here.
            unsafe { libc::_exit(i32::from(made.is_err())) }
        }
        ForkResult::Parent { child } => watch(child),
    }
}

/// What the calling thread and the others did from one mark to the next.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) caller: BTreeMap<String, u32>,
    pub(crate) others: BTreeMap<String, u32>,
}

/// Around a call whose system calls are to be counted.
pub(crate) fn marked<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: no fd has this number.
    unsafe { libc::close(BEGIN) };
    let done = work();
    // SAFETY: as above.
    unsafe { libc::close(END) };
    done
}

fn watch(child: Pid) -> Result<Vec<Frame>> {
    let stopped = waitpid(child, None)?;
    ensure!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options)?;
    ptrace::syscall(child, None)?;
    let (mut frames, mut now) = (Vec::new(), None::<Frame>);
    // Whether a thread is inside of a call: it stops at both ends.
    let mut inside: BTreeMap<Pid, bool> = BTreeMap::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(thread) => {
                let is_inside = inside.entry(thread).or_default();
                *is_inside = !*is_inside;
                if *is_inside {
                    let call = Call::of(thread)?;
                    match call.mark() {
                        Some(true) => now = Some(Frame::default()),
                        Some(false) => frames.extend(now.take()),
                        None => {
                            if let Some(frame) = &mut now {
                                let counts = match thread == child {
                                    true => &mut frame.caller,
                                    false => &mut frame.others,
                                };
                                *counts.entry(call.name()).or_default() += 1;
                            }
                        }
                    }
                }
                ptrace::syscall(thread, None)?;
            }
            WaitStatus::Exited(thread, status) if thread == child => {
                ensure!(status == 0, "the traced process failed");
                return Ok(frames);
            }
            WaitStatus::Signaled(thread, signal, _) if thread == child => {
                bail!("ended by {signal}")
            }
            WaitStatus::Stopped(thread, signal) => {
                // A new thread begins with a stop of its own.
                let signal = (signal != Signal::SIGSTOP).then_some(signal);
                ptrace::syscall(thread, signal)?;
            }
            WaitStatus::PtraceEvent(thread, ..) => ptrace::syscall(thread, None)?,
            _ => {}
        }
    }
}

/// A system call as it begins.
struct Call {
    number: i64,
    first: i64,
    second: u64,
}

impl Call {
    #[cfg(target_arch = "x86_64")]
    fn of(thread: Pid) -> Result<Self> {
        let registers = ptrace::getregs(thread).context("PTRACE_GETREGS")?;
        Ok(Self {
            number: registers.orig_rax as i64,
            first: i64::from(registers.rdi as i32),
            second: registers.rsi,
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(_: Pid) -> Result<Self> {
        bail!("system calls are told apart on x86-64 only")
    }

    /// Whether it begins or ends what is counted.
    fn mark(&self) -> Option<bool> {
        match (self.number == libc::SYS_close, self.first as i32) {
            (true, BEGIN) => Some(true),
            (true, END) => Some(false),
            _ => None,
        }
    }

    fn name(&self) -> String {
        let known = [
            (libc::SYS_ioctl, "ioctl"),
            (libc::SYS_poll, "poll"),
            (libc::SYS_ppoll, "ppoll"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_read, "read"),
            (libc::SYS_write, "write"),
            (libc::SYS_close, "close"),
            (libc::SYS_fcntl, "fcntl"),
            (libc::SYS_dup, "dup"),
            (libc::SYS_fstat, "fstat"),
            (libc::SYS_newfstatat, "newfstatat"),
            (libc::SYS_lseek, "lseek"),
            (libc::SYS_mprotect, "mprotect"),
            (libc::SYS_timerfd_settime, "timerfd_settime"),
            (libc::SYS_clock_gettime, "clock_gettime"),
            (libc::SYS_sched_yield, "sched_yield"),
            (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
            (libc::SYS_epoll_ctl, "epoll_ctl"),
            (libc::SYS_epoll_wait, "epoll_wait"),
            (libc::SYS_mmap, "mmap"),
            (libc::SYS_munmap, "munmap"),
            (libc::SYS_madvise, "madvise"),
            (libc::SYS_clone3, "clone3"),
        ];
        let found = known.into_iter().find(|(number, _)| *number == self.number);
        match found {
            Some((libc::SYS_ioctl, _)) => ioctl(self.second),
            Some((_, name)) => name.to_owned(),
            None => format!("call {}", self.number),
        }
    }
}

/// Of `include/uapi/linux/{dma-buf,sync_file}.h` and `include/uapi/drm/drm.h`, by type and number.
fn ioctl(request: u64) -> String {
    let name = match ((request >> 8) as u8, request as u8) {
        (b'b', 0) => "DMA_BUF_IOCTL_SYNC",
        (b'b', 2) => "DMA_BUF_IOCTL_EXPORT_SYNC_FILE",
        (b'b', 3) => "DMA_BUF_IOCTL_IMPORT_SYNC_FILE",
        (b'd', 0xbc) => "DRM_IOCTL_MODE_ATOMIC",
        (b'd', 0xb8) => "DRM_IOCTL_MODE_ADDFB2",
        (b'd', 0xbd) => "DRM_IOCTL_MODE_CREATEPROPBLOB",
        (b'd', 0xbe) => "DRM_IOCTL_MODE_DESTROYPROPBLOB",
        (b'd', 0xaf) => "DRM_IOCTL_MODE_RMFB",
        (b'd', 0xb4) => "DRM_IOCTL_MODE_DESTROY_DUMB",
        (b'd', 0x2d) => "DRM_IOCTL_PRIME_HANDLE_TO_FD",
        (b'd', 0x2e) => "DRM_IOCTL_PRIME_FD_TO_HANDLE",
        (b'd', 0x09) => "DRM_IOCTL_GEM_CLOSE",
        (b'>', 3) => "SYNC_IOC_MERGE",
        (b'>', 4) => "SYNC_IOC_FILE_INFO",
        _ => return format!("ioctl {request:#x}"),
    };
    name.to_owned()
}
