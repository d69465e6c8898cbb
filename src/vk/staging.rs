//! Memory of one device that the CPU writes or reads.

use std::ptr::NonNull;

use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};

use super::memory::{fits, memory_types};
use super::{Call, Device, Error};

/// A Vulkan buffer in memory that the CPU writes, for uploads, or reads, for downloads. Not shared
/// with other devices.
///
/// Each has an allocation of its own, which is freed on drop; work that uses it must be finished by
/// then.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    buffer: vk::Buffer,
    size: usize,
    /// Dropped after `drop` below has destroyed the buffer.
    memory: Option<Memory>,
}

/// Who writes to the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The CPU.
    Upload,
    /// The device.
    Download,
}

impl Staging {
    /// A buffer of `size` bytes to copy from.
    pub fn upload(device: &Device, size: usize) -> Result<Self, Error> {
        Self::new(device, size, Direction::Upload)
    }

    /// A buffer of `size` bytes to copy to. A barrier has to make what was copied visible to
    /// HOST_READ.
    pub fn download(device: &Device, size: usize) -> Result<Self, Error> {
        Self::new(device, size, Direction::Download)
    }

    fn new(device: &Device, size: usize, direction: Direction) -> Result<Self, Error> {
        // VUID-VkBufferCreateInfo-size-00912.
        if size == 0 {
            return Err(Error::StagingEmpty);
        }
        let usage = match direction {
            Direction::Upload => vk::BufferUsageFlags::TRANSFER_SRC,
            Direction::Download => vk::BufferUsageFlags::TRANSFER_DST,
        };
        let info = vk::BufferCreateInfo::default()
            .size(size as u64)
            .usage(usage)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        // SAFETY: `info` lives until the call returns.
        let buffer = unsafe { device.raw().create_buffer(&info, None) }
            .map_err(device.failed(Call::CreateBuffer))?;
        let mut staging = Self {
            device: device.clone(),
            buffer,
            size,
            memory: None,
        };
        // SAFETY: the buffer is alive.
        let needs = unsafe { device.raw().get_buffer_memory_requirements(buffer) };
        let memory = Memory::new(device, buffer, needs, direction)?;
        let (raw, offset) = memory.place();
        // SAFETY: the memory is new, of a type for this buffer, and freed after it.
        let bound = unsafe { device.raw().bind_buffer_memory(buffer, raw, offset) };
        staging.memory = Some(memory);
        bound.map_err(device.failed(Call::BindBufferMemory))?;
        Ok(staging)
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::Buffer {
        self.buffer
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies bytes in, at `offset`. [`Error::StagingRange`] if they do not fit. Does not wait for the device, which
    /// must not be reading them.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let out_of_range = self.out_of_range(offset, bytes.len());
        let end = offset.checked_add(bytes.len());
        let inside = end.and_then(|end| self.bytes_mut().get_mut(offset..end));
        inside.ok_or(out_of_range)?.copy_from_slice(bytes);
        self.flush()
    }

    /// Copies bytes out, from `offset`. Of a download, what the device has written by now: nothing is waited for.
    /// [`Error::StagingRange`] beyond its end.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let end = offset.checked_add(into.len());
        let inside = end.and_then(|end| Some(offset..end).filter(|_| end <= self.size));
        let inside = inside.ok_or_else(|| self.out_of_range(offset, into.len()))?;
        into.copy_from_slice(&self.bytes()?[inside]);
        Ok(())
    }

    /// All of it, as the device has written it by now.
    pub(crate) fn bytes(&self) -> Result<&[u8], Error> {
        let Some(memory) = &self.memory else {
            return Ok(&[]);
        };
        memory.invalidate()?;
        // SAFETY: so many bytes are mapped, for as long as the memory lives. Only the device writes to
        // them meanwhile, which the type's contract forbids.
        Ok(unsafe { std::slice::from_raw_parts(memory.address().as_ptr(), self.size) })
    }

    /// All of it, to write to. [`Self::flush`] it afterwards.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        // SAFETY: as in `bytes`, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(memory.address().as_ptr(), self.size) }
    }

    /// Makes what the CPU has written visible to the device.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.memory.as_ref().map_or(Ok(()), Memory::flush)
    }

    fn out_of_range(&self, offset: usize, length: usize) -> Error {
        Error::StagingRange {
            offset,
            length,
            size: self.size,
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let handle = self.buffer;
        self.device.destroy(move |raw| {
            // SAFETY: nothing uses the buffer any more, as the type's contract says.
            unsafe { raw.destroy_buffer(handle, None) }
        });
    }
}

