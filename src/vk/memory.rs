//! Device memory that is imported from a dma-buf, exported as one, or private.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use ash::vk;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::external::DMA_BUF;
use super::{Call, Device, Error, fds, query, quirks};
use crate::Errno;
use crate::buffer::{DmaBuf, PlaneObject};
use crate::sync::{self, host_copy};
use crate::sys;

/// Device memory. The drop frees it, so images and buffers that are bound to it must be dropped before.
#[derive(Debug)]
pub(super) struct Memory {
    device: Device,
    raw: vk::DeviceMemory,
}

/// The one image or buffer that a dedicated allocation is for.
#[derive(Clone, Copy)]
pub(super) enum Dedicated {
    Image(vk::Image),
    Buffer(vk::Buffer),
    /// One plane of a disjoint image, for which there is no dedicated allocation:
    /// VUID-VkMemoryDedicatedAllocateInfo-image-01797.
    Plane,
}

impl Dedicated {
    fn info(self) -> Option<vk::MemoryDedicatedAllocateInfo<'static>> {
        let info = vk::MemoryDedicatedAllocateInfo::default();
        match self {
            Self::Image(image) => Some(info.image(image)),
            Self::Buffer(buffer) => Some(info.buffer(buffer)),
            Self::Plane => None,
        }
    }
}

impl Memory {
    /// Imports a dma-buf of at least the needed size. Its fd stays its own: the driver gets a dup.
    pub(super) fn import(
        device: &Device,
        object: &PlaneObject,
        needs: vk::MemoryRequirements,
        dedicated: Dedicated,
    ) -> Result<Self, Error> {
        let import = || Self::try_import(device, object, needs, dedicated);
        device.refusals().watch(object, import)
    }

    fn try_import(
        device: &Device,
        object: &PlaneObject,
        needs: vk::MemoryRequirements,
        dedicated: Dedicated,
    ) -> Result<Self, Error> {
        if needs.size > object.size() {
            return Err(Error::TooSmall {
                needed: needs.size,
                available: object.size(),
            });
        }
        fits(device, needs.size)?;
        let types = query::memory_types(device, object.as_fd())?;
        let memory_type = common_type(types, needs.memory_type_bits)?;
        let if_refused = fds::prepare(device)?;
        let fd = fds::duplicate(object.as_fd())?;
        let mut import = vk::ImportMemoryFdInfoKHR::default()
            .handle_type(DMA_BUF)
            .fd(fd.as_raw_fd());
        let mut dedicated = dedicated.info();
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(memory_type)
            .push_next(&mut import);
        if let Some(dedicated) = &mut dedicated {
            info = info.push_next(dedicated);
        }
        sys::clear_errno();
        // SAFETY: `info` lives until the call returns, and the fd is ours to give.
        match unsafe { device.raw().allocate_memory(&info, None) } {
            Ok(raw) => {
                // The driver's from now on.
                let _ = fd.into_raw_fd();
                Ok(Self {
                    device: device.clone(),
                    raw,
                })
            }
            Err(result) => {
                let errno = sys::last_errno();
                fds::take_back(device, if_refused, fd, result);
                Err(refused(device, object, result, errno))
            }
        }
    }

    /// Allocates memory that can be exported, of the first memory type that has room.
    pub(super) fn exportable(
        device: &Device,
        needs: vk::MemoryRequirements,
        dedicated: Dedicated,
    ) -> Result<Self, Error> {
        Self::of_any_type(device, needs, |memory_type| {
            Self::allocate(device, needs, Some(dedicated), memory_type)
        })
    }

    /// Allocates memory that is never shared, of the first memory type that has room.
    pub(super) fn private(device: &Device, needs: vk::MemoryRequirements) -> Result<Self, Error> {
        Self::of_any_type(device, needs, |memory_type| {
            Self::allocate(device, needs, None, memory_type)
        })
    }

