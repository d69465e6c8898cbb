use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use arrayvec::ArrayVec;
use ash::vk;

use super::{Call, Device, Error, format_of};
use crate::buffer::{BufferId, DmaBuf, FormatInfo, MAX_PLANES, Modifier, Object};
use crate::sys;

const DMA_BUF: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;

/// What an image is imported for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Copies are made from it.
    Source,
    /// Copies are made into it.
    Destination,
}

impl Use {
    fn usage(self) -> vk::ImageUsageFlags {
        match self {
            Self::Source => vk::ImageUsageFlags::TRANSFER_SRC,
            Self::Destination => vk::ImageUsageFlags::TRANSFER_DST,
        }
    }

    fn feature(self) -> vk::FormatFeatureFlags {
        match self {
            Self::Source => vk::FormatFeatureFlags::TRANSFER_SRC,
            Self::Destination => vk::FormatFeatureFlags::TRANSFER_DST,
        }
    }

    /// The layout while it is used so.
    pub fn layout(self) -> vk::ImageLayout {
        match self {
            Self::Source => vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            Self::Destination => vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        }
    }

    pub(super) fn access(self) -> vk::AccessFlags {
        match self {
            Self::Source => vk::AccessFlags::TRANSFER_READ,
            Self::Destination => vk::AccessFlags::TRANSFER_WRITE,
        }
    }
}

/// A shared buffer as a Vulkan image on one device.
///
/// Between uses it belongs to the outside world (`VK_QUEUE_FAMILY_FOREIGN_EXT`), in layout
/// GENERAL: [`acquire`](super::acquire) it before and [`release`](super::release) it after. Destroyed on drop; work
/// that uses it must be finished by then. Keeps the memory, not the [`DmaBuf`]'s fds.
///
/// Vulkan neither waits for fences that other devices left in the dma-buf nor leaves its own
/// there: wait for a writer before submitting, and for the submission before others use the
/// buffer.
#[derive(Debug)]
pub struct Image {
    pub(super) device: Device,
    image: vk::Image,
    /// Null until the import succeeded; destroying a null handle does nothing.
    memory: vk::DeviceMemory,
    extent: vk::Extent3D,
    used_as: Use,
}

impl Device {
    /// Imports a buffer as an image with the buffer's own layout.
    ///
    /// The buffer must have an explicit modifier and lie in one dma-buf. Its fds stay its own: the
    /// driver gets a dup. That a driver takes an image does not prove that it can use it; only
    /// finished work does.
    pub fn import_image(&self, buffer: &DmaBuf, used_as: Use) -> Result<Image, Error> {
        let format = importable(self, buffer, used_as)?;
        let [object] = buffer.objects() else {
            return Err(Error::Disjoint(buffer.objects().len()));
        };
        let mut image = create_image(self, buffer, format, used_as)?;
        image.memory = import_memory(self, &image, object)?;
        // SAFETY: both are new, of this device, and bound once.
        unsafe {
            self.raw()
                .bind_image_memory(image.image, image.memory, 0)
                .map_err(self.failed(Call::BindImageMemory))?;
        }
        Ok(image)
    }
}

/// Asks the device both questions: whether it lists the modifier for the format, and whether it
/// imports such an image of this size from a dma-buf. Either alone has been seen to lie.
fn importable(device: &Device, buffer: &DmaBuf, used_as: Use) -> Result<vk::Format, Error> {
    let (fourcc, modifier) = (buffer.fourcc(), buffer.modifier());
    if !modifier.is_explicit() {
        return Err(Error::ImplicitModifier);
    }
    let format = format_of(fourcc)
        // Devices are asked about what Vulkan 1.1 has, without further extensions.
        .filter(|known| known.extension.is_none())
        .ok_or(Error::Format(fourcc))?
        .format;
    even(buffer)?;
    let unknown = || Error::Modifier {
        device: device.physical().name().to_owned(),
        fourcc,
        modifier,
    };
    let listed = modifiers(device, format)
        .into_iter()
        .find(|listed| listed.drm_format_modifier == modifier.0)
        .ok_or_else(unknown)?;
    if listed.drm_format_modifier_plane_count as usize != buffer.planes().len() {
        return Err(Error::PlaneCount {
            fourcc,
            modifier,
            expected: listed.drm_format_modifier_plane_count,
            found: buffer.planes().len(),
        });
    }
    let refused = |result| Error::NotImportable {
        device: device.physical().name().to_owned(),
        fourcc,
        modifier,
        usage: used_as,
        result,
    };
    let features = listed.drm_format_modifier_tiling_features;
    if !features.contains(used_as.feature()) {
        return Err(refused(vk::Result::ERROR_FORMAT_NOT_SUPPORTED));
    }
    let max = external_limits(device, format, modifier, used_as).map_err(refused)?;
    if buffer.width() > max.width || buffer.height() > max.height {
        return Err(Error::TooLarge {
            width: buffer.width(),
            height: buffer.height(),
            max_width: max.width,
            max_height: max.height,
        });
    }
    Ok(format)
}

