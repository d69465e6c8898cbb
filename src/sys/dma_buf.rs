//! `include/uapi/linux/dma-buf.h` and `include/uapi/linux/magic.h`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::statfs::FsType;

use crate::Errno;

/// `DMA_BUF_MAGIC`: the file system type of every dma-buf since Linux 5.3.
const MAGIC: u32 = 0x444d_4142;

pub(crate) const SYNC_READ: u64 = 1;
pub(crate) const SYNC_WRITE: u64 = 2;
pub(crate) const SYNC_START: u64 = 0;
pub(crate) const SYNC_END: u64 = 4;

#[repr(C)]
pub(crate) struct Sync {
    flags: u64,
}

#[repr(C)]
pub(crate) struct SyncFile {
    flags: u32,
    fd: i32,
}

nix::ioctl_write_ptr!(ioctl_sync, b'b', 0, Sync);
nix::ioctl_readwrite!(ioctl_export_sync_file, b'b', 2, SyncFile);
nix::ioctl_write_ptr!(ioctl_import_sync_file, b'b', 3, SyncFile);

/// `DMA_BUF_IOCTL_SYNC`: one end of a CPU access bracket. May wait for the buffer's fences.
pub(crate) fn sync(fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    let arg = Sync { flags };
    super::retry(|| {
        // SAFETY: the fd is open for the call, and `arg` outlives it.
        unsafe { ioctl_sync(fd.as_raw_fd(), &arg) }
    })
    .map(drop)
}

/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`, Linux 6.0: the fences that somebody who is about to read
/// (`SYNC_READ`) or write (`SYNC_WRITE`) has to wait for, as a sync_file. Close-on-exec. Does not
/// wait.
pub(crate) fn export_sync_file(fd: BorrowedFd<'_>, flags: u64) -> Result<OwnedFd, Errno> {
    let mut arg = SyncFile {
        flags: flags as u32,
        fd: -1,
    };
    // SAFETY: the fd is open for the call, and `arg` outlives it.
    super::retry(|| unsafe { ioctl_export_sync_file(fd.as_raw_fd(), &mut arg) })?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(arg.fd) })
}

/// `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`, Linux 6.0: adds the fences of somebody who reads
/// (`SYNC_READ`) or writes (`SYNC_WRITE`).
pub(crate) fn import_sync_file(
    fd: BorrowedFd<'_>,
    sync_file: BorrowedFd<'_>,
    flags: u64,
) -> Result<(), Errno> {
    let arg = SyncFile {
        flags: flags as u32,
        fd: sync_file.as_raw_fd(),
    };
    // SAFETY: both fds are open for the call, and `arg` outlives it.
    super::retry(|| unsafe { ioctl_import_sync_file(fd.as_raw_fd(), &arg) }).map(drop)
}

/// Whether the fd is a dma-buf at all.
pub(crate) fn is_dma_buf(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    nix::sys::statfs::fstatfs(fd)
        .map(|s| s.filesystem_type() == FsType(MAGIC as _))
        .map_err(super::errno)
}

/// The name of the module that exported a dma-buf (`exp_name` in fdinfo,
/// `Documentation/filesystems/proc.rst`). `None` without a `/proc` to ask. Takes an fd for a moment.
pub(crate) fn exporter(fd: BorrowedFd<'_>) -> Result<Option<String>, Errno> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    match std::fs::read_to_string(path).map_err(super::errno) {
        Ok(info) => Ok(exporter_in(&info)),
        Err(errno) if super::is_absence(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn exporter_in(fdinfo: &str) -> Option<String> {
    let name = |line: &str| Some(line.strip_prefix("exp_name:")?.trim().to_owned());
    fdinfo.lines().find_map(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exporter_is_found_among_the_other_lines() {
        let info = "pos:\t0\nsize:\t16384\ncount:\t2\nexp_name:\tvirtio_gpu\nname:\tpicture\n";
        assert_eq!(exporter_in(info).as_deref(), Some("virtio_gpu"));
        assert_eq!(exporter_in("pos:\t0\nflags:\t02100002\n"), None);
    }
}
