//! `poll(2)`, `epoll(7)` and `eventfd(2)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// What to poll a file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// POLLIN. Of a dma-buf: no device writes to it.
    In,
    /// POLLOUT. Of a dma-buf: no device uses it.
    Out,
}

/// Waits once, for ever where no time is given, and says whether the event came. A signal ends it
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
    nix::poll::ppoll(&mut fds, time.map(TimeSpec::from_duration), None).map(|ready| ready > 0)
}

/// A new epoll, close-on-exec.
pub(crate) fn epoll() -> Result<Epoll, Errno> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
}

/// Has the epoll look for the event on an fd, under a number of the caller's.
pub(crate) fn add(epoll: &Epoll, fd: impl AsFd, event: Event, number: u64) -> Result<(), Errno> {
    let events = match event {
        Event::In => EpollFlags::EPOLLIN,
        Event::Out => EpollFlags::EPOLLOUT,
    };
    epoll.add(fd, EpollEvent::new(events, number))
}

/// A new eventfd at zero, close-on-exec and non-blocking.
pub(crate) fn eventfd() -> Result<OwnedFd, Errno> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    EventFd::from_value_and_flags(0, flags).map(OwnedFd::from)
}
