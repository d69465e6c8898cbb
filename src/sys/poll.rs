//! `poll(2)`, `epoll(7)` and `eventfd(2)`: waiting for one fd or for several.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::errno;

use crate::Errno;

/// The event to poll a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// POLLIN. Of a dma-buf: no device writes to it.
    In,
    /// POLLOUT. Of a dma-buf: no device uses it.
    Out,
}

/// Waits once, and says whether the event came. Without a time it waits for ever. A signal ends the wait
/// early: EINTR.
pub(crate) fn wait(
    fd: BorrowedFd<'_>,
    event: Event,
    time: Option<Duration>,
) -> Result<bool, Errno> {
    let events = match event {
        Event::In => PollFlags::POLLIN,
        Event::Out => PollFlags::POLLOUT,
    };
    let mut fds = [PollFd::new(fd, events)];
    nix::poll::ppoll(&mut fds, time.map(TimeSpec::from_duration), None)
        .map(|ready| ready > 0)
        .map_err(errno)
}

/// A new epoll, close-on-exec.
pub(crate) fn epoll() -> Result<Epoll, Errno> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(errno)
}

/// Has the epoll look for the event on an fd, under a number of the caller's.
pub(crate) fn add(epoll: &Epoll, fd: impl AsFd, event: Event, number: u64) -> Result<(), Errno> {
    let events = match event {
        Event::In => EpollFlags::EPOLLIN,
        Event::Out => EpollFlags::EPOLLOUT,
    };
    epoll
        .add(fd, EpollEvent::new(events, number))
        .map_err(errno)
}

/// A new eventfd at zero, close-on-exec and non-blocking.
pub(crate) fn event() -> Result<EventFd, Errno> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(errno)
}

/// Waits until every one of the fds is ready; ETIMEDOUT at `end`, if there is one, and ECANCELED
/// when `cancel` is readable.
pub(crate) fn wait_for(
    fds: &[(BorrowedFd<'_>, PollFlags)],
    end: Option<Instant>,
    cancel: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    for &(fd, flags) in fds {
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, rounded_up);
            let mut both: ArrayVec<PollFd<'_>, 2> = ArrayVec::new();
            both.push(PollFd::new(fd, flags));
            both.extend(cancel.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let polled = poll(&mut both, timeout).map_err(errno);
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

/// Whether every one of the fds is ready now. One call looks at `MOST` of them at most.
pub(crate) fn are_ready<const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'_>, PollFlags), MOST>,
) -> Result<bool, Errno> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    let ready = super::uninterrupted(|| poll(&mut polled, PollTimeout::ZERO))?;
    Ok(ready as usize == fds.len())
}

/// The fds that are not ready now.
pub(crate) fn unready<'a, const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'a>, PollFlags), MOST>,
) -> ArrayVec<(BorrowedFd<'a>, PollFlags), MOST> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    // After an error all of them count as not ready.
    let _ = super::uninterrupted(|| poll(&mut polled, PollTimeout::ZERO));
    let is_unready = |fd: &PollFd<'_>| !fd.any().unwrap_or(false);
    let both = fds.iter().zip(&polled);
    let unready = both.filter(|(_, polled)| is_unready(polled));
    unready.map(|(fd, _)| *fd).collect()
}

/// Waits until any of the fds is ready, or until `end`.
pub(crate) fn any_ready<const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'_>, PollFlags), MOST>,
    end: Instant,
) -> Result<(), Errno> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    let left = end.saturating_duration_since(Instant::now());
    match poll(&mut polled, rounded_up(left)).map_err(errno) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// In whole milliseconds, rounded up, so that the rest of a millisecond is not spent polling.
fn rounded_up(time: Duration) -> PollTimeout {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