/// VUID-VkImageCreateInfo-format-04712 and -04713: subsampled formats have even sizes.
fn even(buffer: &DmaBuf) -> Result<(), Error> {
    let (fourcc, width, height) = (buffer.fourcc(), buffer.width(), buffer.height());
    let (across, down) = FormatInfo::of(fourcc).map_or((1, 1), |info| info.chroma);
    match width.is_multiple_of(across) && height.is_multiple_of(down) {
        true => Ok(()),
        false => Err(Error::OddSize {
            fourcc,
            width,
            height,
        }),
    }
}

fn modifiers(device: &Device, format: vk::Format) -> Vec<vk::DrmFormatModifierPropertiesEXT> {
    let instance = device.physical().instance().raw();
    let query = |list: &mut vk::DrmFormatModifierPropertiesListEXT<'_>| {
        let mut properties = vk::FormatProperties2::default().push_next(list);
        // SAFETY: the device has VK_EXT_image_drm_format_modifier.
        unsafe {
            instance.get_physical_device_format_properties2(
                device.physical().raw(),
                format,
                &mut properties,
            );
        }
    };
    let mut count = vk::DrmFormatModifierPropertiesListEXT::default();
    query(&mut count);
    let mut listed = vec![
        vk::DrmFormatModifierPropertiesEXT::default();
        count.drm_format_modifier_count as usize
    ];
    let mut list = vk::DrmFormatModifierPropertiesListEXT::default()
        .drm_format_modifier_properties(&mut listed);
    query(&mut list);
    let filled = list.drm_format_modifier_count as usize;
    listed.truncate(filled);
    listed
}

/// The largest image of this kind that can be imported.
fn external_limits(
    device: &Device,
    format: vk::Format,
    modifier: Modifier,
    used_as: Use,
) -> Result<vk::Extent3D, vk::Result> {
    let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(DMA_BUF);
    let mut drm = vk::PhysicalDeviceImageDrmFormatModifierInfoEXT::default()
        .drm_format_modifier(modifier.0)
        .sharing_mode(vk::SharingMode::EXCLUSIVE);
    let info = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(format)
        .ty(vk::ImageType::TYPE_2D)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(used_as.usage())
        .push_next(&mut external)
        .push_next(&mut drm);
    let mut external = vk::ExternalImageFormatProperties::default();
    let mut properties = vk::ImageFormatProperties2::default().push_next(&mut external);
    // SAFETY: the device has the extensions whose structures are chained.
    unsafe {
        device
            .physical()
            .instance()
            .raw()
            .get_physical_device_image_format_properties2(
                device.physical().raw(),
                &info,
                &mut properties,
            )?;
    }
    let max = properties.image_format_properties.max_extent;
    let features = external.external_memory_properties.external_memory_features;
    match features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE) {
        true => Ok(max),
        false => Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED),
    }
}

