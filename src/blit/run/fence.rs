//! When a copy is done.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::blit::Failure;
use crate::sync::SyncFile;
use crate::sys::process::Owner;

/// The end of one copy: an fd that becomes readable, and how it went.
///
/// The fd is an eventfd, close-on-exec, good for any event loop: poll it for reading, and read
/// nothing from it. It is closed with the fence, and so is that of [`Self::sync_file`] once the copy
/// is done: an epoll that was given the number reports nothing any more, unless the program has a dup.
/// Drop is allowed at any time and does not stop the copy. Thread-safe.
#[derive(Debug)]
pub struct Fence {
    signal: Arc<Signal>,
    event: Arc<EventFd>,
    sync_file: OnceLock<Arc<SyncFile>>,
}

#[derive(Debug)]
struct Signal {
    state: Mutex<State>,
    /// It has a result now.
    done: Condvar,
    process: Owner,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), Failure>>,
    /// Whether somebody has been given the eventfd. A fence that is only waited for, or asked,
    /// needs no system call for it.
    seen: bool,
    /// The fence has been dropped.
    gone: bool,
    /// The fence's, or of the next one if this one's was never given out.
    event: Option<Arc<EventFd>>,
    /// Of the execution by a GPU.
    sync_file: Option<Arc<SyncFile>>,
}

impl Fence {
    /// Whether the copy is done, well or not. Does not wait.
    pub fn is_done(&self) -> bool {
        self.signal.state().result.is_some()
    }

    /// How the copy went; `None` before it is done. Does not wait.
    pub fn result(&self) -> Option<Result<(), Failure>> {
        self.signal.state().result.clone()
    }

    /// The sync file of the copy, signalled when the GPU has executed it, with an error where the
    /// GPU has failed. `None` where no GPU executes it at the moment, or none was
    /// [asked](super::SyncFiles) for one: the kernel gives no fence for what userspace is about to
    /// do. Does not wait.
    pub fn sync_file(&self) -> Option<&SyncFile> {
        if self.sync_file.get().is_none()
            && let Some(file) = self.signal.state().sync_file.clone()
        {
            // Another thread may have been quicker, with the same one.
            let _ = self.sync_file.set(file);
        }
        self.sync_file.get().map(Arc::as_ref)
    }

    /// Waits for the copy. [`Failure::TimedOut`] where it is not done in time; it goes on then.
    pub fn wait(&self, timeout: Duration) -> Result<(), Failure> {
        let pending = |state: &mut State| state.result.is_none();
        let done = self
            .signal
            .done
            .wait_timeout_while(self.signal.state(), timeout, pending);
        let (state, _) = done.unwrap_or_else(PoisonError::into_inner);
        let result = state.result.clone();
        result.unwrap_or(Err(Failure::TimedOut(timeout)))
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let mut state = self.signal.state();
        if !state.seen {
            state.seen = true;
            if state.result.is_some() {
                write(&self.event);
            }
        }
        self.event.as_fd()
    }
}

impl Drop for Fence {
    /// An epoll reports an fd until its file is closed, and these are readable from their end on.
    fn drop(&mut self) {
        // A thread that a forked child lacks may hold the lock there.
        if !self.signal.process.is_here() {
            return;
        }
        let mut state = self.signal.state();
        state.gone = true;
        if state.seen {
            state.event = None;
        }
        // Before the end of the copy, the blitter's thread waits for the same file.
        if state.result.is_some() {
            state.sync_file = None;
        }
    }
}