/// The memory of a staging buffer.
#[derive(Debug)]
enum Memory {
    /// Coherent memory of gpu-allocator, which makes no other kind.
    Coherent(Allocated),
    /// Not coherent.
    Mapped(Mapped),
}

/// An allocation of gpu-allocator's, given back on drop.
#[derive(Debug)]
struct Allocated {
    device: Device,
    allocation: Option<Allocation>,
    address: NonNull<u8>,
}

// SAFETY: the address is that of memory which belongs to this alone; it is written only with a
// `&mut` of its owner.
unsafe impl Send for Allocated {}
// SAFETY: as above.
unsafe impl Sync for Allocated {}

impl Memory {
    /// Allocates memory of the best type that has room.
    fn new(
        device: &Device,
        buffer: vk::Buffer,
        needs: vk::MemoryRequirements,
        direction: Direction,
    ) -> Result<Self, Error> {
        fits(device, needs.size)?;
        let types = memory_types(device);
        let mut last = Error::NoMemoryType {
            dma_buf: u32::MAX,
            needed: needs.memory_type_bits,
        };
        for index in candidates(&types, needs.memory_type_bits, direction) {
            let coherent = vk::MemoryPropertyFlags::HOST_COHERENT;
            let made = match types[index as usize].contains(coherent) {
                true => Allocated::new(device, buffer, needs, index).map(Self::Coherent),
                false => Mapped::new(device, needs.size, index).map(Self::Mapped),
            };
            match made {
                Err(error) if !error.is_device_lost() => last = error,
                ended => return ended,
            }
        }
        Err(last)
    }

    /// Where to bind the buffer.
    fn place(&self) -> (vk::DeviceMemory, u64) {
        match self {
            Self::Coherent(memory) => memory.place(),
            Self::Mapped(memory) => (memory.raw, 0),
        }
    }

    fn address(&self) -> NonNull<u8> {
        match self {
            Self::Coherent(memory) => memory.address,
            Self::Mapped(memory) => memory.address,
        }
    }

    fn invalidate(&self) -> Result<(), Error> {
        match self {
            Self::Coherent(_) => Ok(()),
            Self::Mapped(memory) => memory.invalidate(),
        }
    }

    fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Coherent(_) => Ok(()),
            Self::Mapped(memory) => memory.flush(),
        }
    }
}

impl Allocated {
    /// Allocates memory of this type for one buffer alone. Memory that buffers share is freed with the last
    /// of them, or never (gpu-allocator 0.28 keeps the last block of each type).
    fn new(
        device: &Device,
        buffer: vk::Buffer,
        needs: vk::MemoryRequirements,
        index: u32,
    ) -> Result<Self, Error> {
        let requirements = vk::MemoryRequirements {
            memory_type_bits: 1 << index,
            ..needs
        };
        let allocation = device.with_staging(|allocator| {
            allocator.allocate(&AllocationCreateDesc {
                name: "staging",
                requirements,
                // Host-visible and coherent, as the one type is that it may choose.
                location: MemoryLocation::CpuToGpu,
                linear: true,
                allocation_scheme: AllocationScheme::DedicatedBuffer(buffer),
            })
        })?;
        let address = allocation.mapped_ptr().map(NonNull::cast);
        let allocated = Self {
            device: device.clone(),
            allocation: Some(allocation),
            address: address.unwrap_or(NonNull::dangling()),
        };
        match address {
            Some(_) => Ok(allocated),
            None => Err(device.failed(Call::MapMemory)(
                vk::Result::ERROR_MEMORY_MAP_FAILED,
            )),
        }
    }

    fn place(&self) -> (vk::DeviceMemory, u64) {
        // SAFETY: the memory is not freed before this is dropped.
        let place = |all: &Allocation| (unsafe { all.memory() }, all.offset());
        self.allocation.as_ref().map(place).unwrap_or_default()
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let Some(allocation) = self.allocation.take() else {
            return;
        };
        let device = self.device.clone();
        self.device.destroy(move |_| {
            if let Err(error) = device.with_staging(|allocator| allocator.free(allocation)) {
                log::error!("{error}");
            }
        });
    }
}

/// Memory that is not coherent: what the CPU or the device writes has to be made visible to the other. It is
/// mapped for as long as it lives.
#[derive(Debug)]
struct Mapped {
    device: Device,
    raw: vk::DeviceMemory,
    address: NonNull<u8>,
}

