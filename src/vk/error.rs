//! Why a Vulkan operation failed. A new variant needs a line in `kind` and, if the same may work next time, in
//! `is_transient`.

use std::fmt;

use ash::vk;

use super::Feature;
use crate::buffer::{Fourcc, Modifier, modifier_names};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

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
    /// The host program's instance is of Vulkan 1.0.
    #[error("the instance is of Vulkan {major}.{minor}, below 1.1")]
    InstanceVersion {
        /// Its version.
        major: u32,
        /// Its version.
        minor: u32,
    },
    /// The device is of Vulkan 1.0.
    #[error("{device} is below Vulkan 1.1")]
    DeviceVersion {
        /// The device.
        device: String,
    },
    /// The device cannot do this, or was created without it.
    #[error("{device}: no {feature}: lacks {missing}")]
    Missing {
        /// The device.
        device: String,
        /// What was wanted.
        feature: Feature,
        /// The extensions, features or kinds of handles that it lacks.
        missing: String,
    },
    /// The memory is not what the picture is, or that could not be found out: see
    /// [`sync::Error::OnHost`](crate::sync::Error::OnHost). A copy by the CPU fetches it.
    #[error(transparent)]
    NotCurrent(crate::sync::Error),
    /// venus takes no classic resource of virtio-gpu, which has no blob memory. A copy by the CPU does.
    #[error("{device} takes no classic resource of virtio-gpu")]
    ClassicResource {
        /// The device.
        device: String,
    },
    /// The device has no queue for graphics or compute, or the host program keeps it to itself.
    #[error("{device} has no queue to submit to")]
    NoQueue {
        /// The device.
        device: String,
    },
    /// The device's queue runs no compute shaders, by which pictures are scaled, turned and converted.
    #[error("{device}: the queue does not compute")]
    NoCompute {
        /// The device.
        device: String,
    },
    /// A picture is larger than what a compute shader reads, writes or is run for at once.
    #[error("{device}: {needed} is above the limit {limit}, {most}")]
    ComputeLimit {
        /// The device.
        device: String,
        /// The limit's name in `VkPhysicalDeviceLimits`.
        limit: &'static str,
        /// What the picture needs.
        needed: u64,
        /// What the device allows.
        most: u64,
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
    /// The driver refused a dma-buf for lack of fds or memory, though it says that the handle is
    /// invalid (`VK_ERROR_INVALID_EXTERNAL_HANDLE`).
    #[error("{device}: {call}: {errno}")]
    Lack {
        /// The device.
        device: String,
        /// Which call.
        call: Call,
        /// EMFILE, ENFILE or ENOMEM.
        errno: Errno,
    },
    /// Memory of one exporter was refused too often in a row for lack of memory: some drivers refuse so
    /// what they never import. It is asked for again after a while, or after
    /// [`Device::forget_refusals`](super::Device::forget_refusals).
    #[error("refused {times} times in a row, last: {last}")]
    RefusedAgain {
        /// How often.
        times: u32,
        /// The last refusal.
        last: Box<Error>,
    },
    /// The driver says that the call succeeded, and gives no fd: lavapipe up to Mesa 26.1 does if
    /// the process may open no more (`lvp_GetMemoryFdKHR`).
    #[error("{device}: {call} gives no fd")]
    NoFd {
        /// The device.
        device: String,
        /// Which call.
        call: Call,
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
    /// The format is not of the Vulkan version in use.
    #[error("Vulkan has a format for {fourcc} only with {extension}")]
    FormatExtension {
        /// The format.
        fourcc: Fourcc,
        /// The extension.
        extension: String,
    },
    /// The format has no such plane that could be a picture of its own.
    #[error("{fourcc} has {planes} planes of their own, no plane {plane}")]
    NoPlane {
        /// The format.
        fourcc: Fourcc,
        /// What was asked for.
        plane: usize,
        /// How many there are.
        planes: usize,
    },
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
        usage: vk::ImageUsageFlags,
        /// `VK_ERROR_FORMAT_NOT_SUPPORTED`, or a failure of the query.
        result: vk::Result,
    },
    /// No usage was given, of which drivers must not even be asked
    /// (VUID-VkImageCreateInfo-usage-requiredbitmask, VUID-VkBufferCreateInfo-None-09500).
    #[error("no usage was given")]
    NoUsage,
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
    /// Boxes so long that a shader's integers do not hold the positions in them.
    #[error("{from} pixels are not scaled to {to} by a shader")]
    TooManyPixels {
        /// Pixels of the source in a row or column.
        from: u32,
        /// Pixels of the destination.
        to: u32,
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
    /// The planes lie where no image's can, see
    /// [`DmaBuf::check_whole_pixels`](crate::DmaBuf::check_whole_pixels).
    #[error(transparent)]
    Layout(crate::buffer::Error),
    /// Vulkan does not copy between images and bytes that lie so, see
    /// [`copy_region`](super::copy_region).
    #[error("plane {plane}: offset {offset} and stride {stride} are not multiples of {unit} bytes")]
    Misaligned {
        /// Plane index.
        plane: usize,
        /// Bytes before the plane.
        offset: u32,
        /// Bytes from row to row.
        stride: u32,
        /// Bytes that both must be a multiple of.
        unit: u32,
    },
    /// The driver does not take planes that lie so
    /// (`VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT`).
    #[error("{device} does not take the offsets and strides of {fourcc} with {modifier}")]
    PlaneLayout {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
    },
    /// The planes lie in several dma-bufs, which needs a disjoint image.
    #[error(
        "the planes lie in {dma_bufs} dma-bufs; {device} has no disjoint {fourcc} with {modifier}"
    )]
    Disjoint {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
        /// The number of dma-bufs.
        dma_bufs: usize,
    },
    /// The image needs more memory than the dma-buf has.
    #[error("{needed} bytes are needed, the dma-buf has {available}")]
    TooSmall {
        /// What the driver asks for.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// More memory than the device allocates or imports at once.
    #[error("{size} bytes are more than the device's {most} in one allocation")]
    TooManyBytes {
        /// Bytes needed.
        size: u64,
        /// Bytes allowed.
        most: u64,
    },
    /// The memory types of both sides have none in common.
    #[error("no memory type suits both the dma-buf ({dma_buf:#x}) and the use ({needed:#x})")]
    NoMemoryType {
        /// Memory type bits of the dma-buf.
        dma_buf: u32,
        /// Memory type bits of the image or buffer.
        needed: u32,
    },
    /// The dma-buf is read-only, for good, and the driver wants to map it for writing.
    #[error("{device}: the dma-buf was exported read-only (without DRM_RDWR)")]
    ReadOnly {
        /// The device.
        device: String,
    },
    /// Only memory whose rows follow each other means anything as a buffer.
    #[error("a buffer with modifier {0} is not bytes in rows")]
    NotLinear(Modifier),
    /// A `VkBuffer` is of one memory.
    #[error("the planes lie in {0} dma-bufs, a VkBuffer in one")]
    SeveralDmaBufs(usize),
    /// Both ways to import it were refused.
    #[error("as an image: {image}; as a buffer: {buffer}")]
    NeitherImageNorBuffer {
        /// Why it is no image.
        image: Box<Error>,
        /// Why it is no buffer.
        buffer: Box<Error>,
    },
    /// The device does not share buffers of this usage.
    #[error("{device} does not share buffers for {usage:?}")]
    BufferUsage {
        /// The device.
        device: String,
        /// The usage.
        usage: vk::BufferUsageFlags,
    },
    /// None of the modifiers can be exported.
    #[error(
        "{device} exports {fourcc} for {usage:?} with none of the modifiers that were asked for: {}",
        modifier_names(modifiers)
    )]
    NotExportable {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// What was asked for.
        modifiers: Vec<Modifier>,
        /// The usage.
        usage: vk::ImageUsageFlags,
    },
    /// The driver's new buffer cannot be described.
    #[error("a new buffer: {0}")]
    Describe(crate::buffer::Error),
    /// The DRM device that the Vulkan device names could not be looked up.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// The driver put a plane where no description reaches.
    #[error("a new buffer's plane at {offset}, of stride {stride}, is out of reach of 32 bits")]
    PlaneOutOfReach {
        /// First byte.
        offset: u64,
        /// Bytes from row to row.
        stride: u64,
    },
    /// The driver says that planes of its new buffer lie in the same place.
    #[error("{device} puts planes of a new {fourcc} over each other")]
    OverlappingPlanes {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
    },
    /// The image cannot be viewed so.
    #[error("{format:?} has no view as {what}")]
    View {
        /// The image's format.
        format: vk::Format,
        /// What was asked for.
        what: &'static str,
    },
    /// The fd could not be duplicated for the driver.
    #[error("cannot duplicate the dma-buf fd: {0}")]
    Duplicate(Errno),
    /// The fd is no sync file.
    #[error("the fd is not a sync file: {0}")]
    NotASyncFile(Errno),
    /// The sync file is not signalled yet, and the driver would wait for it while it submits work. Wait
    /// for the sync file first.
    #[error("{device} would wait for the sync file while it submits")]
    PendingSyncFile {
        /// The device.
        device: String,
    },
    /// The command buffer is still being executed.
    #[error("the commands are still being executed")]
    Busy,
    /// The device does not blit, which a copy to another order of components needs.
    #[error("{device} does not blit {fourcc} with modifier {modifier}")]
    Blit {
        /// The device.
        device: String,
        /// The format.
        fourcc: Fourcc,
        /// The modifier.
        modifier: Modifier,
    },
    /// Work has not ended in the time after which it never will. What it uses leaks, and the device is
    /// not to be used any more.
    #[error("{device}: the GPU has not finished in {milliseconds} ms, and is given up")]
    Hung {
        /// The device.
        device: String,
        /// How long was waited.
        milliseconds: u128,
    },
    /// The wait's time ran out.
    #[error("{device}: the GPU did not finish in {milliseconds} ms")]
    Timeout {
        /// The device.
        device: String,
        /// How long was waited.
        milliseconds: u128,
    },
}

