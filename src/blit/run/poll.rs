//! Waiting for several fds.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

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
            let mut both: ArrayVec<PollFd<'_>, 2> = ArrayVec::new();
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

/// Whether every one of them is ready now; `MOST` of them at most are looked at with one call.
pub(in crate::blit) fn are_ready<const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'_>, PollFlags), MOST>,
) -> Result<bool, Errno> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    let ready = crate::sys::uninterrupted(|| poll(&mut polled, PollTimeout::ZERO))?;
    Ok(ready as usize == fds.len())
}

/// Those that are not ready now.
pub(super) fn unready<'a, const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'a>, PollFlags), MOST>,
) -> ArrayVec<(BorrowedFd<'a>, PollFlags), MOST> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    // After an error all of them are asked again.
    let _ = crate::sys::uninterrupted(|| poll(&mut polled, PollTimeout::ZERO));
    let is_unready = |fd: &PollFd<'_>| !fd.any().unwrap_or(false);
    let both = fds.iter().zip(&polled);
    let unready = both.filter(|(_, polled)| is_unready(polled));
    unready.map(|(fd, _)| *fd).collect()
}

/// Waits until any of them is ready, or until then.
pub(super) fn any_ready<const MOST: usize>(
    fds: &ArrayVec<(BorrowedFd<'_>, PollFlags), MOST>,
    end: Instant,
) -> Result<(), Errno> {
    let polled = fds.iter().map(|&(fd, flags)| PollFd::new(fd, flags));
    let mut polled: ArrayVec<PollFd<'_>, MOST> = polled.collect();
    let left = end.saturating_duration_since(Instant::now());
    // Rounded up, so that it does not spin through the last millisecond.
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
