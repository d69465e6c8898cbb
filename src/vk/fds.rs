//! Whose an fd is after an import that failed.
//!
//! The specification leaves it with the caller: it passes to the driver by a successful import
//! only (VkImportMemoryFdInfoKHR). lavapipe up to Mesa 25.0 closes it all the same, and whether it
//! did cannot be told by looking: the number may be another thread's by then, and even another fd
//! of the same dma-buf. Later ones keep to the specification, and no version tells them apart:
//! lavapipe called itself 0.0.1 for years. So lavapipe is tried, once per device and at the first
//! refusal, with a dma-buf that nobody else has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use ash::vk;
use nix::errno::Errno;

use super::image::DMA_BUF;
use super::{Device, Error, query};
use crate::buffer::BufferId;
use crate::sys::{self, udmabuf};

/// Closes the fd that the driver was offered and refused with `result`, unless the driver did.
pub(super) fn take_back(device: &Device, fd: OwnedFd, result: vk::Result) {
    let ours = match closes_refused(device) {
        Some(closes) => !closes || before_the_fd(result),
        None => {
            log::warn!("an fd is left open: it may have been closed by {device:?}");
            false
        }
    };
    if !ours {
        // Closed already, and whatever has the number now is not ours.
        let _ = fd.into_raw_fd();
    }
}

/// Whether lavapipe fails with this before it comes to the fd: with a lack of host memory for its
/// own object, or in a layer.
fn before_the_fd(result: vk::Result) -> bool {
    !matches!(
        result,
        vk::Result::ERROR_INVALID_EXTERNAL_HANDLE | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
    )
}

/// Whether the driver closes what it refuses. `None`: it could not be found out, this time.
fn closes_refused(device: &Device) -> Option<bool> {
    if device.physical().driver_id() != Some(vk::DriverId::MESA_LLVMPIPE) {
        return Some(false);
    }
    let known = device.closes_refused_fds();
    known.get().copied().or_else(|| {
        let closes = probe(device)
            .inspect_err(|error| log::debug!("cannot try what becomes of refused fds: {error}"))
            .ok()?;
        Some(*known.get_or_init(|| closes))
    })
}

/// Offers a dma-buf of one page as memory of two.
fn probe(device: &Device) -> Result<bool, Error> {
    let size = udmabuf::page_size();
    let fd = throwaway(size).map_err(Error::Duplicate)?;
    let id = BufferId::of(&fd).map_err(Error::Duplicate)?;
    let types = query::memory_types(device, fd.as_fd())?;
    let mut import = vk::ImportMemoryFdInfoKHR::default()
        .handle_type(DMA_BUF)
        .fd(fd.as_raw_fd());
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(size * 2)
        .memory_type_index(types.trailing_zeros())
        .push_next(&mut import);
    // SAFETY: `info` lives until the call returns, and the fd is ours to give.
    let allocated = unsafe { device.raw().allocate_memory(&info, None) };
    let number = fd.into_raw_fd();
    match allocated {
        Ok(memory) => {
            // It takes what is too small: no refusal to learn from.
            // SAFETY: the memory was just made, and nothing uses it.
            unsafe { device.raw().free_memory(memory, None) };
            Ok(false)
        }
        Err(result) if before_the_fd(result) => {
            // SAFETY: the driver has not come to it.
            drop(unsafe { owned(number) });
            Err(device.failed(super::Call::ImportMemory)(result))
        }
        Err(_) => {
            // Nobody else has this dma-buf, so if the number still means it, it is our own fd.
            let now = BufferId::of_number(number);
            let kept = now == Ok(id);
            if kept {
                // SAFETY: as just found out, it is ours.
                drop(unsafe { owned(number) });
            }
            Ok(!kept)
        }
    }
}

unsafe fn owned(number: i32) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the caller says that the fd is open and its own.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// A dma-buf that nobody else has.
fn throwaway(size: u64) -> Result<OwnedFd, Errno> {
    let memory = udmabuf::memory(size)?;
    udmabuf::create(udmabuf::open()?.as_fd(), memory.as_fd(), size)
}

/// A dup of an fd to give away.
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned()
        .map_err(|error| Error::Duplicate(sys::errno(error)))
}