    fn of_any_type(
        device: &Device,
        needs: vk::MemoryRequirements,
        allocate: impl Fn(u32) -> Result<Self, Error>,
    ) -> Result<Self, Error> {
        fits(device, needs.size)?;
        let mut last = Error::NoMemoryType {
            dma_buf: u32::MAX,
            needed: needs.memory_type_bits,
        };
        for memory_type in own_first(&memory_types(device), needs.memory_type_bits) {
            match allocate(memory_type) {
                Err(error) if !error.is_device_lost() => last = error,
                ended => return ended,
            }
        }
        Err(last)
    }

    /// Allocates memory. It can be exported if it is for an image or a buffer that is shared.
    fn allocate(
        device: &Device,
        needs: vk::MemoryRequirements,
        shared: Option<Dedicated>,
        memory_type: u32,
    ) -> Result<Self, Error> {
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(DMA_BUF);
        let mut dedicated = shared.and_then(Dedicated::info);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(memory_type);
        if shared.is_some() {
            info = info.push_next(&mut export);
        }
        if let Some(dedicated) = &mut dedicated {
            info = info.push_next(dedicated);
        }
        // SAFETY: `info` lives until the call returns.
        let raw = unsafe { device.raw().allocate_memory(&info, None) }
            .map_err(device.failed(Call::AllocateMemory))?;
        Ok(Self {
            device: device.clone(),
            raw,
        })
    }

    /// A new fd of the memory's dma-buf, closed by exec.
    pub(super) fn export(&self) -> Result<OwnedFd, Error> {
        let info = vk::MemoryGetFdInfoKHR::default()
            .memory(self.raw)
            .handle_type(DMA_BUF);
        // SAFETY: the memory was made for export as this.
        let fd = unsafe { self.device.functions().memory_fd.get_memory_fd(&info) }
            .map_err(self.device.failed(Call::GetMemoryFd))?;
        if fd < 0 {
            return Err(Error::NoFd {
                device: self.device.physical().name().to_owned(),
                call: Call::GetMemoryFd,
            });
        }
        // SAFETY: the call succeeded, so this is a new fd that nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        close_on_exec(&fd)?;
        Ok(fd)
    }

    pub(super) fn raw(&self) -> vk::DeviceMemory {
        self.raw
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: what was bound to it has been destroyed before, as the type's contract says.
            unsafe { raw.free_memory(handle, None) }
        });
    }
}

/// Sees to it that exec closes a driver's fd: lavapipe up to 26.1 forgets it.
pub(super) fn close_on_exec(fd: &OwnedFd) -> Result<(), Error> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map(drop)
        .map_err(|error| Error::Duplicate(sys::errno(error)))
}

/// Refuses what is larger than any allocation (VUID-vkAllocateMemory-pAllocateInfo-01713 and
/// `maxMemoryAllocationSize`).
pub(super) fn fits(device: &Device, size: u64) -> Result<(), Error> {
    let most = device.physical().max_allocation();
    match size > most {
        true => Err(Error::TooManyBytes { size, most }),
        false => Ok(()),
    }
}

/// The first type that suits both.
fn common_type(dma_buf: u32, needed: u32) -> Result<u32, Error> {
    match dma_buf & needed {
        0 => Err(Error::NoMemoryType { dma_buf, needed }),
        types => Ok(types.trailing_zeros()),
    }
}

impl Device {
    /// What kinds of memory the device takes a buffer's first dma-buf as: the properties of each memory type that
    /// `vkGetMemoryFdPropertiesKHR` lists for it. For reports: drivers list what an import may use, so several kinds say only
    /// where the memory can be. `DEVICE_LOCAL` without `HOST_VISIBLE` is video memory for sure; on integrated GPUs system
    /// memory is `DEVICE_LOCAL` as well, and with a resizable BAR video memory is `HOST_VISIBLE`.
    pub fn memory_of(&self, buffer: &DmaBuf) -> Result<Vec<vk::MemoryPropertyFlags>, Error> {
        let listed = query::memory_types(self, buffer.objects()[0].as_fd())?;
        let is_listed = |index: u32| listed.checked_shr(index).is_some_and(|bits| bits & 1 == 1);
        let types = (0..).zip(memory_types(self));
        Ok(types
            .filter_map(|(index, flags)| is_listed(index).then_some(flags))
            .collect())
    }
}

