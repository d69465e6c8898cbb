//! When a copy is done.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Failure;
use crate::sync::SyncFile;

/// The end of one copy: an fd that becomes readable, and how it went.
///
/// The fd is an eventfd, close-on-exec, good for any event loop: poll it for reading, and read
/// nothing from it. Drop is allowed at any time and does not stop the copy. Thread-safe.
#[derive(Debug)]
pub struct Fence(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    event: EventFd,
    /// Of the execution by a GPU.
    sync_file: OnceLock<SyncFile>,
    result: Mutex<Option<Result<(), Failure>>>,
}

impl Fence {
    /// Whether the copy is done, well or not. Does not wait.
    pub fn is_done(&self) -> bool {
        self.0.result().is_some()
    }

    /// How the copy went; `None` before it is done. Does not wait.
    pub fn result(&self) -> Option<Result<(), Failure>> {
        self.0.result().clone()
    }

    /// The sync file of the copy, signalled when the GPU has executed it, with an error where the
    /// GPU has failed. `None` where no GPU executes it at the moment, or none was
    /// [asked](super::SyncFiles) for one: the kernel gives no fence for what userspace is about to
    /// do. Does not wait.
    pub fn sync_file(&self) -> Option<&SyncFile> {
        self.0.sync_file.get()
    }

    /// Waits for the copy. [`Failure::TimedOut`] where it is not done in time; it goes on then.
    pub fn wait(&self, timeout: Duration) -> Result<(), Failure> {
        let end = Instant::now().checked_add(timeout);
        match wait_for(&[(self.as_fd(), PollFlags::POLLIN)], end, None) {
            Ok(()) => self.result().unwrap_or(Err(Failure::TimedOut(timeout))),
            Err(Errno::ETIMEDOUT) => Err(Failure::TimedOut(timeout)),
            Err(errno) => Err(Failure::Poll(errno)),
        }
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl Signal {
    fn result(&self) -> std::sync::MutexGuard<'_, Option<Result<(), Failure>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What signals a [`Fence`], once; as cancelled where nothing else was said.
#[derive(Debug)]
pub(super) struct Promise(Option<Arc<Signal>>);

impl Promise {
    /// A GPU executes it, and this is when it is done.
    pub(super) fn executed_at(&self, file: SyncFile) {
        if let Some(signal) = &self.0 {
            // Started again after a failure, it has the first one already.
            let _ = signal.sync_file.set(file);
        }
    }

    /// The fence, to look at.
    pub(super) fn watch(&self) -> Option<Fence> {
        self.0.clone().map(Fence)
    }

    pub(super) fn keep(mut self, result: Result<(), Failure>) {
        self.signal(result);
    }

    fn signal(&mut self, result: Result<(), Failure>) {
        let Some(signal) = self.0.take() else {
            return;
        };
        *signal.result() = Some(result);
        if let Err(errno) = signal.event.write(1) {
            log::error!("cannot signal the end of a copy: {errno}");
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.signal(Err(Failure::Cancelled));
    }
}

/// Makes fences, in memory that is used again once nobody has it any more.
#[derive(Debug)]
pub(super) struct Fences {
    signals: Vec<Arc<Signal>>,
    most: usize,
}

impl Fences {
    /// Keeps the memory of up to `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            signals: Vec::with_capacity(most),
            most,
        }
    }

    /// A fence, and what signals it. With an fd of its own: somebody may have a dup of an older
    /// one.
    pub(super) fn make(&mut self) -> Result<(Fence, Promise), Errno> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let fresh = Signal {
            event: EventFd::from_flags(flags)?,
            sync_file: OnceLock::new(),
            result: Mutex::default(),
        };
        let of = |signal: &Arc<Signal>| (Fence(signal.clone()), Promise(Some(signal.clone())));
        for known in &mut self.signals {
            if let Some(unused) = Arc::get_mut(known) {
                *unused = fresh;
                return Ok(of(known));
            }
        }
        let signal = Arc::new(fresh);
        if self.signals.len() < self.most {
            self.signals.push(signal.clone());
        }
        Ok(of(&signal))
    }
}

/// Waits until every one of the fds is ready; ETIMEDOUT at `end`, if there is one, and ECANCELED
/// when `cancel` is readable.
pub(super) fn wait_for(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    end: Option<Instant>,
    cancel: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    for &(fd, flags) in fds {
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            // Rounded up, so that it does not spin through the last millisecond.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                let milliseconds = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            });
            let mut both: arrayvec::ArrayVec<PollFd<'_>, 2> = arrayvec::ArrayVec::new();
            both.push(PollFd::new(fd, flags));
            both.extend(cancel.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let polled = poll(&mut both, timeout);
            let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            match polled {
                Ok(1..) if !is_ready(&both[0]) => return Err(Errno::ECANCELED),
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Err(Errno::ETIMEDOUT),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Whether every one of them is ready now.
pub(super) fn are_ready(fds: &[(BorrowedFd<'_>, PollFlags)]) -> Result<bool, Errno> {
    match wait_for(fds, Some(Instant::now()), None) {
        Ok(()) => Ok(true),
        Err(Errno::ETIMEDOUT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
