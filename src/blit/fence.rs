//! When a copy is done.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Failure;

/// The end of one copy: an fd that becomes readable, and how it went.
///
/// The fd is an eventfd, close-on-exec, good for any event loop: poll it for reading, and read
/// nothing from it. Drop is allowed at any time and does not stop the copy. Thread-safe.
#[derive(Debug)]
pub struct Fence(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    event: EventFd,
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

/// A fence, and what signals it. With an fd of its own: somebody may have a dup of an older one.
pub(super) fn fence() -> Result<(Fence, Promise), Errno> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let signal = Arc::new(Signal {
        event: EventFd::from_flags(flags)?,
        result: Mutex::default(),
    });
    Ok((Fence(signal.clone()), Promise(Some(signal))))
}

/// The most fds that one copy waits for: the caller's, and the dma-bufs of both buffers.
pub(super) const MAX_WAITS: usize = 4;

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

/// Fds that a copy waits for, owned.
pub(super) type Waits = arrayvec::ArrayVec<OwnedFd, MAX_WAITS>;
