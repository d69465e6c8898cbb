//! # Fences
//!
//! Fences are fds of sync files. Those that a program gives are borrowed, and -1 is a fence that is signalled. Those
//! that it gets are new, close-on-exec, and the program's.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use primeshare::sync::{self, Access, SyncFile, implicit};

use crate::arguments::{array, dup, fence, give_fd, out, timeout};
use crate::buffer::primeshare_buffer;
use crate::failure::{Failure, call, value};
use crate::object::of;

/// Reading.
pub const PRIMESHARE_ACCESS_READ: u32 = 1;
/// Writing.
pub const PRIMESHARE_ACCESS_WRITE: u32 = 2;
/// Both.
pub const PRIMESHARE_ACCESS_READ_WRITE: u32 = 3;

pub(crate) fn access(access: u32) -> Result<Access, Failure> {
    match access {
        PRIMESHARE_ACCESS_READ => Ok(Access::Read),
        PRIMESHARE_ACCESS_WRITE => Ok(Access::Write),
        PRIMESHARE_ACCESS_READ_WRITE => Ok(Access::ReadWrite),
        _ => Err(Failure::invalid(format!("there is no access {access}"))),
    }
}

pub(crate) fn sync_file(fd: BorrowedFd<'_>) -> Result<SyncFile, Failure> {
    Ok(SyncFile::new(dup(fd)?)?)
}

/// Writes a fence of the pending work on a buffer that has to end before an access (DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
/// Linux 5.20): writers before reading, everyone before writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_export_fence(
    buffer: Option<&primeshare_buffer>,
    access_kind: u32,
    sync_file: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    call(c"primeshare_buffer_export_fence", || {
        let buffer = of(buffer, "buffer")?;
        let place = out(sync_file, "sync_file")?;
        let exported = implicit::export_sync_file(&buffer.0, access(access_kind)?)?;
        place.write(give_fd(Some(exported)));
        Ok(())
    })
}

/// Adds a fence of an access to a buffer, for those who synchronise implicitly (DMA_BUF_IOCTL_IMPORT_SYNC_FILE, Linux
/// 5.20). -1 does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_import_fence(
    buffer: Option<&primeshare_buffer>,
    access_kind: u32,
    sync_file_fd: c_int,
) -> c_int {
    call(c"primeshare_buffer_import_fence", || {
        let buffer = of(buffer, "buffer")?;
        let access = access(access_kind)?;
        if let Some(fd) = fence(sync_file_fd, "sync_file")? {
            implicit::import_sync_file(&buffer.0, &sync_file(fd)?, access)?;
        }
        Ok(())
    })
}

/// Returns 1 if a fence is signalled, 0 if it is not, and a negative errno if its work has failed. Does not wait.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_fence_is_signalled(sync_file_fd: c_int) -> c_int {
    value(c"primeshare_fence_is_signalled", || {
        let Some(fd) = fence(sync_file_fd, "sync_file")? else {
            return Ok(1);
        };
        match sync_file(fd)?.status()? {
            sync::Status::Pending => Ok(0),
            sync::Status::Signalled => Ok(1),
            sync::Status::Failed(errno) => Err(errno.into()),
            _ => Ok(0),
        }
    })
}

/// Waits until a fence is signalled; a negative timeout, in nanoseconds, is none. -ETIME or -ETIMEDOUT if it passes.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_fence_wait(sync_file_fd: c_int, timeout_ns: i64) -> c_int {
    call(c"primeshare_fence_wait", || {
        match fence(sync_file_fd, "sync_file")? {
            Some(fd) => Ok(sync_file(fd)?.wait(timeout(timeout_ns))?),
            None => Ok(()),
        }
    })
}

/// Makes a fence that is signalled when all of these are; -1 if all of them are -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_fence_merge(
    sync_files: *const c_int,
    count: usize,
    merged: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    call(c"primeshare_fence_merge", || {
        // SAFETY: as the header asks.
        let numbers = unsafe { array(sync_files, count, "sync_files") }?;
        let merged = out(merged, "merged")?;
        let mut fences = Vec::with_capacity(count);
        for number in numbers {
            if let Some(fd) = fence(*number, "one of sync_files")? {
                fences.push(sync_file(fd)?);
            }
        }
        let all: Option<OwnedFd> = SyncFile::merge_all(fences)?.map(Into::into);
        merged.write(give_fd(all));
        Ok(())
    })
}
