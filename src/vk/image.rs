use arrayvec::ArrayVec;
use ash::vk;

use super::memory::{Dedicated, Memory};
use super::query::{self, Kind};
use super::view::{chroma, srgb_of};
use super::{Call, Device, Error, Feature, ImageUsage, format_of, quirks};
use crate::buffer::{DmaBuf, FormatInfo, Fourcc, Layout, MAX_PLANES, Modifier};

pub(super) const DMA_BUF: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;

/// The aspects of memory planes, in order. Memory planes are not format planes: a modifier with
/// compression has more of them.
pub(super) const MEMORY_PLANES: [vk::ImageAspectFlags; MAX_PLANES] = [
    vk::ImageAspectFlags::MEMORY_PLANE_0_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_1_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_2_EXT,
    vk::ImageAspectFlags::MEMORY_PLANE_3_EXT,
];

/// A shared buffer as a Vulkan image on one device.
///
/// Between uses it belongs to the outside world (`VK_QUEUE_FAMILY_FOREIGN_EXT`), in layout
/// GENERAL: [`acquire`](super::acquire) it before and [`release`](super::release) it after.
/// Destroyed on drop; work that uses it must be finished by then. Keeps the memory, not the
/// [`DmaBuf`]'s fds.
///
/// Vulkan neither waits for fences that other devices left in the dma-buf nor leaves its own
/// there: wait for a writer before submitting, and for the submission before others use the
/// buffer.
#[derive(Debug)]
pub struct Image {
    pub(super) device: Device,
    raw: vk::Image,
    layout: Layout,
    format: vk::Format,
    usage: ImageUsage,
    disjoint: bool,
    /// Dropped after `drop` below has destroyed the image.
    memories: ArrayVec<Memory, MAX_PLANES>,
}

impl Device {
    /// Imports a buffer as an image with the buffer's own layout: an image of the caller's own.
    /// [`Self::image`] finds one again that is in use already.
    ///
    /// `usage` is a [`Use`](super::Use), flags, or an [`ImageUsage`]. The buffer needs an explicit
    /// modifier. Planes in different dma-bufs make a disjoint image; which they are is decided by
    /// their identity. The fds stay the buffer's own: the driver gets dups. Everything is checked
    /// before the driver sees it, against the dma-bufs' real sizes and by what the driver says it
    /// can do, which is asked once. That a driver takes an image does not prove that it can use
    /// it; only finished work does.
    pub fn import_image(
        &self,
        buffer: &DmaBuf,
        usage: impl Into<ImageUsage>,
    ) -> Result<Image, Error> {
        for feature in Feature::IMAGES {
            self.require(feature)?;
        }
        let kind = importable(self, buffer, usage.into())?;
        let image = create(self, buffer, &kind)?;
        match kind.disjoint {
            false => bind_whole(image, buffer),
            true => bind_planes(image, buffer),
        }
    }

    /// The modifiers that images of this format and use can be imported with, and for each the
    /// largest width and height in pixels.
    ///
    /// Both questions are asked, and remembered: whether the modifier is listed, and whether such
    /// an image can be imported from a dma-buf. Either alone has been seen to lie.
    pub fn importable_modifiers(
        &self,
        fourcc: Fourcc,
        usage: impl Into<ImageUsage>,
    ) -> Result<Vec<(Modifier, u32, u32)>, Error> {
        self.modifiers_for(
            fourcc,
            usage.into(),
            vk::ExternalMemoryFeatureFlags::IMPORTABLE,
        )
    }

