//! Waiting for fds until a deadline.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Deadline, Error};
use crate::Errno;
use crate::sys::poll::{self, Event};

/// Waits for the event, through all signals.
pub(super) fn wait(fd: BorrowedFd<'_>, event: Event, deadline: Deadline) -> Result<(), Error> {
    loop {
        match poll::wait(fd, event, deadline.left()) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(Error::TimedOut),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Poll { errno }),
        }
    }
}

/// Whether the event is there. Does not wait.
pub(super) fn is_ready(fd: BorrowedFd<'_>, event: Event) -> Result<bool, Error> {
    crate::sys::uninterrupted(|| poll::wait(fd, event, Some(Duration::ZERO)))
        .map_err(|errno| Error::Poll { errno })
}
