use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};

use super::{Call, Device, Error};

/// A Vulkan buffer in memory that the CPU writes, for uploads, or reads, for downloads. Not shared
/// with other devices.
///
/// Freed on drop; work that uses it must be finished by then.
#[derive(Debug)]
pub struct Staging {
    device: Device,
    buffer: vk::Buffer,
    memory: Option<Allocation>,
    size: usize,
}

impl Staging {
    /// A buffer of `size` bytes to copy from.
    pub fn upload(device: &Device, size: usize) -> Result<Self, Error> {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC;
        Self::new(device, size, usage, MemoryLocation::CpuToGpu)
    }

    /// A buffer of `size` bytes to copy to. A barrier has to make what was copied visible to
    /// HOST_READ.
    pub fn download(device: &Device, size: usize) -> Result<Self, Error> {
        let usage = vk::BufferUsageFlags::TRANSFER_DST;
        Self::new(device, size, usage, MemoryLocation::GpuToCpu)
    }

    fn new(
        device: &Device,
        size: usize,
        usage: vk::BufferUsageFlags,
        location: MemoryLocation,
    ) -> Result<Self, Error> {
        // VUID-VkBufferCreateInfo-size-00912.
        if size == 0 {
            return Err(Error::StagingEmpty);
        }
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
            memory: None,
            size,
        };
        // SAFETY: the buffer is alive.
        let requirements = unsafe { device.raw().get_buffer_memory_requirements(buffer) };
        let memory = device.with_staging(|allocator| {
            allocator.allocate(&AllocationCreateDesc {
                name: "staging",
                requirements,
                location,
                linear: true,
                allocation_scheme: AllocationScheme::GpuAllocatorManaged,
            })
        })?;
        // SAFETY: the allocation was made for this buffer, and is freed after it.
        let bound = unsafe {
            device
                .raw()
                .bind_buffer_memory(buffer, memory.memory(), memory.offset())
        };
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

    /// Copies bytes in, at `offset`.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let out_of_range = self.out_of_range(offset, bytes.len());
        let end = offset.checked_add(bytes.len());
        let inside = end.and_then(|end| self.bytes_mut().get_mut(offset..end));
        inside.ok_or(out_of_range)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Copies bytes out, from `offset`.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let end = offset.checked_add(into.len());
        let inside = end.and_then(|end| self.bytes().get(offset..end));
        let inside = inside.ok_or_else(|| self.out_of_range(offset, into.len()))?;
        into.copy_from_slice(inside);
        Ok(())
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        let mapped = self.memory.as_ref().and_then(Allocation::mapped_slice);
        mapped.and_then(|all| all.get(..self.size)).unwrap_or(&[])
    }

    /// All of it, to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let mapped = self.memory.as_mut().and_then(Allocation::mapped_slice_mut);
        let inside = mapped.and_then(|all| all.get_mut(..self.size));
        inside.unwrap_or(&mut [])
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
        let memory = self.memory.take();
        self.device.destroy(|raw| {
            // SAFETY: nothing uses the buffer any more, as the type's contract says.
            unsafe { raw.destroy_buffer(self.buffer, None) };
            if let Some(memory) = memory
                && let Err(error) = self.device.with_staging(|a| a.free(memory))
            {
                log::error!("{error}");
            }
        });
    }
}
