//! Fences and copies in a program's event loop: calloop, epoll or tokio.
//!
//! The source is a [`Completion`](primeshare::blit::Completion), a [`SyncFile`](primeshare::sync::SyncFile), or a
//! reference to one: what is readable once it is signalled, and stays so. Three rules hold in every loop:
//!
//! - Read nothing from the fd.
//! - Remove the source at its event, or the loop spins.
//! - Remove it before the value is dropped: an epoll knows a file until all its fds are closed, whatever the program
//!   thinks. Here the type that holds the registration also holds the value, and removes first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use calloop::generic::Generic;
use calloop::{LoopHandle, Mode, PostAction, RegistrationToken};
use rustix::event::{Timespec, epoll};
use tokio::io::{Interest, unix::AsyncFd};

/// calloop: calls `then` once, when the source is signalled, and drops the source afterwards.
///
/// [`LoopHandle::remove`] with the token ends it earlier. `Generic` leaves the loop's epoll when it is dropped, before
/// the fd is closed.
pub fn insert_once<'l, F: AsFd + 'l, D>(
    handle: &LoopHandle<'l, D>,
    source: F,
    mut then: impl FnMut(&F, &mut D) + 'l,
) -> calloop::Result<RegistrationToken> {
    let source = Generic::new(source, calloop::Interest::READ, Mode::Level);
    let inserted = handle.insert_source(source, move |_, source, data| {
        then(source.as_ref(), data);
        Ok(PostAction::Remove)
    });
    inserted.map_err(|refused| refused.error)
}

/// epoll: a source that is in an epoll for as long as this lives.
#[derive(Debug)]
pub struct Watched<'e, F: AsFd> {
    epoll: BorrowedFd<'e>,
    source: F,
}

impl<'e, F: AsFd> Watched<'e, F> {
    /// Adds the source. Its event will carry `key`.
    pub fn new(epoll: BorrowedFd<'e>, source: F, key: u64) -> io::Result<Self> {
        let (key, readable) = (epoll::EventData::new_u64(key), epoll::EventFlags::IN);
        epoll::add(epoll, &source, key, readable)?;
        Ok(Self { epoll, source })
    }

    /// What is watched.
    pub fn get(&self) -> &F {
        &self.source
    }
}

impl<F: AsFd> Drop for Watched<'_, F> {
    fn drop(&mut self) {
        // Before the field `source` is dropped. It fails only if the epoll is no epoll.
        let _ = epoll::delete(self.epoll, &self.source);
    }
}

/// epoll: the keys of the sources that are signalled, after at most `timeout`. Drop the [`Watched`] of each.
pub fn wait(epoll: BorrowedFd<'_>, timeout: Duration) -> io::Result<Vec<u64>> {
    let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut events = Vec::with_capacity(16);
    match epoll::wait(
        epoll,
        rustix::buffer::spare_capacity(&mut events),
        Some(&timeout),
    ) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(events.iter().map(|event| event.data.u64()).collect())
}

/// tokio: waits until the source is signalled. It is in the runtime's epoll for as long as the future lives.
pub async fn signalled(source: impl AsFd) -> io::Result<()> {
    // SAFETY: a `BorrowedFd` is open and the same as long as it lives, and the `AsyncFd` is dropped before.
    let watched = unsafe { AsyncFd::register_with_interest(source.as_fd(), Interest::READABLE) }?;
    watched.readable().await.map(drop)
}