fn create_image(
    device: &Device,
    buffer: &DmaBuf,
    format: vk::Format,
    used_as: Use,
) -> Result<Image, Error> {
    // `size`, `array_pitch` and `depth_pitch` are zero:
    // VUID-VkImageDrmFormatModifierExplicitCreateInfoEXT-size-02267, -arrayPitch-02268,
    // -depthPitch-02269.
    let planes: ArrayVec<vk::SubresourceLayout, MAX_PLANES> = buffer
        .planes()
        .iter()
        .map(|plane| {
            vk::SubresourceLayout::default()
                .offset(plane.offset.into())
                .row_pitch(plane.stride.into())
        })
        .collect();
    let mut explicit = vk::ImageDrmFormatModifierExplicitCreateInfoEXT::default()
        .drm_format_modifier(buffer.modifier().0)
        .plane_layouts(&planes);
    let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(DMA_BUF);
    let extent = vk::Extent3D {
        width: buffer.width(),
        height: buffer.height(),
        depth: 1,
    };
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(format)
        .extent(extent)
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(used_as.usage())
        .sharing_mode(vk::SharingMode::EXCLUSIVE)
        .initial_layout(vk::ImageLayout::UNDEFINED)
        .push_next(&mut external)
        .push_next(&mut explicit);
    // SAFETY: `info` lives until the call returns; the device has the extensions it chains.
    let image = unsafe { device.raw().create_image(&info, None) }
        .map_err(device.failed(Call::CreateImage))?;
    Ok(Image {
        device: device.clone(),
        image,
        memory: vk::DeviceMemory::null(),
        extent,
        used_as,
    })
}

fn import_memory(
    device: &Device,
    image: &Image,
    object: &Object,
) -> Result<vk::DeviceMemory, Error> {
    // SAFETY: the image is alive.
    let needs = unsafe { device.raw().get_image_memory_requirements(image.image) };
    if needs.size > object.size() {
        return Err(Error::TooSmall {
            needed: needs.size,
            available: object.size(),
        });
    }
    let mut fd_properties = vk::MemoryFdPropertiesKHR::default();
    // SAFETY: the fd is open and stays the caller's.
    unsafe {
        device
            .memory_fd()
            .get_memory_fd_properties(DMA_BUF, object.as_fd().as_raw_fd(), &mut fd_properties)
            .map_err(device.failed(Call::GetMemoryFdProperties))?;
    }
    let types = fd_properties.memory_type_bits & needs.memory_type_bits;
    if types == 0 {
        return Err(Error::NoMemoryType {
            dma_buf: fd_properties.memory_type_bits,
            image: needs.memory_type_bits,
        });
    }
    let fd = object
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::Duplicate(sys::errno(error)))?;
    let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().image(image.image);
    let mut import = vk::ImportMemoryFdInfoKHR::default()
        .handle_type(DMA_BUF)
        .fd(fd.as_raw_fd());
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(needs.size)
        .memory_type_index(types.trailing_zeros())
        .push_next(&mut dedicated)
        .push_next(&mut import);
    // SAFETY: `info` lives until the call returns, and the fd is ours to give.
    match unsafe { device.raw().allocate_memory(&info, None) } {
        Ok(memory) => {
            // The driver's from now on.
            let _ = fd.into_raw_fd();
            Ok(memory)
        }
        Err(result) => {
            close_if_still_ours(fd, object.id());
            Err(device.failed(Call::ImportMemory)(result))
        }
    }
}

/// The fd is ours after a failed import (VkImportMemoryFdInfoKHR), but Mesa 25.0's lavapipe has
/// closed it, and its number may be another thread's by now. So it is closed only while it is the
/// dma-buf that it was.
fn close_if_still_ours(fd: OwnedFd, id: BufferId) {
    match BufferId::of(&fd) {
        Ok(now) if now == id => drop(fd),
        _ => {
            let _ = fd.into_raw_fd();
        }
    }
}

impl Image {
    /// The ash handle.
    pub fn raw(&self) -> vk::Image {
        self.image
    }

    /// Size in pixels; depth is 1.
    pub fn extent(&self) -> vk::Extent3D {
        self.extent
    }

    /// What it was imported for.
    pub fn used_as(&self) -> Use {
        self.used_as
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: both are of this device and used by nothing any more, as the type's contract
        // says. The image goes first: it is bound to the memory.
        unsafe {
            self.device.raw().destroy_image(self.image, None);
            self.device.raw().free_memory(self.memory, None);
        }
    }
}
