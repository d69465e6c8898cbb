//! Who closes the fd of an import that failed.
//!
//! By the specification the caller does: the fd passes to the driver by a successful import only
//! (VkImportMemoryFdInfoKHR). lavapipe up to Mesa 25.0 closes it all the same. Afterwards one cannot see
//! whether it did: another thread may have the number by then, even for another fd of the same dma-buf. Later
//! releases of lavapipe follow the specification, but no version number tells them apart: lavapipe called
//! itself 0.0.1 for years. So lavapipe is tried out with memory that nobody else has, once per device, at its
//! first refusal.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use ash::vk;

use super::external::DMA_BUF;
use super::{Call, Device, Error};
use crate::sys::{self, file, udmabuf};

/// Whether the driver closes the fds that it refuses, or what is needed to find that out.
pub(super) enum Refused {
    Closed,
    Kept,
    /// Memory that nobody else has, to be offered if the driver refuses something. It is made
    /// beforehand, so that a lack of fds is met while nothing is lost by it.
    Unknown(OwnedFd),
}

/// To be called before an import. Takes an fd if the driver is not known yet, and fails if none is free.
pub(super) fn prepare(device: &Device) -> Result<Refused, Error> {
    let is_lavapipe = device.physical().driver_id() == Some(vk::DriverId::MESA_LLVMPIPE);
    match (is_lavapipe, device.closes_refused_fds().get()) {
        (false, _) | (_, Some(false)) => Ok(Refused::Kept),
        (_, Some(true)) => Ok(Refused::Closed),
        (_, None) => {
            let memory = udmabuf::memory(udmabuf::page_size()).map_err(Error::Duplicate)?;
            Ok(Refused::Unknown(memory))
        }
    }
}

/// Closes the fd that the driver was offered and refused with `result`, unless the driver did.
pub(super) fn take_back(device: &Device, refused: Refused, fd: OwnedFd, result: vk::Result) {
    let is_closed = match refused {
        _ if is_before_the_fd(result) => false,
        Refused::Closed => true,
        Refused::Kept => false,
        Refused::Unknown(memory) => match probe(device, memory) {
            Ok(closes) => *device.closes_refused_fds().get_or_init(|| closes),
            Err(error) => {
                log::warn!("an fd is left open, which {device:?} may have closed: {error}");
                true
            }
        },
    };
    if is_closed {
        // The number may belong to another fd by now, so it must not be closed.
        let _ = fd.into_raw_fd();
    }
}

/// Whether lavapipe fails with this result before it uses the fd: if it lacks host memory for its own object,
/// or if a layer fails.
fn is_before_the_fd(result: vk::Result) -> bool {
    !matches!(
        result,
        vk::Result::ERROR_INVALID_EXTERNAL_HANDLE | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
    )
}

/// Offers memory of one page as memory of two, and says whether the driver closes it.
///
/// It is a memfd and no dma-buf: lavapipe maps whatever file it is given
/// (`llvmpipe_import_memory_fd`), and a memfd needs no `/dev/udmabuf`.
fn probe(device: &Device, fd: OwnedFd) -> Result<bool, Error> {
    let size = udmabuf::page_size();
    let offered = file::stat(fd.as_fd()).map_err(Error::Duplicate)?;
    let mut import = vk::ImportMemoryFdInfoKHR::default()
        .handle_type(DMA_BUF)
        .fd(fd.as_raw_fd());
    // lavapipe has one memory type.
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(size * 2)
        .memory_type_index(0)
        .push_next(&mut import);
    // SAFETY: `info` lives until the call returns, and the fd is ours to give.
    let allocated = unsafe { device.raw().allocate_memory(&info, None) };
    let number = fd.into_raw_fd();
    match allocated {
        Ok(memory) => {
            // This driver takes memory that is too small, so there is no refusal to learn from.
            // SAFETY: the memory was just made, and nothing uses it.
            unsafe { device.raw().free_memory(memory, None) };
            Ok(false)
        }
        Err(result) if is_before_the_fd(result) => {
            // SAFETY: the driver has not come to the fd, which is open and ours.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            Err(device.failed(Call::ImportMemory)(result))
        }
        Err(_) => {
            // Nobody else has this memfd, so if the number still means it, it is our own fd.
            let is_kept = file::stat_number(number)
                .is_ok_and(|now| (now.st_dev, now.st_ino) == (offered.st_dev, offered.st_ino));
            if is_kept {
                // SAFETY: as just found out, it is open and ours.
                drop(unsafe { OwnedFd::from_raw_fd(number) });
            }
            Ok(!is_kept)
        }
    }
}

/// A dup of an fd to give away.
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned()
        .map_err(|error| Error::Duplicate(sys::errno(error)))
}
