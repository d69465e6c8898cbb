//! Buffers of one device that are never shared.

use ash::vk;

use super::memory::Memory;
use super::{Call, Device, Error};

/// A Vulkan buffer that copies and shaders of one device use between themselves. It is in the device's own
/// memory, if the device has some.
///
/// Destroyed on drop; work that uses it must be finished by then.
#[derive(Debug)]
pub(crate) struct LocalBuffer {
    device: Device,
    raw: vk::Buffer,
    size: u64,
    /// Dropped after `drop` below has destroyed the buffer.
    memory: Option<Memory>,
}

impl LocalBuffer {
    /// Makes a buffer of at least one byte (VUID-VkBufferCreateInfo-size-00912).
    pub(crate) fn new(
        device: &Device,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<Self, Error> {
        let size = size.max(1);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(usage)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        // SAFETY: `info` lives until the call returns.
        let raw = unsafe { device.raw().create_buffer(&info, None) }
            .map_err(device.failed(Call::CreateBuffer))?;
        let mut buffer = Self {
            device: device.clone(),
            raw,
            size,
            memory: None,
        };
        // SAFETY: the buffer is alive.
        let needs = unsafe { device.raw().get_buffer_memory_requirements(raw) };
        let memory = Memory::private(device, needs)?;
        // SAFETY: both are new, of this device, and bound once.
        let bound = unsafe { device.raw().bind_buffer_memory(raw, memory.raw(), 0) };
        buffer.memory = Some(memory);
        bound.map_err(device.failed(Call::BindBufferMemory))?;
        Ok(buffer)
    }

    /// The ash handle.
    pub(crate) fn raw(&self) -> vk::Buffer {
        self.raw
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for LocalBuffer {
    fn drop(&mut self) {
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: nothing uses it any more, as the type's contract says. The memory goes
            // afterwards, as a field.
            unsafe { raw.destroy_buffer(handle, None) }
        });
    }
}