impl Signal {
    fn new() -> Self {
        Self {
            state: Mutex::default(),
            done: Condvar::new(),
            process: Owner::current(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it as new, with an eventfd that nobody knows.
    fn renew(&mut self) -> Result<Arc<EventFd>, Errno> {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let event = match state.event.take() {
            Some(unseen) => unseen,
            None => Arc::new(event()?),
        };
        *state = State {
            event: Some(event.clone()),
            ..State::default()
        };
        Ok(event)
    }
}

fn event() -> Result<EventFd, Errno> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
}

fn write(event: &EventFd) {
    if let Err(errno) = event.write(1) {
        log::error!("cannot signal the end of a copy: {errno}");
    }
}

/// What signals a [`Fence`], once; as cancelled where nothing else was said.
#[derive(Debug)]
pub(in crate::blit) struct Promise(Option<Arc<Signal>>);

impl Promise {
    /// A GPU executes it, and this is when it is done.
    pub(in crate::blit) fn executed_at(&self, file: SyncFile) {
        if let Some(signal) = &self.0 {
            // Started again after a failure, it has the first one already.
            signal
                .state()
                .sync_file
                .get_or_insert_with(|| Arc::new(file));
        }
    }

    /// What [`Self::executed_at`] was told.
    pub(in crate::blit) fn sync_file(&self) -> Option<Arc<SyncFile>> {
        self.0.as_ref()?.state().sync_file.clone()
    }

    pub(in crate::blit) fn keep(mut self, result: Result<(), Failure>) {
        self.signal(result);
    }

    fn signal(&mut self, result: Result<(), Failure>) {
        let Some(signal) = self.0.take() else {
            return;
        };
        let mut state = signal.state();
        state.result = Some(result);
        // With the state locked, so that the one who finds it signalled finds it written, too.
        if state.seen
            && let Some(event) = &state.event
        {
            write(event);
        }
        if state.gone {
            state.sync_file = None;
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
pub(in crate::blit) struct Fences(Vec<Arc<Signal>>);

impl Fences {
    /// With the memory and the fds of so many, made at once: later nothing grows, but for those who
    /// hold more fences.
    pub(in crate::blit) fn new(most: usize) -> Result<Self, Errno> {
        let make = || {
            let mut signal = Signal::new();
            signal.renew()?;
            Ok(Arc::new(signal))
        };
        (0..most)
            .map(|_| make())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// A fence, and what signals it.
    pub(in crate::blit) fn make(&mut self) -> Result<(Fence, Promise), Errno> {
        let of = |signal: &Arc<Signal>, event| {
            let fence = Fence {
                signal: signal.clone(),
                event,
                sync_file: OnceLock::new(),
            };
            (fence, Promise(Some(signal.clone())))
        };
        for known in &mut self.0 {
            if let Some(unused) = Arc::get_mut(known) {
                let event = unused.renew()?;
                return Ok(of(known, event));
            }
        }
        let mut signal = Signal::new();
        let event = signal.renew()?;
        Ok(of(&Arc::new(signal), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

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

    /// How many events an epoll has to report just now.
    fn ready(epoll: &Epoll) -> usize {
        let mut events = [EpollEvent::empty(); 4];
        epoll.wait(&mut events, EpollTimeout::ZERO).unwrap()
    }

    #[test]
    fn a_fence_that_is_dropped_on_its_event_is_reported_once() {
        let mut fences = Fences::new(2).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for round in 0..5 {
            let (fence, promise) = fences.make().unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, round);
            epoll.add(&fence, event).unwrap();
            assert_eq!(ready(&epoll), 0);
            promise.keep(Ok(()));
            assert_eq!(ready(&epoll), 1);
            drop(fence);
            assert_eq!(ready(&epoll), 0);
        }
    }

    #[test]
    fn a_fence_that_is_dropped_before_its_event_is_never_reported() {
        let mut fences = Fences::new(1).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (fence, promise) = fences.make().unwrap();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 1);
        epoll.add(&fence, event).unwrap();
        drop(fence);
        promise.keep(Ok(()));
        assert_eq!(ready(&epoll), 0);
    }

    #[test]
    fn an_fd_that_was_never_given_out_serves_the_next_fence() {
        let mut fences = Fences::new(1).unwrap();
        let number = |fence: &Fence| fence.event.as_fd().as_raw_fd();
        let (fence, promise) = fences.make().unwrap();
        let first = number(&fence);
        promise.keep(Ok(()));
        drop(fence);
        let (fence, _promise) = fences.make().unwrap();
        assert_eq!(number(&fence), first);
        assert!(!is_readable(&fence));
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
