//! Which process made something. `fork(2)` copies memory, but a file description and its GEM
//! handles stay one for both processes.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

/// The process that made a value.
///
/// Some calls, such as GEM_CLOSE, must be made once for both processes. Only the process that made the value
/// makes them. Its child drops its copy without a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// This process.
    pub(crate) fn current() -> Self {
        let Some(mark) = mark() else {
            return Self(std::process::id());
        };
        match mark.load(Ordering::Relaxed) {
            0 => {
                let process = std::process::id();
                mark.store(process, Ordering::Relaxed);
                Self(process)
            }
            process => Self(process),
        }
    }

    /// Whether this is the process that made the value. No system call, except on kernels older
    /// than 4.14.
    pub(crate) fn is_here(self) -> bool {
        let here = mark().map_or_else(std::process::id, |mark| mark.load(Ordering::Relaxed));
        here == self.0
    }
}

/// A number that is zero again in a forked child, however it was forked (`MADV_WIPEONFORK`, Linux
/// 4.14): a handler of `pthread_atfork` would miss a bare `clone(2)`, and asking for the process's
/// id costs a system call each time. `None` if the kernel does not offer it.
fn mark() -> Option<&'static AtomicU32> {
    static MARK: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    *MARK.get_or_init(|| {
        let length = NonZeroUsize::new(size_of::<AtomicU32>())?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let page =
            unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }.ok()?;
        // SAFETY: the whole range is the mapping above, which nothing refers to yet.
        let wiped = unsafe { madvise(page, length.get(), MmapAdvise::MADV_WIPEONFORK) };
        if wiped.is_err() {
            // SAFETY: as above.
            let _ = unsafe { nix::sys::mman::munmap(page, length.get()) };
            return None;
        }
        // SAFETY: the mapping is page-aligned, large enough, zeroed, and never unmapped from here on.
        Some(unsafe { page.cast::<AtomicU32>().as_ref() })
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    /// What a forked child answers.
    fn in_child(question: impl Fn() -> bool) -> bool {
        // SAFETY: the child only reads memory, makes system calls, and exits.
        match unsafe { fork() }.unwrap() {
            // SAFETY: ends the process without running anything of it.
            ForkResult::Child => unsafe { libc::_exit(i32::from(question())) },
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, answer) => answer == 1,
                ended => panic!("{ended:?}"),
            },
        }
    }

    #[test]
    fn a_forked_child_does_not_own_what_its_parent_made() {
        let owner = Owner::current();
        assert!(owner.is_here() && !in_child(|| owner.is_here()));
        assert!(in_child(|| Owner::current().is_here()));
        assert!(in_child(|| {
            let _ = Owner::current();
            !owner.is_here()
        }));
        assert_eq!(owner, Owner::current());
    }
}