impl Error {
    /// Whether the Vulkan device is lost: what it was executing has ended, one way or the other.
    pub fn is_device_lost(&self) -> bool {
        matches!(
            self,
            Self::Call { result, .. } | Self::NotImportable { result, .. }
                if *result == vk::Result::ERROR_DEVICE_LOST
        )
    }

    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        use vk::Result as R;
        match self {
            _ if self.is_device_lost() => ErrorKind::Lost,
            Self::Hung { .. } => ErrorKind::Lost,
            Self::Timeout { .. } => ErrorKind::TimedOut,
            Self::Busy | Self::PendingSyncFile { .. } => ErrorKind::Busy,
            _ if self.is_transient() => ErrorKind::Transient,
            Self::RefusedAgain { .. } => ErrorKind::Refused,
            Self::NeitherImageNorBuffer { image, .. } => image.kind(),
            Self::NotCurrent(error) => error.kind(),
            Self::Device(error) => error.kind(),
            Self::Describe(error) | Self::Layout(error) => error.kind(),
            Self::Load(_)
            | Self::NoValidationLayer
            | Self::NoSuchDevice { .. }
            | Self::InstanceVersion { .. }
            | Self::DeviceVersion { .. }
            | Self::Missing { .. }
            | Self::NoQueue { .. }
            | Self::NoCompute { .. }
            | Self::Format(_)
            | Self::FormatExtension { .. } => ErrorKind::Unsupported,
            Self::StagingRange { .. }
            | Self::StagingEmpty
            | Self::NoPlane { .. }
            | Self::ImplicitModifier
            | Self::PlaneCount { .. }
            | Self::NoUsage
            | Self::OddSize { .. }
            | Self::Misaligned { .. }
            | Self::NotLinear(_)
            | Self::NotASyncFile(_) => ErrorKind::Invalid,
            Self::CreateInstance(result) | Self::Enumerate(result) => match *result {
                R::ERROR_OUT_OF_HOST_MEMORY | R::ERROR_OUT_OF_DEVICE_MEMORY => ErrorKind::Transient,
                R::ERROR_INCOMPATIBLE_DRIVER => ErrorKind::Unsupported,
                _ => ErrorKind::Other,
            },
            Self::Call { result, .. } => match *result {
                R::ERROR_INVALID_EXTERNAL_HANDLE
                | R::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT
                | R::ERROR_FORMAT_NOT_SUPPORTED
                | R::ERROR_NOT_PERMITTED_KHR => ErrorKind::Refused,
                R::ERROR_EXTENSION_NOT_PRESENT | R::ERROR_FEATURE_NOT_PRESENT => {
                    ErrorKind::Unsupported
                }
                _ => ErrorKind::Other,
            },
            Self::ClassicResource { .. }
            | Self::Modifier { .. }
            | Self::NotImportable { .. }
            | Self::TooLarge { .. }
            | Self::PlaneLayout { .. }
            | Self::Disjoint { .. }
            | Self::TooSmall { .. }
            | Self::TooManyBytes { .. }
            | Self::ComputeLimit { .. }
            | Self::TooManyPixels { .. }
            | Self::NoMemoryType { .. }
            | Self::ReadOnly { .. }
            | Self::SeveralDmaBufs(_)
            | Self::BufferUsage { .. }
            | Self::NotExportable { .. }
            | Self::PlaneOutOfReach { .. }
            | Self::OverlappingPlanes { .. }
            | Self::View { .. }
            | Self::Blit { .. } => ErrorKind::Refused,
            Self::Lack { .. } | Self::NoFd { .. } | Self::StagingMemory(_) | Self::Duplicate(_) => {
                ErrorKind::Transient
            }
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Lack { errno, .. } => Some(*errno),
            Self::Duplicate(errno) | Self::NotASyncFile(errno) => Some(*errno),
            Self::NotCurrent(error) => error.errno(),
            Self::Device(error) => error.errno(),
            Self::Describe(error) | Self::Layout(error) => error.errno(),
            _ => None,
        }
    }

    /// Whether it says that there is no memory, which may not be the reason: see
    /// [`Error::RefusedAgain`].
    pub(super) fn is_lack_of_memory(&self) -> bool {
        use vk::Result as R;
        match self {
            Self::Call { result, .. } => {
                matches!(
                    *result,
                    R::ERROR_OUT_OF_HOST_MEMORY | R::ERROR_OUT_OF_DEVICE_MEMORY
                )
            }
            Self::Lack { errno, .. } => *errno == Errno::ENOMEM,
            _ => false,
        }
    }

    /// The error of a call that was given a dma-buf. `errno` is what the thread's last failed system
    /// call in the driver said: the reason of the refusal if it is one of a lack.
    pub(super) fn of_import(
        device: &str,
        call: Call,
        result: vk::Result,
        errno: Option<Errno>,
    ) -> Self {
        let device = device.to_owned();
        match errno {
            Some(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
                if result == vk::Result::ERROR_INVALID_EXTERNAL_HANDLE =>
            {
                Self::Lack {
                    device,
                    call,
                    errno,
                }
            }
            _ => Self::Call {
                device,
                call,
                result,
            },
        }
    }

    /// Whether the same may work next time: a lack of memory or of fds, or work under way. A lost
    /// device stays lost.
    pub(crate) fn is_transient(&self) -> bool {
        use vk::Result as R;
        match self {
            Self::Call { result, .. } | Self::NotImportable { result, .. } => matches!(
                *result,
                R::ERROR_OUT_OF_HOST_MEMORY
                    | R::ERROR_OUT_OF_DEVICE_MEMORY
                    | R::ERROR_TOO_MANY_OBJECTS
                    | R::ERROR_MEMORY_MAP_FAILED
            ),
            // Looking needs fds.
            Self::NotCurrent(crate::sync::Error::Examine { errno }) => {
                crate::sys::is_transient(*errno)
            }
            Self::NoFd { .. }
            | Self::Lack { .. }
            | Self::Duplicate(_)
            | Self::PendingSyncFile { .. }
            | Self::Busy
            | Self::StagingMemory(_)
            | Self::Timeout { .. } => true,
            _ => false,
        }
    }
}

