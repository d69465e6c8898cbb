//! A process that may open a few more fds, and then none.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Runs `work` with room for so many more fds: opening one more is EMFILE.
pub(crate) fn with_room_for<R>(fds: usize, work: impl FnOnce() -> R) -> R {
    // The limit is on the numbers of fds, and there may be gaps below it.
    let fill: Vec<_> = (0..=fds)
        .map(|_| io::stdin().as_fd().try_clone_to_owned().unwrap())
        .collect();
    let first_beyond = fill[fds].as_raw_fd();
    drop(fill);
    below(first_beyond as libc::rlim_t, work)
}

/// Runs `work` while new fds get numbers below `limit` only. The limit is undone also if `work` panics.
pub(crate) fn below<R>(limit: libc::rlim_t, work: impl FnOnce() -> R) -> R {
    let _restore = Restore(set_limit(limit));
    work()
}

struct Restore(libc::rlim_t);

impl Drop for Restore {
    fn drop(&mut self) {
        set_limit(self.0);
    }
}

/// Sets the soft limit on fd numbers, and gives the old one.
fn set_limit(limit: libc::rlim_t) -> libc::rlim_t {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limits` outlives the call.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) };
    assert_eq!(got, 0);
    let old = std::mem::replace(&mut limits.rlim_cur, limit);
    // SAFETY: as above.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) };
    assert_eq!(set, 0);
    old
}