pub(super) fn memory_types(device: &Device) -> Vec<vk::MemoryPropertyFlags> {
    let physical = device.physical();
    let instance = physical.instance().raw();
    // SAFETY: the handle is of the instance.
    let all = unsafe { instance.get_physical_device_memory_properties(physical.raw()) };
    let types = all.memory_types_as_slice().iter();
    types.map(|kind| kind.property_flags).collect()
}

/// The types for memory that the CPU does not touch, in the order in which they are tried: the device's
/// own memory, then the others. (NVIDIA's first type has no properties, and is system memory.)
///
/// Left out are types that need features which are not enabled
/// (VUID-VkMemoryAllocateInfo-deviceCoherentMemory-02790), protected memory, which is for protected images
/// only (VUID-VkBindImageMemoryInfo-None-01902), and lazily allocated memory, which cannot sensibly be
/// exported.
fn own_first(types: &[vk::MemoryPropertyFlags], needed: u32) -> Vec<u32> {
    use vk::MemoryPropertyFlags as F;
    let unusable =
        F::PROTECTED | F::LAZILY_ALLOCATED | F::DEVICE_COHERENT_AMD | F::DEVICE_UNCACHED_AMD;
    let usable = (0..).zip(types).filter(|(index, flags)| {
        let is_needed = 1_u32
            .checked_shl(*index)
            .is_some_and(|bit| needed & bit != 0);
        is_needed && !flags.intersects(unusable)
    });
    let (mut own, others): (Vec<_>, Vec<_>) =
        usable.partition(|(_, flags)| flags.contains(F::DEVICE_LOCAL));
    own.extend(others);
    own.into_iter().map(|(index, _)| index).collect()
}

/// The error of an import, with its reason if that is known.
fn refused(
    device: &Device,
    object: &PlaneObject,
    result: vk::Result,
    errno: Option<Errno>,
) -> Error {
    let mode = fcntl(object.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let read_only = mode.is_ok_and(|mode| mode & OFlag::O_ACCMODE == OFlag::O_RDONLY);
    match result == vk::Result::ERROR_INVALID_EXTERNAL_HANDLE && read_only {
        true => Error::ReadOnly {
            device: device.physical().name().to_owned(),
        },
        false => Error::of_import(device.physical().name(), Call::ImportMemory, result, errno),
    }
}

/// Refuses memory that is only a copy of a picture on a virtual machine's host: an import would show an old
/// picture, and what is written would not arrive. Also refuses memory that makes the driver end the process.
pub(super) fn check(device: &Device, buffer: &DmaBuf) -> Result<(), Error> {
    if quirks::aborts_on_classic_resources(device.physical()) {
        return match host_copy::is_classic(buffer) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::ClassicResource {
                device: device.physical().name().to_owned(),
            }),
            Err(error) => Err(Error::NotCurrent(error)),
        };
    }
    match host_copy::is_on_host(buffer) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::NotCurrent(sync::Error::OnHost)),
        Err(error) => Err(Error::NotCurrent(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_to_share_is_the_devices_own_if_there_is_some() {
        use vk::MemoryPropertyFlags as F;
        // As NVIDIA has them: system memory, video memory, both for the CPU, the window.
        let types = [
            F::empty(),
            F::DEVICE_LOCAL,
            F::HOST_VISIBLE | F::HOST_COHERENT,
            F::DEVICE_LOCAL | F::PROTECTED,
            F::DEVICE_LOCAL | F::HOST_VISIBLE,
        ];
        assert_eq!(own_first(&types, u32::MAX), [1, 4, 0, 2]);
        assert_eq!(own_first(&types, 0b00101), [0, 2]);
        assert_eq!(own_first(&types, 0b01000), [0; 0]);
    }

    #[test]
    fn a_memory_type_must_suit_both_sides() {
        assert_eq!(common_type(0b1110, 0b0110), Ok(1));
        assert_eq!(common_type(1 << 31, u32::MAX), Ok(31));
        assert_eq!(
            common_type(0b1000, 0b0110),
            Err(Error::NoMemoryType {
                dma_buf: 0b1000,
                needed: 0b0110
            })
        );
    }
}
