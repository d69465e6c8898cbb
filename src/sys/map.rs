//! `mmap(2)` of memory that devices share, so that it is never a Rust reference.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};

/// A shared mapping, unmapped on drop. Bytes are copied in and out, since devices and other
/// processes may change them at any time.
#[derive(Debug)]
pub(crate) struct Map {
    address: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: a shared reference only reads; writing takes an exclusive one.
unsafe impl Sync for Map {}

impl Map {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: NonZeroUsize,
        protection: ProtFlags,
    ) -> Result<Self, Errno> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // Not repeated: EAGAIN means that too much memory is locked (mlockall), and stays.
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let address = unsafe {
            nix::sys::mman::mmap(None, length, protection, MapFlags::MAP_SHARED, fd, offset)?
        };
        Ok(Self {
            address: address.cast(),
            length,
        })
    }

    pub(crate) fn length(&self) -> usize {
        self.length.get()
    }

    /// Whether `length` bytes from `offset` are all inside.
    fn contains(&self, offset: usize, length: usize) -> bool {
        offset
            .checked_add(length)
            .is_some_and(|end| end <= self.length())
    }

    /// Copies bytes out; `None`, and nothing done, where they are not all inside.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        if !self.contains(offset, into.len()) {
            return None;
        }
        // SAFETY: the range was just checked, the mapping lives as long as `self`, and a Rust
        // slice cannot overlap it. If something writes meanwhile the bytes are a mixture.
        unsafe {
            let from = self.address.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
        Some(())
    }

    /// Copies bytes out of another mapping; `None`, and nothing done, where they are not all inside
    /// both. The mapping must have been made writable.
    pub(crate) fn copy(
        &mut self,
        at: usize,
        from: &Map,
        offset: usize,
        length: usize,
    ) -> Option<()> {
        if !self.contains(at, length) || !from.contains(offset, length) {
            return None;
        }
        // SAFETY: as in `read` and `write`. `copy` and not `copy_nonoverlapping`: two mappings may
        // be of one memory.
        unsafe {
            let from = from.address.as_ptr().add(offset);
            std::ptr::copy(from, self.address.as_ptr().add(at), length);
        }
        Some(())
    }

    /// Copies bytes in; `None`, and nothing done, where they are not all inside. The mapping must
    /// have been made writable.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) -> Option<()> {
        if !self.contains(offset, from.len()) {
            return None;
        }
        // SAFETY: as in `read`, and the mapping is writable.
        unsafe {
            let into = self.address.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len());
        }
        Some(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and its address never left this type.
        let unmapped = unsafe { nix::sys::mman::munmap(self.address.cast(), self.length()) };
        if let Err(errno) = unmapped {
            log::error!("munmap: {errno}");
        }
    }
}
