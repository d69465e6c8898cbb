//! The kind of memory that the library shares through Vulkan.

use ash::vk;

/// dma-bufs: `VK_EXT_external_memory_dma_buf`.
pub(super) const DMA_BUF: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;
