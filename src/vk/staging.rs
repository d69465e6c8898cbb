use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};

use super::{Call, Device, Error};

/// A Vulkan buffer in memory that the CPU writes, for uploads. Not shared with other devices.
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
        // VUID-VkBufferCreateInfo-size-00912.
        if size == 0 {
            return Err(Error::StagingEmpty);
        }
        let info = vk::BufferCreateInfo::default()
            .size(size as u64)
            .usage(vk::BufferUsageFlags::TRANSFER_SRC)
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
                name: "upload",
                requirements,
                location: MemoryLocation::CpuToGpu,
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

    /// Copies bytes in, at `offset`.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let out_of_range = Error::StagingRange {
            offset,
            length: bytes.len(),
            size: self.size,
        };
        let memory = self.memory.as_mut().and_then(Allocation::mapped_slice_mut);
        let end = offset.checked_add(bytes.len());
        match (memory, end) {
            (Some(memory), Some(end)) if end <= self.size => {
                memory[offset..end].copy_from_slice(bytes);
                Ok(())
            }
            _ => Err(out_of_range),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: nothing uses the buffer any more, as the type's contract says.
        unsafe { self.device.raw().destroy_buffer(self.buffer, None) };
        if let Some(memory) = self.memory.take()
            && let Err(error) = self.device.with_staging(|a| a.free(memory))
        {
            log::error!("{error}");
        }
    }
}
