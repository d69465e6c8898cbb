//! The end of a copy: a [`Completion`] for the caller that waits, a [`Signaller`] for who makes the copy.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use crate::Errno;
use crate::blit::Failure;
use crate::sync::{Deadline, SyncFile};
use crate::sys::poll::event;
use crate::sys::process::Owner;

/// What makes copies progress while a caller waits for their ends: the blitter.
pub(super) trait Driver: Send + Sync {
    /// Waits for a copy on behalf of its caller, until the deadline at most. `false` if another thread does
    /// that: the caller has to sleep until the signal, and then to call [`Self::slept`].
    fn help(&self, copy: &Arc<Signal>, until: Instant) -> bool;

    /// The caller that was told to sleep has woken up.
    fn slept(&self);

    /// Looks whether copies have ended. Does not wait.
    fn look(&self);

    /// The program has been given an eventfd: from now on the end has to be seen without the program's
    /// waiting.
    fn watch(&self);
}

/// The end of one copy: an fd that becomes readable, and how it went.
///
/// The fd is an eventfd, close-on-exec, good for any event loop: poll it for reading, and read
/// nothing from it. It is closed with the completion, and so is that of [`Self::sync_file`] once the
/// copy is done: an epoll that was given the number reports nothing any more, unless the program has a
/// dup. Drop is allowed at any time and does not stop the copy. Thread-safe.
pub struct Completion {
    signal: Arc<Signal>,
    event: Arc<EventFd>,
    sync_file: OnceLock<Arc<SyncFile>>,
    /// Dead after the end of the blitter, which ends all its copies.
    driver: Weak<dyn Driver>,
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("result", &self.signal.state().result)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Signal {
    state: Mutex<State>,
    /// Notified when there is a result.
    done: Condvar,
    process: Owner,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), Failure>>,
    /// Whether the program has been given the eventfd. If not, signalling it takes no system call.
    seen: bool,
    /// Whether the completion has been dropped.
    gone: bool,
    /// The completion's eventfd. The next completion takes it if the program was never given it.
    event: Option<Arc<EventFd>>,
    /// Signalled when the GPU has executed the copy.
    sync_file: Option<Arc<SyncFile>>,
}

impl Completion {
    /// Whether the copy has ended, with success or not. Does not wait.
    pub fn is_done(&self) -> bool {
        self.result().is_some()
    }

    /// How the copy went; `None` before it is done. Does not wait.
    pub fn result(&self) -> Option<Result<(), Failure>> {
        let result = self.signal.state().result.clone();
        if result.is_some() {
            return result;
        }
        if let Some(driver) = self.driver.upgrade() {
            driver.look();
        }
        self.signal.state().result.clone()
    }

    /// The sync file of the copy. It is signalled when the GPU has executed the copy, with an error if the
    /// GPU has failed. `None` if no GPU executes the copy at the moment, or if
    /// [`SyncFiles`](crate::blit::SyncFiles) asks for none: the kernel gives no fence for work that has not
    /// been submitted. Does not wait.
    pub fn sync_file(&self) -> Option<&SyncFile> {
        if self.sync_file.get().is_none()
            && let Some(file) = self.signal.state().sync_file.clone()
        {
            // Fails if another thread was quicker, which has set the same file.
            let _ = self.sync_file.set(file);
        }
        self.sync_file.get().map(Arc::as_ref)
    }

    /// Waits for the copy. [`Failure::TimedOut`] if it is not done at the deadline; it goes on then.
    ///
    /// If only a GPU has to be waited for, the calling thread does so itself.
    pub fn wait(&self, deadline: impl Into<Deadline>) -> Result<(), Failure> {
        let start = Instant::now();
        let until = match deadline.into() {
            Deadline::Never => start + Duration::from_secs(1 << 30),
            Deadline::At(instant) => instant,
        };
        loop {
            if let Some(result) = self.signal.state().result.clone() {
                return result;
            }
            let left = until.saturating_duration_since(Instant::now());
            let driver = self.driver.upgrade();
            if let Some(driver) = &driver {
                if left.is_zero() {
                    driver.look();
                } else if driver.help(&self.signal, until) {
                    continue;
                }
            }
            let pending = |state: &mut State| state.result.is_none();
            let state = self.signal.state();
            let done = self.signal.done.wait_timeout_while(state, left, pending);
            let (state, _) = done.unwrap_or_else(PoisonError::into_inner);
            let result = state.result.clone();
            drop(state);
            if let Some(driver) = driver
                && !left.is_zero()
            {
                driver.slept();
            }
            return result.unwrap_or(Err(Failure::TimedOut(start.elapsed())));
        }
    }
}

