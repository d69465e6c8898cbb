//! Threads of the library's own, in a process whose signals are the program's business.

use std::io;
use std::thread::{Builder, JoinHandle};

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

/// Starts a thread that receives no signal which the process is sent: the kernel delivers those to
/// any thread that does not block them, past a signalfd and past the threads that the program has
/// chosen for its handlers.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut blocked = SigSet::all();
    OF_THE_THREAD
        .into_iter()
        .for_each(|signal| blocked.remove(signal));
    // A thread inherits the mask of the one that starts it, so none can come in between.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = Builder::new().name(name.to_owned()).spawn(work);
    before.thread_set_mask()?;
    started
}
