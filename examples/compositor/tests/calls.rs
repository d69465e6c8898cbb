//! How many system calls another process makes.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Counts until it is dropped.
pub(crate) struct Calls {
    stops: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    process: Pid,
    tracer: Option<JoinHandle<()>>,
}

impl Calls {
    /// Follows all threads of a process, those too that it starts later.
    pub(crate) fn of(process: u32) -> Self {
        let count = Arc::<AtomicU64>::default();
        let counter = count.clone();
        let ends = Arc::<AtomicBool>::default();
        let is_over = ends.clone();
        let (started, has_started) = mpsc::channel();
        // The threads that are followed are those of one tracing thread, which alone may wait for them.
        let tracer = std::thread::spawn(move || {
            follow(process);
            started.send(()).unwrap();
            count_stops(&counter, &is_over);
        });
        has_started.recv().expect("the process can be traced");
        Self { stops: count, ends, process: Pid::from_raw(process as i32), tracer: Some(tracer) }
    }

    /// System calls since the start. A call that has not returned yet is half a one.
    pub(crate) fn count(&self) -> u64 {
        self.stops.load(Ordering::Relaxed) / 2
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // A signal without effect is a stop as well. The process may have ended.
        let _ = kill(self.process, Signal::SIGCONT);
        // The kernel lets all threads go that an ended tracer has followed.
        let _ = self.tracer.take().map(JoinHandle::join);
    }
}

fn follow(process: u32) {
    let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACESYSGOOD;
    let mut followed = HashSet::new();
    // A thread may have started another before it was followed.
    loop {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let threads = threads.map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap());
        let new: Vec<i32> = threads.filter(|thread| !followed.contains(thread)).collect();
        if new.is_empty() {
            return;
        }
        for thread in new {
            let pid = Pid::from_raw(thread);
            // It may have ended, or be followed already, by its parent's option.
            if ptrace::seize(pid, options).is_ok() {
                ptrace::interrupt(pid).unwrap();
            }
            followed.insert(thread);
        }
    }
}

/// Each system call stops its thread twice: before it, and after it.
fn count_stops(stops: &AtomicU64, ends: &AtomicBool) {
    let own = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    // Ends when no thread is left.
    while let Ok(status) = waitpid(None, Some(own)) {
        if ends.load(Ordering::Acquire) {
            return;
        }
        let (thread, signal) = match status {
            WaitStatus::PtraceSyscall(thread) => {
                stops.fetch_add(1, Ordering::Relaxed);
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, Signal::SIGTRAP) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // It may have been killed meanwhile.
        let _ = ptrace::syscall(thread, signal);
    }
}
