//! Dma-bufs as `VkBuffer`: the way that often works if an image does not.

use ash::vk;

use super::external::DMA_BUF;
use super::memory::{self, Dedicated, Memory};
use super::{Call, Device, Error, Feature, Image, ImageUsage, query};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, Modifier, Plane, PlaneObject, layout};

/// A shared buffer of LINEAR memory as a `VkBuffer` on one device: its one dma-buf, from the first
/// byte to the picture's last.
///
/// That works for copies where an image does not, as between GPUs that disagree on alignment.
/// Between uses it belongs to the outside world, as an [`Image`] does. Destroyed on drop; work
/// that uses it must be finished by then.
#[derive(Debug)]
pub struct Buffer {
    pub(super) device: Device,
    raw: vk::Buffer,
    size: u64,
    /// Dropped after `drop` below has destroyed the buffer.
    _memory: Option<Memory>,
}

/// A buffer as an image or, where that was refused, as bytes.
#[derive(Debug)]
pub enum ImageOrBuffer {
    /// It is an image.
    Image(Image),
    /// It is bytes.
    Buffer {
        /// The buffer.
        buffer: Buffer,
        /// Why it is no image.
        refused: Error,
    },
}

impl Device {
    /// Imports the dma-buf of a LINEAR buffer as a `VkBuffer` from its first byte to the last one of
    /// the picture.
    ///
    /// What follows the picture in the dma-buf is of no use, and may be more than the driver imports.
    /// All of it is imported if the format's rows are not known. The planes must lie in one dma-buf.
    /// Its fd stays its own: the driver gets a dup.
    pub fn import_buffer(
        &self,
        buffer: &DmaBuf,
        usage: vk::BufferUsageFlags,
    ) -> Result<Buffer, Error> {
        self.require(Feature::DmaBuf)?;
        self.require(Feature::Foreign)?;
        memory::check(self, buffer)?;
        let object = bytes_of(buffer)?;
        if usage.is_empty() {
            return Err(Error::NoUsage);
        }
        let features = query::buffers(self, usage);
        if !features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE) {
            return Err(self.buffer_usage(usage));
        }
        let end = layout::end_of_picture(buffer.desc(), buffer.planes());
        let mut new = Buffer::create(self, end.unwrap_or(object.size()), usage)?;
        let needs = new.needs();
        let memory = Memory::import(self, object, needs, Dedicated::Buffer(new.raw))?;
        new.bind(memory)?;
        Ok(new)
    }

    /// Imports a buffer as an image or, where that is refused, as a `VkBuffer`.
    /// [`Error::NeitherImageNorBuffer`] has both reasons.
    pub fn import_image_or_buffer(
        &self,
        buffer: &DmaBuf,
        image: impl Into<ImageUsage>,
        bytes: vk::BufferUsageFlags,
    ) -> Result<ImageOrBuffer, Error> {
        let refused = match self.import_image(buffer, image) {
            Ok(image) => return Ok(ImageOrBuffer::Image(image)),
            Err(refused) => refused,
        };
        match self.import_buffer(buffer, bytes) {
            Ok(buffer) => Ok(ImageOrBuffer::Buffer { buffer, refused }),
            Err(buffer) => Err(Error::NeitherImageNorBuffer {
                image: Box::new(refused),
                buffer: Box::new(buffer),
            }),
        }
    }

    pub(super) fn buffer_usage(&self, usage: vk::BufferUsageFlags) -> Error {
        Error::BufferUsage {
            device: self.physical().name().to_owned(),
            usage,
        }
    }
}

/// The one dma-buf of a buffer that is bytes in rows.
fn bytes_of(buffer: &DmaBuf) -> Result<&PlaneObject, Error> {
    if buffer.modifier() != Modifier::LINEAR {
        return Err(match buffer.modifier().is_explicit() {
            true => Error::NotLinear(buffer.modifier()),
            false => Error::ImplicitModifier,
        });
    }
    match buffer.objects() {
        [object] => Ok(object),
        objects => Err(Error::SeveralDmaBufs(objects.len())),
    }
}

/// The place of a plane in a `VkBuffer`, for copies between it and an image of the whole picture
/// (or, with its aspect changed to COLOR, of the plane).
///
/// [`Error::Misaligned`] where Vulkan cannot copy from there: the stride is counted in pixels, and
/// the offset is a multiple of them (VUID-vkCmdCopyBufferToImage-dstImage-07975) and of 4 bytes
/// (VUID-vkCmdCopyBufferToImage-commandBuffer-07737).
pub fn copy_region(buffer: &DmaBuf, plane: usize) -> Result<vk::BufferImageCopy, Error> {
    region(buffer.desc(), buffer.planes(), plane)
}

/// As [`copy_region`], of a picture anywhere.
pub(crate) fn region(
    layout: &BufferDesc,
    planes: &[Plane],
    plane: usize,
) -> Result<vk::BufferImageCopy, Error> {
    let fourcc = layout.fourcc;
    let format = FormatInfo::of(fourcc).ok_or(Error::Format(fourcc))?;
    let (Some(info), Some(place)) = (format.planes.get(plane), planes.get(plane)) else {
        return Err(Error::NoPlane {
            fourcc,
            plane,
            planes: format.planes.len(),
        });
    };
    let &Plane { offset, stride, .. } = place;
    let unit = info.block_bytes;
    if !stride.is_multiple_of(unit) || !offset.is_multiple_of(unit) || !offset.is_multiple_of(4) {
        return Err(Error::Misaligned {
            plane,
            offset,
            stride,
            unit: unit.max(4),
        });
    }
    let aspect = match (format.planes.len(), plane) {
        (1, _) => vk::ImageAspectFlags::COLOR,
        (_, 0) => vk::ImageAspectFlags::PLANE_0,
        (_, 1) => vk::ImageAspectFlags::PLANE_1,
        _ => vk::ImageAspectFlags::PLANE_2,
    };
    Ok(vk::BufferImageCopy::default()
        .buffer_offset(offset.into())
        .buffer_row_length((stride / unit).saturating_mul(info.block_width))
        .image_subresource(
            vk::ImageSubresourceLayers::default()
                .aspect_mask(aspect)
                .layer_count(1),
        )
        .image_extent(vk::Extent3D {
            width: layout.width.div_ceil(info.horizontal),
            height: info.rows(layout.height),
            depth: 1,
        }))
}

impl Buffer {
    /// A buffer without memory.
    pub(super) fn create(
        device: &Device,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<Self, Error> {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(DMA_BUF);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(usage)
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        // SAFETY: `info` lives until the call returns.
        let raw = unsafe { device.raw().create_buffer(&info, None) }
            .map_err(device.failed(Call::CreateBuffer))?;
        Ok(Self {
            device: device.clone(),
            raw,
            size,
            _memory: None,
        })
    }

    pub(super) fn needs(&self) -> vk::MemoryRequirements {
        // SAFETY: the buffer is alive.
        unsafe { self.device.raw().get_buffer_memory_requirements(self.raw) }
    }

    pub(super) fn bind(&mut self, memory: Memory) -> Result<(), Error> {
        // SAFETY: both are new, of this device, and bound once.
        unsafe {
            self.device
                .raw()
                .bind_buffer_memory(self.raw, memory.raw(), 0)
        }
        .map_err(self.device.failed(Call::BindBufferMemory))?;
        self._memory = Some(memory);
        Ok(())
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::Buffer {
        self.raw
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: it is of this device and used by nothing any more, as the type's contract says.
            // The memory goes afterwards, as a field.
            unsafe { raw.destroy_buffer(handle, None) }
        });
    }
}