impl AsFd for Completion {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let mut state = self.signal.state();
        let is_new = !state.seen;
        let is_done = state.result.is_some();
        state.seen = true;
        if is_new && is_done {
            write(&self.event);
        }
        drop(state);
        if is_new
            && !is_done
            && let Some(driver) = self.driver.upgrade()
        {
            driver.watch();
        }
        self.event.as_fd()
    }
}

impl Drop for Completion {
    /// Closes the eventfd and the sync file. Both stay readable after the end of the copy, and an epoll
    /// would report them for as long as they are open.
    fn drop(&mut self) {
        // In a forked child, the lock may be held by a thread that does not exist there.
        if !self.signal.process.is_here() {
            return;
        }
        let mut state = self.signal.state();
        state.gone = true;
        if state.seen {
            state.event = None;
        }
        // Before the end of the copy, the blitter's thread still waits for this file.
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

    /// Makes the signal like new, with an eventfd that the program does not know.
    fn reset(&mut self) -> Result<Arc<EventFd>, Errno> {
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

fn write(event: &EventFd) {
    if let Err(errno) = event.write(1) {
        log::error!("cannot signal the end of a copy: {errno}");
    }
}

/// Signals a [`Completion`] once. The drop signals that the copy was cancelled.
#[derive(Debug)]
pub(in crate::blit) struct Signaller(Option<Arc<Signal>>);

impl Signaller {
    /// Whether this signals that copy.
    pub(super) fn is_of(&self, copy: &Arc<Signal>) -> bool {
        self.0
            .as_ref()
            .is_some_and(|signal| Arc::ptr_eq(signal, copy))
    }

    /// Whether the program may be polling the eventfd.
    pub(super) fn is_watched(&self) -> bool {
        self.0.as_ref().is_some_and(|signal| signal.state().seen)
    }

    /// Gives the completion the sync file of the GPU that executes the copy.
    pub(in crate::blit) fn executed_at(&self, file: Arc<SyncFile>) {
        if let Some(signal) = &self.0 {
            // A copy that was started again after a failure keeps its first file.
            signal.state().sync_file.get_or_insert(file);
        }
    }

    pub(in crate::blit) fn complete(mut self, result: Result<(), Failure>) {
        self.signal(result);
    }

    fn signal(&mut self, result: Result<(), Failure>) {
        let Some(signal) = self.0.take() else {
            return;
        };
        let mut state = signal.state();
        state.result = Some(result);
        // Written while the state is locked, so that whoever sees the result also finds the fd readable.
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

impl Drop for Signaller {
    fn drop(&mut self) {
        self.signal(Err(Failure::Cancelled));
    }
}

/// Makes completions. Their memory and fds are used again once nobody else has them.
pub(super) struct Completions {
    signals: Vec<Arc<Signal>>,
    driver: Weak<dyn Driver>,
}

impl Completions {
    pub(super) fn new(driver: Weak<dyn Driver>) -> Self {
        Self {
            signals: Vec::new(),
            driver,
        }
    }

    /// Makes the memory and the fds for this many completions. Later ones need more only if the program
    /// holds more than these.
    pub(super) fn reserve(&mut self, most: usize) -> Result<(), Errno> {
        for _ in 0..most {
            let mut signal = Signal::new();
            signal.reset()?;
            self.signals.push(Arc::new(signal));
        }
        Ok(())
    }

    /// A completion, and what signals it.
    pub(super) fn make(&mut self) -> Result<(Completion, Signaller), Errno> {
        let driver = &self.driver;
        let of = |signal: &Arc<Signal>, event| {
            let completion = Completion {
                signal: signal.clone(),
                event,
                sync_file: OnceLock::new(),
                driver: driver.clone(),
            };
            (completion, Signaller(Some(signal.clone())))
        };
        for known in &mut self.signals {
            if let Some(unused) = Arc::get_mut(known) {
                let event = unused.reset()?;
                return Ok(of(known, event));
            }
        }
        let mut signal = Signal::new();
        let event = signal.reset()?;
        Ok(of(&Arc::new(signal), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

    /// A driver for copies that need none.
    struct Nobody;

    impl Driver for Nobody {
        fn help(&self, _: &Arc<Signal>, _: Instant) -> bool {
            false
        }

        fn slept(&self) {}

        fn look(&self) {}

        fn watch(&self) {}
    }

    fn completions(most: usize) -> Completions {
        let driver: Weak<Nobody> = Weak::new();
        let mut completions = Completions::new(driver);
        completions.reserve(most).unwrap();
        completions
    }

    fn is_readable(completion: &Completion) -> bool {
        let mut fds = [PollFd::new(completion.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_fd_is_readable_whether_it_was_seen_before_the_end_or_after() {
        let mut completions = completions(2);
        for looks_before in [true, false] {
            let (completion, signaller) = completions.make().unwrap();
            if looks_before {
                assert!(!is_readable(&completion));
            }
            signaller.complete(Ok(()));
            assert!(is_readable(&completion));
            assert_eq!(completion.wait(Duration::ZERO), Ok(()));
        }
    }

    #[test]
    fn a_dup_of_an_older_completion_stays_signalled_when_its_memory_is_used_again() {
        let mut completions = completions(1);
        let (completion, signaller) = completions.make().unwrap();
        let dup = completion.as_fd().try_clone_to_owned().unwrap();
        signaller.complete(Ok(()));
        drop(completion);
        let (next, _signaller) = completions.make().unwrap();
        assert!(!next.is_done() && !is_readable(&next));
        let mut fds = [PollFd::new(dup.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 1);
    }

    /// How many events an epoll reports now.
    fn ready(epoll: &Epoll) -> usize {
        let mut events = [EpollEvent::empty(); 4];
        epoll.wait(&mut events, EpollTimeout::ZERO).unwrap()
    }

    #[test]
    fn a_completion_that_is_dropped_on_its_event_is_reported_once() {
        let mut completions = completions(2);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for round in 0..5 {
            let (completion, signaller) = completions.make().unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, round);
            epoll.add(&completion, event).unwrap();
            assert_eq!(ready(&epoll), 0);
            signaller.complete(Ok(()));
            assert_eq!(ready(&epoll), 1);
            drop(completion);
            assert_eq!(ready(&epoll), 0);
        }
    }

    #[test]
    fn a_completion_that_is_dropped_before_its_event_is_never_reported() {
        let mut completions = completions(1);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (completion, signaller) = completions.make().unwrap();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 1);
        epoll.add(&completion, event).unwrap();
        drop(completion);
        signaller.complete(Ok(()));
        assert_eq!(ready(&epoll), 0);
    }

    #[test]
    fn an_fd_that_was_never_given_out_serves_the_next_fence() {
        let mut completions = completions(1);
        let number = |completion: &Completion| completion.event.as_fd().as_raw_fd();
        let (completion, signaller) = completions.make().unwrap();
        let first = number(&completion);
        signaller.complete(Ok(()));
        drop(completion);
        let (completion, _signaller) = completions.make().unwrap();
        assert_eq!(number(&completion), first);
        assert!(!is_readable(&completion));
    }

    #[test]
    fn a_signaller_that_is_dropped_cancels() {
        let (completion, signaller) = completions(1).make().unwrap();
        assert_eq!(completion.result(), None);
        let late = completion.wait(Duration::from_millis(1)).unwrap_err();
        assert!(matches!(late, Failure::TimedOut(_)));
        drop(signaller);
        assert_eq!(completion.wait(Duration::ZERO), Err(Failure::Cancelled));
    }
}
