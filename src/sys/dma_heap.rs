//! `include/uapi/linux/dma-heap.h`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Errno;

#[repr(C)]
pub(crate) struct AllocationData {
    length: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

nix::ioctl_readwrite!(ioctl_alloc, b'H', 0, AllocationData);

/// `DMA_HEAP_IOCTL_ALLOC`: a dma-buf of `size` bytes, rounded up to pages, readable and writable.
///
/// ENOMEM for more than the machine's memory. The kernel is not asked for that: the system heap
/// would take page after page, until the OOM killer ended this process (`system_heap_allocate`,
/// seen on 6.12 and 7.3).
pub(crate) fn alloc(heap: BorrowedFd<'_>, size: u64) -> Result<OwnedFd, Errno> {
    if size > physical_memory() {
        return Err(Errno::ENOMEM);
    }
    let mut data = AllocationData {
        length: size,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC) as u32,
        heap_flags: 0,
    };
    // SAFETY: the fd is open for the call, and `data` outlives it.
    super::uninterrupted(|| unsafe { ioctl_alloc(heap.as_raw_fd(), &mut data) })?;
    let fd = i32::try_from(data.fd).map_err(|_| Errno::EPROTO)?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes of memory that the machine has.
fn physical_memory() -> u64 {
    // SAFETY: sysconf touches no memory of ours.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    let pages = u64::try_from(pages).unwrap_or(u64::MAX);
    pages.saturating_mul(super::udmabuf::page_size())
}