// SAFETY: the address is that of memory which belongs to this alone; it is written only with a
// `&mut` of its owner. Calls on the handle need no external synchronisation but for map and free.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(device: &Device, size: u64, index: u32) -> Result<Self, Error> {
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(index);
        // SAFETY: `info` lives until the call returns.
        let raw = unsafe { device.raw().allocate_memory(&info, None) }
            .map_err(device.failed(Call::AllocateMemory))?;
        let mut memory = Self {
            device: device.clone(),
            raw,
            address: NonNull::dangling(),
        };
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: the memory is new, host-visible, and mapped once; freeing it unmaps it.
        let address = unsafe { device.raw().map_memory(raw, 0, vk::WHOLE_SIZE, flags) }
            .map_err(device.failed(Call::MapMemory))?;
        memory.address = NonNull::new(address.cast())
            .ok_or_else(|| device.failed(Call::MapMemory)(vk::Result::ERROR_MEMORY_MAP_FAILED))?;
        Ok(memory)
    }

    fn range(&self) -> [vk::MappedMemoryRange<'static>; 1] {
        let range = vk::MappedMemoryRange::default().memory(self.raw);
        [range.size(vk::WHOLE_SIZE)]
    }

    fn invalidate(&self) -> Result<(), Error> {
        // SAFETY: the memory is mapped, all of it.
        unsafe {
            self.device
                .raw()
                .invalidate_mapped_memory_ranges(&self.range())
        }
        .map_err(self.device.failed(Call::InvalidateMappedMemoryRanges))
    }

    fn flush(&self) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { self.device.raw().flush_mapped_memory_ranges(&self.range()) }
            .map_err(self.device.failed(Call::FlushMappedMemoryRanges))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: the buffer has been destroyed before, as a field's owner.
            unsafe { raw.free_memory(handle, None) }
        });
    }
}

/// The memory types that the CPU reaches, the best first.
///
/// Reading uncached memory is many times slower than reading cached memory, so downloads go to cached
/// memory, even if it is not coherent and has to be invalidated. Writing is as fast to uncached memory,
/// where it is combined. The device's own memory comes last: often little of it is in the CPU's reach.
fn candidates(types: &[vk::MemoryPropertyFlags], needed: u32, direction: Direction) -> Vec<u32> {
    use vk::MemoryPropertyFlags as F;
    let unusable = F::PROTECTED | F::DEVICE_COHERENT_AMD | F::DEVICE_UNCACHED_AMD;
    let is_usable = |index: u32, flags: F| {
        let is_needed = 1_u32
            .checked_shl(index)
            .is_some_and(|bit| needed & bit != 0);
        is_needed && flags.contains(F::HOST_VISIBLE) && !flags.intersects(unusable)
    };
    let usable = (0..).zip(types.iter().copied());
    let mut usable: Vec<_> = usable.filter(|(i, flags)| is_usable(*i, *flags)).collect();
    usable.sort_by_key(|(_, flags)| {
        let lacks = |flag| !flags.contains(flag);
        let is_own = flags.contains(F::DEVICE_LOCAL);
        match direction {
            Direction::Download => [lacks(F::HOST_CACHED), lacks(F::HOST_COHERENT), is_own],
            Direction::Upload => [lacks(F::HOST_COHERENT), is_own, false],
        }
    });
    usable.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::MemoryPropertyFlags as F;

    const VISIBLE: F = F::HOST_VISIBLE;

    #[test]
    fn downloads_go_to_cached_memory_even_if_it_is_not_coherent() {
        // As Mali has them, whose cached memory is not coherent on some SoCs.
        let types = [
            F::DEVICE_LOCAL | VISIBLE | F::HOST_COHERENT,
            F::DEVICE_LOCAL | VISIBLE | F::HOST_CACHED,
            F::DEVICE_LOCAL,
        ];
        assert_eq!(candidates(&types, !0, Direction::Download), [1, 0]);
        assert_eq!(candidates(&types, !0, Direction::Upload), [0, 1]);
        assert_eq!(candidates(&types, 0b001, Direction::Download), [0]);
    }

    #[test]
    fn coherent_memory_of_the_cpu_comes_first() {
        // As RADV has them: video memory, system memory, both for the CPU, cached.
        let types = [
            F::DEVICE_LOCAL,
            VISIBLE | F::HOST_COHERENT,
            F::DEVICE_LOCAL | VISIBLE | F::HOST_COHERENT,
            VISIBLE | F::HOST_COHERENT | F::HOST_CACHED,
            VISIBLE | F::HOST_COHERENT | F::DEVICE_COHERENT_AMD,
        ];
        assert_eq!(candidates(&types, !0, Direction::Download), [3, 1, 2]);
        assert_eq!(candidates(&types, !0, Direction::Upload), [1, 3, 2]);
    }
}
