use std::fmt;

use ash::vk;

use crate::buffer::{Fourcc, Modifier};

/// Why a Vulkan operation failed or a buffer was refused. Nothing was leaked; no fd of the caller
/// was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Vulkan loader.
    #[error("no Vulkan loader (libvulkan.so.1): {0}")]
    Load(String),
    /// The validation layer was asked for and is not installed.
    #[error("VK_LAYER_KHRONOS_validation is not installed")]
    NoValidationLayer,
    /// vkCreateInstance failed. `VK_ERROR_INCOMPATIBLE_DRIVER`: no driver is installed.
    #[error("vkCreateInstance: {0}")]
    CreateInstance(vk::Result),
    /// vkEnumeratePhysicalDevices or a query of a device's extensions failed.
    #[error("cannot enumerate Vulkan devices: {0}")]
    Enumerate(vk::Result),
    /// No Vulkan device is the one asked for.
    #[error("no Vulkan device {wanted}; there are: {found}")]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// The names of those there are.
        found: String,
    },
    /// The device cannot share dma-bufs.
    #[error("{device} lacks {missing}")]
    MissingExtensions {
        /// The device.
        device: String,
        /// The extensions.
        missing: String,
    },
    /// The device has no queue for transfers.
    #[error("{device} has no queue for graphics or compute")]
    NoQueue {
        /// The device.
        device: String,
    },
    /// A call on a device failed.
    #[error("{device}: {call}: {result}")]
    Call {
        /// The device.
        device: String,
        /// Which call.
        call: Call,
        /// The reason.
        result: vk::Result,
    },
    /// gpu-allocator could not be set up, or has no memory.
    #[error("staging memory: {0}")]
    StagingMemory(String),
    /// The bytes asked for are not all inside the staging buffer.
    #[error("{length} bytes at {offset} are not all in a staging buffer of {size}")]
    StagingRange {
        /// First byte.
        offset: usize,
        /// Bytes asked for.
        length: usize,
        /// Bytes there are.
        size: usize,
    },
    /// A staging buffer of no bytes.
    #[error("a staging buffer of no bytes")]
    StagingEmpty,
    /// No VkFormat has this format's layout.
    #[error("Vulkan has no format for {0}")]
    Format(Fourcc),
    /// An implicit layout means nothing to another device or API.
    #[error("a buffer without an explicit modifier cannot be shared with Vulkan")]
    ImplicitModifier,
    /// The device does not list the modifier for this format.
    #[error("{device} does not know {fourcc} with modifier {modifier}")]
    Modifier {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
    },
    /// The modifier has another number of memory planes.
    #[error("{fourcc} with {modifier} has {expected} planes, the buffer {found}")]
    PlaneCount {
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
        /// Planes of the modifier.
        expected: u32,
        /// Planes of the buffer.
        found: usize,
    },
    /// The device imports such images, but not for this use, or not from dma-bufs.
    #[error("{device} does not import {fourcc} with {modifier} for {usage:?}: {result}")]
    NotImportable {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
        /// The use.
        usage: super::Use,
        /// `VK_ERROR_FORMAT_NOT_SUPPORTED`, or a failure of the query.
        result: vk::Result,
    },
    /// The picture is larger than the device's images.
    #[error("{width}x{height} is larger than the device's {max_width}x{max_height}")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Most pixels across.
        max_width: u32,
        /// Most pixels down.
        max_height: u32,
    },
    /// Formats with half-size planes have pictures of even sizes only.
    #[error("{fourcc} has no pictures of {width}x{height}")]
    OddSize {
        /// The format.
        fourcc: Fourcc,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The planes lie in several dma-bufs, which needs a disjoint image.
    #[error("the buffer's planes lie in {0} dma-bufs; disjoint images are not supported")]
    Disjoint(usize),
    /// The image needs more memory than the dma-buf has.
    #[error("the image needs {needed} bytes, the dma-buf has {available}")]
    TooSmall {
        /// What the driver asks for.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// The dma-buf's memory types and the image's have none in common.
    #[error("no memory type suits both the dma-buf ({dma_buf:#x}) and the image ({image:#x})")]
    NoMemoryType {
        /// Memory type bits of the dma-buf.
        dma_buf: u32,
        /// Memory type bits of the image.
        image: u32,
    },
    /// The fd could not be duplicated for the driver.
    #[error("cannot duplicate the dma-buf fd: {0}")]
    Duplicate(nix::errno::Errno),
    /// The command buffer is still being executed.
    #[error("the commands are still being executed")]
    Busy,
    /// The wait's time ran out.
    #[error("{device}: the GPU did not finish in {milliseconds} ms")]
    Timeout {
        /// The device.
        device: String,
        /// How long was waited.
        milliseconds: u128,
    },
}

/// The Vulkan calls that [`Error::Call`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Vulkan call of its name")]
#[non_exhaustive]
pub enum Call {
    CreateDevice,
    CreateBuffer,
    BindBufferMemory,
    CreateImage,
    GetMemoryFdProperties,
    /// vkAllocateMemory with a dma-buf: the driver does not take it.
    ImportMemory,
    BindImageMemory,
    CreateCommandPool,
    AllocateCommandBuffers,
    CreateFence,
    ResetCommandPool,
    BeginCommandBuffer,
    EndCommandBuffer,
    ResetFences,
    QueueSubmit,
    GetFenceStatus,
    WaitForFences,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ImportMemory => f.write_str("vkAllocateMemory (import of a dma-buf)"),
            call => write!(f, "vk{call:?}"),
        }
    }
}
