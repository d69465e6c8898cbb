//! Bare ioctls on dma-bufs and on what makes them: `include/uapi/linux/dma-buf.h`, `udmabuf.h`,
//! `dma-heap.h` and `sync_file.h`.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) const READ: u64 = 1;
pub(crate) const WRITE: u64 = 2;
pub(crate) const END: u64 = 4;

#[repr(C)]
struct Sync {
    flags: u64,
}

#[repr(C)]
struct SyncFile {
    flags: u32,
    fd: i32,
}

nix::ioctl_write_ptr!(ioctl_sync, b'b', 0, Sync);
nix::ioctl_write_ptr!(ioctl_set_name, b'b', 1, u64);
nix::ioctl_readwrite!(ioctl_export_sync_file, b'b', 2, SyncFile);
nix::ioctl_write_ptr!(ioctl_import_sync_file, b'b', 3, SyncFile);

/// DMA_BUF_IOCTL_SYNC.
pub(crate) fn sync(fd: impl AsFd, flags: u64) -> Result<(), Errno> {
    // SAFETY: the structure is the ioctl's and outlives the call.
    unsafe { ioctl_sync(fd.as_fd().as_raw_fd(), &Sync { flags }) }.map(drop)
}

/// DMA_BUF_SET_NAME.
pub(crate) fn set_name(fd: impl AsFd, name: &CStr) -> Result<(), Errno> {
    // The number of the ioctl has the size of a pointer, and its argument is the text itself.
    // SAFETY: the kernel reads a string that ends.
    unsafe { ioctl_set_name(fd.as_fd().as_raw_fd(), name.as_ptr().cast()) }.map(drop)
}

/// DMA_BUF_IOCTL_EXPORT_SYNC_FILE.
pub(crate) fn export_sync_file(fd: impl AsFd, flags: u64) -> Result<OwnedFd, Errno> {
    let mut arg = SyncFile {
        flags: flags as u32,
        fd: -1,
    };
    // SAFETY: the structure is the ioctl's and outlives the call.
    unsafe { ioctl_export_sync_file(fd.as_fd().as_raw_fd(), &mut arg) }?;
    // SAFETY: a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(arg.fd) })
}

/// DMA_BUF_IOCTL_IMPORT_SYNC_FILE.
pub(crate) fn import_sync_file(fd: impl AsFd, flags: u64, fence: i32) -> Result<(), Errno> {
    let arg = SyncFile {
        flags: flags as u32,
        fd: fence,
    };
    // SAFETY: the structure is the ioctl's and outlives the call.
    unsafe { ioctl_import_sync_file(fd.as_fd().as_raw_fd(), &arg) }.map(drop)
}

/// Which of these a `poll` that does not wait says.
pub(crate) fn ready(fd: BorrowedFd<'_>, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(fd, events)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap()
}

/// A field of `/proc/self/fdinfo`.
pub(crate) fn fdinfo(fd: impl AsFd, field: &str) -> Option<String> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let info = fs::read_to_string(path).unwrap();
    let value = |line: &str| {
        Some(
            line.strip_prefix(field)?
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    };
    info.lines().find_map(value)
}

#[repr(C)]
struct Udmabuf {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

nix::ioctl_write_ptr!(ioctl_udmabuf, b'u', 0x42, Udmabuf);

/// UDMABUF_CREATE, close-on-exec.
pub(crate) fn udmabuf(memfd: impl AsFd, offset: u64, size: u64) -> Result<OwnedFd, Errno> {
    udmabuf_with(memfd, 1, offset, size)
}

/// UDMABUF_CREATE.
pub(crate) fn udmabuf_with(
    memfd: impl AsFd,
    flags: u32,
    offset: u64,
    size: u64,
) -> Result<OwnedFd, Errno> {
    let node = File::options().read(true).write(true).open("/dev/udmabuf");
    let arg = Udmabuf {
        memfd: memfd.as_fd().as_raw_fd() as u32,
        flags,
        offset,
        size,
    };
    // SAFETY: the structure is the ioctl's and outlives the call.
    let fd = unsafe { ioctl_udmabuf(node.unwrap().as_raw_fd(), &arg) }?;
    // SAFETY: a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct Heap {
    length: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}

nix::ioctl_readwrite!(ioctl_heap, b'H', 0, Heap);

/// DMA_HEAP_IOCTL_ALLOC from the system heap.
pub(crate) fn heap(length: u64, fd_flags: i32, heap_flags: u64) -> Result<OwnedFd, Errno> {
    let heap = File::options()
        .read(true)
        .write(true)
        .open("/dev/dma_heap/system");
    let mut arg = Heap {
        length,
        fd: 0,
        fd_flags: fd_flags as u32,
        heap_flags,
    };
    // SAFETY: the structure is the ioctl's and outlives the call.
    unsafe { ioctl_heap(heap.unwrap().as_raw_fd(), &mut arg) }?;
    // SAFETY: a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(arg.fd as i32) })
}