// Its words are in the message: it is no source, so that nothing is printed twice.
impl From<crate::buffer::Error> for Error {
    fn from(error: crate::buffer::Error) -> Self {
        Self::Describe(error)
    }
}

into_io_error!(Error);

/// The Vulkan calls that [`Error::Call`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the Vulkan call of its name")]
#[non_exhaustive]
pub enum Call {
    CreateDevice,
    CreateBuffer,
    CreateImageView,
    CreateSamplerYcbcrConversion,
    CreateSampler,
    CreateSemaphore,
    CreateDescriptorSetLayout,
    CreatePipelineLayout,
    CreateShaderModule,
    CreateComputePipelines,
    CreateDescriptorPool,
    AllocateDescriptorSets,
    AllocateMemory,
    MapMemory,
    InvalidateMappedMemoryRanges,
    FlushMappedMemoryRanges,
    GetMemoryFd,
    GetImageDrmFormatModifierProperties,
    ImportSemaphoreFd,
    GetSemaphoreFd,
    WaitSemaphores,
    SignalSemaphore,
    GetSemaphoreCounterValue,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_that_cannot_be_exported_are_printed_by_their_names() {
        let error = Error::NotExportable {
            device: "a GPU".to_owned(),
            fourcc: Fourcc::XRGB8888,
            modifiers: vec![Modifier::LINEAR],
            usage: vk::ImageUsageFlags::SAMPLED,
        };
        let text = error.to_string();
        assert!(text.contains("for SAMPLED with"), "{text}");
        assert!(text.ends_with("asked for: LINEAR"), "{text}");
    }
}
