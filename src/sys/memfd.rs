//! `memfd_create(2)`, and reading of memory that other programs can cut off.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::Errno;

/// A memfd with these bytes, which nobody can change any more.
pub(crate) fn sealed(name: &CStr, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create(name, flags).map_err(super::errno)?;
    let mut written = 0;
    while written < bytes.len() {
        let left = &bytes[written..];
        let count = super::uninterrupted(|| {
            let count = rustix::io::pwrite(&memory, left, written as u64);
            count.map_err(super::errno)
        })?;
        written += count;
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(super::errno)?;
    Ok(memory)
}

/// Reads all of `into` from `offset` on. ENODATA: the file ends before that.
pub(crate) fn read(file: BorrowedFd<'_>, mut offset: u64, into: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < into.len() {
        let left = &mut into[done..];
        let count = super::uninterrupted(|| {
            let count = rustix::io::pread(file, &mut *left, offset);
            count.map_err(super::errno)
        })?;
        if count == 0 {
            return Err(Errno::ENODATA);
        }
        done += count;
        offset += count as u64;
    }
    Ok(())
}
