//! `include/uapi/linux/udmabuf.h`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

use crate::Errno;

pub(crate) const PATH: &str = "/dev/udmabuf";
const FLAGS_CLOEXEC: u32 = 1;

#[repr(C)]
pub(crate) struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

nix::ioctl_write_ptr!(ioctl_create, b'u', 0x42, Create);

/// Opens the node.
pub(crate) fn open() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    super::uninterrupted(|| nix::fcntl::open(PATH, flags, Mode::empty()))
}

/// A memfd as udmabuf wants it: of `size` bytes, a page multiple, and unable to shrink.
pub(crate) fn memory(size: u64) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"primeshare", flags).map_err(super::errno)?;
    super::uninterrupted(|| {
        let sized = rustix::fs::ftruncate(&memory, size);
        sized.map_err(super::errno)
    })?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map_err(super::errno)?;
    Ok(memory)
}

pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Keeps a memfd from shrinking, if it is not kept from it yet, and gives its size in bytes. EINVAL: it is no memfd. EPERM:
/// it takes no seals, or is not open for writing.
pub(crate) fn seal(memfd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let seals = fcntl(memfd, FcntlArg::F_GET_SEALS).map_err(super::errno)?;
    if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK);
        fcntl(memfd, seal).map_err(super::errno)?;
    }
    // Asked for afterwards: it can only grow now.
    let stat = nix::sys::stat::fstat(memfd).map_err(super::errno)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// `UDMABUF_CREATE`: a dma-buf over `size` bytes of a memfd, from `offset` on. Both are page multiples, and the memfd
/// carries `F_SEAL_SHRINK`.
pub(crate) fn create(
    udmabuf: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    offset: u64,
    size: u64,
) -> Result<OwnedFd, Errno> {
    let arg = Create {
        memfd: memfd.as_raw_fd() as u32,
        flags: FLAGS_CLOEXEC,
        offset,
        size,
    };
    // SAFETY: both fds are open for the call, and `arg` outlives it.
    let fd = super::uninterrupted(|| unsafe { ioctl_create(udmabuf.as_raw_fd(), &arg) })?;
    // SAFETY: on success the ioctl returns a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct udmabuf_create_list` with two items.
#[repr(C)]
pub(crate) struct CreateTwo {
    flags: u32,
    count: u32,
    items: [Item; 2],
}

#[repr(C)]
struct Item {
    memfd: u32,
    padding: u32,
    offset: u64,
    size: u64,
}

/// What `UDMABUF_CREATE_LIST` says of its size: the structure without its items.
#[repr(C)]
pub(crate) struct ListHeader {
    flags: u32,
    count: u32,
}

nix::ioctl_write_ptr!(ioctl_create_list, b'u', 0x43, ListHeader);

/// `UDMABUF_CREATE_LIST`: a dma-buf of two pages of a memfd, in this order.
pub(crate) fn create_of_pages(
    udmabuf: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    pages: [u64; 2],
) -> Result<OwnedFd, Errno> {
    let size = page_size();
    let item = |page: u64| Item {
        memfd: memfd.as_raw_fd() as u32,
        padding: 0,
        offset: page * size,
        size,
    };
    let arg = CreateTwo {
        flags: FLAGS_CLOEXEC,
        count: 2,
        items: pages.map(item),
    };
    let header = std::ptr::from_ref(&arg).cast::<ListHeader>();
    // SAFETY: both fds are open for the call; the kernel reads the header and as many items as it counts, and `arg`,
    // which has them all, outlives the call.
    let fd = super::uninterrupted(|| unsafe { ioctl_create_list(udmabuf.as_raw_fd(), header) })?;
    // SAFETY: on success the ioctl returns a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
