//! When a copy is done.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
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
    state: Mutex<State>,
    /// It has a result now.
    done: Condvar,
    event: EventFd,
    /// Of the execution by a GPU.
    sync_file: OnceLock<SyncFile>,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), Failure>>,
    /// Whether somebody has been given the eventfd. A fence that is only waited for, or asked,
    /// needs no system call for it.
    seen: bool,
}

impl Fence {
    /// Whether the copy is done, well or not. Does not wait.
    pub fn is_done(&self) -> bool {
        self.0.state().result.is_some()
    }

    /// How the copy went; `None` before it is done. Does not wait.
    pub fn result(&self) -> Option<Result<(), Failure>> {
        self.0.state().result.clone()
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
        let pending = |state: &mut State| state.result.is_none();
        let done = self
            .0
            .done
            .wait_timeout_while(self.0.state(), timeout, pending);
        let (state, _) = done.unwrap_or_else(PoisonError::into_inner);
        let result = state.result.clone();
        result.unwrap_or(Err(Failure::TimedOut(timeout)))
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let mut state = self.0.state();
        if !state.seen {
            state.seen = true;
            if state.result.is_some() {
                self.0.write();
            }
        }
        self.0.event.as_fd()
    }
}

impl Signal {
    fn new() -> Result<Self, Errno> {
        Ok(Self {
            state: Mutex::default(),
            done: Condvar::new(),
            event: event()?,
            sync_file: OnceLock::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        if let Err(errno) = self.event.write(1) {
            log::error!("cannot signal the end of a copy: {errno}");
        }
    }

    /// Makes it as new. With another fd where somebody may have a dup of this one.
    fn renew(&mut self) -> Result<(), Errno> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.seen {
            self.event = event()?;
        }
        *state = State::default();
        self.sync_file = OnceLock::new();
        Ok(())
    }
}

fn event() -> Result<EventFd, Errno> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
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
        let mut state = signal.state();
        state.result = Some(result);
        // With the state locked, so that the one who finds it signalled finds it written, too.
        if state.seen {
            signal.write();
        }
        drop(state);
        signal.done.notify_all();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.signal(Err(Failure::Cancelled));
    }
}

/// Makes fences, in memory that is used again once nobody has it any more.
#[derive(Debug)]
pub(super) struct Fences(Vec<Arc<Signal>>);

impl Fences {
    /// With the memory of so many, made at once: later nothing grows, fds included, but for those
    /// who hold more fences.
    pub(super) fn new(most: usize) -> Result<Self, Errno> {
        let signals = (0..most).map(|_| Signal::new().map(Arc::new));
        signals.collect::<Result<_, _>>().map(Self)
    }

    /// A fence, and what signals it.
    pub(super) fn make(&mut self) -> Result<(Fence, Promise), Errno> {
        let of = |signal: &Arc<Signal>| (Fence(signal.clone()), Promise(Some(signal.clone())));
        for known in &mut self.0 {
            if let Some(unused) = Arc::get_mut(known) {
                unused.renew()?;
                return Ok(of(known));
            }
        }
        Signal::new().map(Arc::new).map(|signal| of(&signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn is_readable(fence: &Fence) -> bool {
        let mut fds = [PollFd::new(fence.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_fd_is_readable_whether_it_was_seen_before_the_end_or_after() {
        let mut fences = Fences::new(2).unwrap();
        for looks_before in [true, false] {
            let (fence, promise) = fences.make().unwrap();
            if looks_before {
                assert!(!is_readable(&fence));
            }
            promise.keep(Ok(()));
            assert!(is_readable(&fence));
            assert_eq!(fence.wait(Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn a_dup_of_an_older_fence_stays_signalled_when_its_memory_is_used_again() {
        let mut fences = Fences::new(1).unwrap();
        let (fence, promise) = fences.make().unwrap();
        let dup = fence.as_fd().try_clone_to_owned().unwrap();
        promise.keep(Ok(()));
        drop(fence);
        let (next, _promise) = fences.make().unwrap();
        assert!(!next.is_done() && !is_readable(&next));
        let mut fds = [PollFd::new(dup.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
    }

    #[test]
    fn a_promise_that_is_dropped_cancels() {
        let (fence, promise) = Fences::new(1).unwrap().make().unwrap();
        assert_eq!(fence.result(), None);
        let late = fence.wait(Duration::from_millis(1)).unwrap_err();
        assert!(matches!(late, Failure::TimedOut(_)));
        drop(promise);
        assert_eq!(fence.wait(Duration::ZERO), Err(Failure::Cancelled));
    }
}
