//! Threads of the library's own, in a process whose signals are the program's business.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Raised by what a thread itself does. If one of these is blocked, the kernel ends the process
/// without asking the program's handler (`force_sig_info_to_task`).
const OF_THE_THREAD: [Signal; 6] = [
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Has the calling thread, and those that it starts from now on, run after others: 19 is the last.
pub(crate) fn be_nice(nice: i32) {
    // SAFETY: changes a number in the kernel. On Linux, 0 is the calling thread (`setpriority(2)`,
    // "C library/kernel differences").
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        log::debug!("setpriority: {}", std::io::Error::last_os_error());
    }
}

/// Starts a thread that receives no signal which the process is sent: the kernel delivers those to
/// any thread that does not block them, past a signalfd and past the threads that the program has
/// chosen for its handlers.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    without_signals(|| Builder::new().name(name.to_owned()).spawn(work))
}

/// As [`spawn`], for a thread that ends with a scope.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    without_signals(|| {
        Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
    })
}

/// Runs `start` with signals blocked in the calling thread.
fn without_signals<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut blocked = SigSet::all();
    OF_THE_THREAD
        .into_iter()
        .for_each(|signal| blocked.remove(signal));
    // A thread inherits the mask of the one that starts it, so none can come in between.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}
