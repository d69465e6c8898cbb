//! The end of trials, for event loops: an fd that becomes readable.
//!
//! The list of those who wait holds a dup of each fd, under a lock. Drop takes that lock: once it has returned, the file
//! description is closed, and an epoll reports nothing of it any more.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::EventFd;
use nix::unistd;

use crate::Errno;
use crate::blit::choose::records::Kind;
use crate::sys::errno;
use crate::sys::poll::event;

/// The end of trials: an fd that becomes readable. [`Blitter::settle`](crate::blit::Blitter::settle) makes one.
///
/// The fd is an eventfd, close-on-exec, good for any event loop: poll it for reading, and read nothing from it. It
/// stays readable, so drop it once it is. It is closed with this object, unless the program has a dup. Drop stops no
/// trial. Thread-safe.
#[derive(Debug)]
pub struct TrialsEnd {
    fd: EventFd,
    signal: Arc<Signal>,
}

/// Makes the fd readable, once. `None`: it is readable, or nobody waits any more.
#[derive(Debug)]
struct Signal(Mutex<Option<OwnedFd>>);

impl Signal {
    fn tell(&self) {
        // Locked until the dup is closed.
        let mut dup = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = dup.take()
            && let Err(errno) = unistd::write(fd, &1u64.to_ne_bytes())
        {
            log::error!("cannot signal the end of trials: {errno}");
        }
    }

    fn cancel(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl TrialsEnd {
    pub(in crate::blit) fn new() -> Result<Self, Errno> {
        let fd = event()?;
        let dup = fd.as_fd().try_clone_to_owned().map_err(errno)?;
        let signal = Arc::new(Signal(Mutex::new(Some(dup))));
        Ok(Self { fd, signal })
    }

    /// Makes the fd readable.
    pub(super) fn tell(&self) {
        self.signal.tell();
    }
}

impl Drop for TrialsEnd {
    fn drop(&mut self) {
        self.signal.cancel();
    }
}

impl AsFd for TrialsEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TrialsEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Who waits for the end of which trials.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(Kind, Arc<Signal>)>);

impl Waiting {
    pub(super) fn add(&mut self, kind: Kind, end: &TrialsEnd) {
        // What only the list has was dropped.
        self.0.retain(|(_, signal)| Arc::strong_count(signal) > 1);
        self.0.push((kind, end.signal.clone()));
    }

    /// The trials of this kind are over.
    pub(super) fn tell(&mut self, kind: &Kind) {
        self.tell_if(|of| of == kind);
    }

    /// There will be no more trials.
    pub(super) fn tell_all(&mut self) {
        self.tell_if(|_| true);
    }

    fn tell_if(&mut self, is_over: impl Fn(&Kind) -> bool) {
        self.0.retain(|(kind, signal)| {
            let is_over = is_over(kind);
            if is_over {
                signal.tell();
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buffer::{Fourcc, Modifier};
    use crate::sys::poll::{Event, wait};

    fn kind(fourcc: Fourcc) -> Kind {
        Kind::model([(fourcc, Modifier::LINEAR); 2])
    }

    fn is_readable(end: &TrialsEnd) -> bool {
        wait(end.as_fd(), Event::In, Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn the_end_of_trials_is_told_to_those_who_wait_for_that_kind() {
        let mut waiting = Waiting::default();
        let [ours, also_ours, others] = [(); 3].map(|()| TrialsEnd::new().unwrap());
        waiting.add(kind(Fourcc::XRGB8888), &ours);
        waiting.add(kind(Fourcc::XRGB8888), &also_ours);
        waiting.add(kind(Fourcc::NV12), &others);
        assert!(!is_readable(&ours));
        waiting.tell(&kind(Fourcc::XRGB8888));
        assert!(is_readable(&ours) && is_readable(&also_ours));
        assert!(is_readable(&ours), "it stays readable");
        assert!(!is_readable(&others));
        waiting.tell_all();
        assert!(is_readable(&others));
    }

    #[test]
    fn who_has_stopped_waiting_is_forgotten_and_the_fd_closed() {
        let mut waiting = Waiting::default();
        let gone = TrialsEnd::new().unwrap();
        let signal = gone.signal.clone();
        waiting.add(kind(Fourcc::XRGB8888), &gone);
        drop(gone);
        assert!(signal.0.lock().unwrap().is_none());
        drop(signal);
        waiting.tell(&kind(Fourcc::NV12));
        waiting.add(kind(Fourcc::NV12), &TrialsEnd::new().unwrap());
        assert_eq!(waiting.0.len(), 1);
    }
}