    pub(super) fn modifiers_for(
        &self,
        fourcc: Fourcc,
        usage: ImageUsage,
        wanted: vk::ExternalMemoryFeatureFlags,
    ) -> Result<Vec<(Modifier, u32, u32)>, Error> {
        self.require(Feature::DmaBuf)?;
        self.require(Feature::Modifiers)?;
        let format = format_of(fourcc).ok_or(Error::Format(fourcc))?;
        let mut found = Vec::new();
        for listed in query::modifiers(self, format).iter() {
            let modifier = Modifier(listed.drm_format_modifier);
            let kind = kind_of(format, modifier, usage, false);
            if !listed
                .drm_format_modifier_tiling_features
                .contains(query::features(&kind))
            {
                continue;
            }
            match query::limits(self, kind) {
                Ok(limits) if limits.features.contains(wanted) => {
                    found.push((modifier, limits.extent.width, limits.extent.height));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

pub(super) fn kind_of(
    format: vk::Format,
    modifier: Modifier,
    usage: ImageUsage,
    disjoint: bool,
) -> Kind {
    Kind {
        format,
        twin: srgb_of(format).filter(|_| usage.srgb),
        modifier,
        usage,
        disjoint,
    }
}

/// Whether the device says that it imports such an image, and what kind of image that is.
fn importable(device: &Device, buffer: &DmaBuf, usage: ImageUsage) -> Result<Kind, Error> {
    let (fourcc, modifier) = (buffer.fourcc(), buffer.modifier());
    let name = || device.physical().name().to_owned();
    if !modifier.is_explicit() {
        return Err(Error::ImplicitModifier);
    }
    let format = format_of(fourcc).ok_or(Error::Format(fourcc))?;
    even(format, buffer.layout())?;
    let listed = query::modifiers(device, format);
    let listed = listed
        .iter()
        .find(|listed| listed.drm_format_modifier == modifier.0)
        .ok_or_else(|| Error::Modifier {
            device: name(),
            fourcc,
            modifier,
        })?;
    if listed.drm_format_modifier_plane_count as usize != buffer.planes().len() {
        return Err(Error::PlaneCount {
            fourcc,
            modifier,
            expected: listed.drm_format_modifier_plane_count,
            found: buffer.planes().len(),
        });
    }
    aligned(buffer)?;
    let refused = |result| Error::NotImportable {
        device: name(),
        fourcc,
        modifier,
        usage: usage.flags,
        result,
    };
    let dma_bufs = buffer.objects().len();
    let kind = kind_of(format, modifier, usage, false);
    let features = listed.drm_format_modifier_tiling_features;
    let limits = match query::limits(device, kind) {
        Ok(limits) if features.contains(query::features(&kind)) => limits,
        Ok(_) => return Err(refused(vk::Result::ERROR_FORMAT_NOT_SUPPORTED)),
        Err(result) => return Err(refused(result)),
    };
    let (kind, limits) = match dma_bufs {
        1 => (kind, limits),
        // The same as one image of several memories.
        _ => {
            let disjoint = Kind {
                disjoint: true,
                ..kind
            };
            let able = features.contains(query::features(&disjoint))
                && !quirks::crashes_on_disjoint(device.physical());
            let limits = query::limits(device, disjoint).ok().filter(|_| able);
            let limits = limits.ok_or_else(|| Error::Disjoint {
                device: name(),
                fourcc,
                modifier,
                dma_bufs,
            })?;
            (disjoint, limits)
        }
    };
    if !limits
        .features
        .contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE)
    {
        return Err(refused(vk::Result::ERROR_FORMAT_NOT_SUPPORTED));
    }
    if buffer.width() > limits.extent.width || buffer.height() > limits.extent.height {
        return Err(Error::TooLarge {
            width: buffer.width(),
            height: buffer.height(),
            max_width: limits.extent.width,
            max_height: limits.extent.height,
        });
    }
    Ok(kind)
}

/// VUID-VkImageCreateInfo-format-04712 and -04713: formats with subsampled chroma have even sizes.
pub(super) fn even(format: vk::Format, layout: &Layout) -> Result<(), Error> {
    let (horizontal, vertical) = chroma(format);
    match layout.width.is_multiple_of(horizontal) && layout.height.is_multiple_of(vertical) {
        true => Ok(()),
        false => Err(Error::OddSize {
            fourcc: layout.fourcc,
            width: layout.width,
            height: layout.height,
        }),
    }
}

/// Pixels of LINEAR planes lie at multiples of their own size: nothing Vulkan has reaches others,
/// and not every driver says so.
fn aligned(buffer: &DmaBuf) -> Result<(), Error> {
    let info = match buffer.modifier() {
        Modifier::LINEAR => FormatInfo::of(buffer.fourcc()),
        _ => None,
    };
    let units = info.map_or(&[][..], |info| info.planes);
    for (index, (plane, info)) in buffer.planes().iter().zip(units).enumerate() {
        let unit = info.bytes_per_pixel;
        if !plane.offset.is_multiple_of(unit) || !plane.stride.is_multiple_of(unit) {
            return Err(Error::Misaligned {
                plane: index,
                offset: plane.offset,
                stride: plane.stride,
                unit,
            });
        }
    }
    Ok(())
}

/// What is common to images that are shared. To chain: the modifiers.
pub(super) fn create_info<'a>(
    layout: &Layout,
    kind: &Kind,
    external: &'a mut vk::ExternalMemoryImageCreateInfo<'_>,
) -> vk::ImageCreateInfo<'a> {
    vk::ImageCreateInfo::default()
        .flags(kind.flags())
        .image_type(vk::ImageType::TYPE_2D)
        .format(kind.format)
        .extent(vk::Extent3D {
            width: layout.width,
            height: layout.height,
            depth: 1,
        })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(kind.usage.flags)
        .sharing_mode(vk::SharingMode::EXCLUSIVE)
        // VUID-VkImageCreateInfo-pNext-01443.
        .initial_layout(vk::ImageLayout::UNDEFINED)
        .push_next(external)
}

fn create(device: &Device, buffer: &DmaBuf, kind: &Kind) -> Result<Image, Error> {
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
    let views = kind.views();
    let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
    let mut info = create_info(buffer.layout(), kind, &mut external).push_next(&mut explicit);
    if !views.is_empty() {
        info = info.push_next(&mut list);
    }
    // SAFETY: `info` lives until the call returns; the device has the extensions it chains, and
    // has said that it imports such images.
    let raw = unsafe { device.raw().create_image(&info, None) }.map_err(|result| match result {
        vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT => Error::PlaneLayout {
            device: device.physical().name().to_owned(),
            fourcc: buffer.fourcc(),
            modifier: buffer.modifier(),
        },
        result => device.failed(Call::CreateImage)(result),
    })?;
    Ok(Image::of(device, raw, *buffer.layout(), kind))
}

fn bind_whole(mut image: Image, buffer: &DmaBuf) -> Result<Image, Error> {
    // SAFETY: the image is alive, and not disjoint.
    let needs = unsafe { image.device.raw().get_image_memory_requirements(image.raw) };
    let dedicated = Dedicated::Image(image.raw);
    let memory = Memory::import(&image.device, &buffer.objects()[0], needs, dedicated)?;
    image.bind(memory)?;
    Ok(image)
}

/// A memory and a binding for each memory plane, also where two lie in one dma-buf.
fn bind_planes(mut image: Image, buffer: &DmaBuf) -> Result<Image, Error> {
    let device = image.device.clone();
    for (plane, aspect) in buffer.planes().iter().zip(MEMORY_PLANES) {
        let needs = plane_needs(&image, aspect);
        let object = &buffer.objects()[plane.object];
        image
            .memories
            .push(Memory::import(&device, object, needs, Dedicated::Plane)?);
    }
    let mut aspects =
        MEMORY_PLANES.map(|aspect| vk::BindImagePlaneMemoryInfo::default().plane_aspect(aspect));
    let binds: ArrayVec<_, MAX_PLANES> = image
        .memories
        .iter()
        .zip(&mut aspects)
        .map(|(memory, aspect)| {
            vk::BindImageMemoryInfo::default()
                .image(image.raw)
                .memory(memory.raw())
                .push_next(aspect)
        })
        .collect();
    // SAFETY: image and memories are new, of this device, and bound once, all planes in one call
    // (VUID-vkBindImageMemory2-pBindInfos-02858).
    unsafe { device.raw().bind_image_memory2(&binds) }
        .map_err(device.failed(Call::BindImageMemory))?;
    Ok(image)
}

fn plane_needs(image: &Image, aspect: vk::ImageAspectFlags) -> vk::MemoryRequirements {
    let mut plane = vk::ImagePlaneMemoryRequirementsInfo::default().plane_aspect(aspect);
    let info = vk::ImageMemoryRequirementsInfo2::default()
        .image(image.raw)
        .push_next(&mut plane);
    let mut needs = vk::MemoryRequirements2::default();
    let raw = image.device.raw();
    // SAFETY: the image is alive and disjoint, and has this plane.
    unsafe { raw.get_image_memory_requirements2(&info, &mut needs) };
    needs.memory_requirements
}

impl Image {
    /// Takes over a new image without memory.
    pub(super) fn of(device: &Device, raw: vk::Image, layout: Layout, kind: &Kind) -> Self {
        Self {
            device: device.clone(),
            raw,
            layout,
            format: kind.format,
            usage: kind.usage,
            disjoint: kind.disjoint,
            memories: ArrayVec::new(),
        }
    }

    /// The same, once its modifier is known.
    pub(super) fn named(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    pub(super) fn bind(&mut self, memory: Memory) -> Result<(), Error> {
        // SAFETY: both are new, of this device, and bound once.
        unsafe {
            self.device
                .raw()
                .bind_image_memory(self.raw, memory.raw(), 0)
        }
        .map_err(self.device.failed(Call::BindImageMemory))?;
        self.memories.push(memory);
        Ok(())
    }

    /// The ash handle.
    pub fn raw(&self) -> vk::Image {
        self.raw
    }

    /// The device it is of.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Size in pixels; depth is 1.
    pub fn extent(&self) -> vk::Extent3D {
        vk::Extent3D {
            width: self.layout.width,
            height: self.layout.height,
            depth: 1,
        }
    }

    /// Size, format and modifier.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its Vulkan format.
    pub fn format(&self) -> vk::Format {
        self.format
    }

    /// What it can be used for.
    pub fn usage(&self) -> ImageUsage {
        self.usage
    }

    /// Whether its planes lie in memories of their own.
    pub fn is_disjoint(&self) -> bool {
        self.disjoint
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: it is of this device and used by nothing any more, as the type's contract says.
        // The memory goes afterwards, as a field.
        unsafe { self.device.raw().destroy_image(self.raw, None) };
    }
}
