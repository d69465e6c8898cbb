//! Dma-bufs as images. Everything is checked before the driver sees it, against what the driver said it
//! can do.

use arrayvec::ArrayVec;
use ash::vk;

use super::external::DMA_BUF;
use super::memory::{self, Dedicated, Memory};
use super::query::{self, Kind};
use super::{Call, Device, Error, Feature, ImageFormat, ImageUsage, format_of, quirks};
use crate::buffer::{
    BufferDesc, DmaBuf, FormatInfo, Fourcc, MAX_PLANES, Modifier, Plane, PlaneInfo, layout,
};

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
    layout: BufferDesc,
    pixels: Pixels,
    usage: ImageUsage,
    disjoint: bool,
    /// Dropped after `drop` below has destroyed the image.
    memories: ArrayVec<Memory, MAX_PLANES>,
}

/// How Vulkan sees the pixels of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels {
    pub(super) format: vk::Format,
    pub(super) srgb: Option<vk::Format>,
    pub(super) planes: &'static [vk::Format],
    pub(super) components: vk::ComponentMapping,
    pub(super) ycbcr: bool,
}

impl Pixels {
    /// Whether colours are where Vulkan expects them.
    pub(super) fn in_order(&self) -> bool {
        let map = self.components;
        [map.r, map.g, map.b] == [vk::ComponentSwizzle::IDENTITY; 3]
    }
}

impl From<&ImageFormat> for Pixels {
    fn from(known: &ImageFormat) -> Self {
        Self {
            format: known.format,
            srgb: known.srgb,
            planes: known.planes,
            components: known.components,
            ycbcr: known.ycbcr,
        }
    }
}

/// What is imported: all of a buffer, or one of its planes as a picture of its own.
struct Picture<'a> {
    buffer: &'a DmaBuf,
    /// The size is the picture's.
    layout: BufferDesc,
    pixels: Pixels,
    planes: &'a [Plane],
    /// What is known of the planes.
    infos: &'a [PlaneInfo],
    /// Width and height are multiples of these.
    chroma: (u32, u32),
}

impl<'a> Picture<'a> {
    fn whole(device: &Device, buffer: &'a DmaBuf) -> Result<Self, Error> {
        let pixels = known(device, buffer.fourcc())?.into();
        let info = FormatInfo::of(buffer.fourcc());
        Ok(Self {
            buffer,
            layout: *buffer.desc(),
            pixels,
            planes: buffer.planes(),
            infos: info.map_or(&[], |info| info.planes),
            chroma: info.map_or((1, 1), |info| info.chroma),
        })
    }

    fn plane(device: &Device, buffer: &'a DmaBuf, plane: usize) -> Result<Self, Error> {
        let formats = known(device, buffer.fourcc())?.planes;
        let info = FormatInfo::of(buffer.fourcc()).ok_or(Error::Format(buffer.fourcc()))?;
        let (Some(&format), Some(place), Some(one)) = (
            formats.get(plane),
            buffer.planes().get(plane..=plane),
            info.planes.get(plane..=plane),
        ) else {
            return Err(Error::NoPlane {
                fourcc: buffer.fourcc(),
                plane,
                planes: formats.len(),
            });
        };
        // Planes beside the format's are a modifier's own, and belong to all of the picture.
        if buffer.planes().len() != formats.len() {
            return Err(Error::PlaneCount {
                fourcc: buffer.fourcc(),
                modifier: buffer.modifier(),
                expected: formats.len() as u32,
                found: buffer.planes().len(),
            });
        }
        Ok(Self {
            buffer,
            layout: BufferDesc {
                width: buffer.width().div_ceil(one[0].horizontal),
                height: one[0].rows(buffer.height()),
                ..*buffer.desc()
            },
            pixels: Pixels {
                format,
                srgb: None,
                planes: &[],
                components: vk::ComponentMapping::default(),
                ycbcr: false,
            },
            planes: place,
            infos: one,
            chroma: (1, 1),
        })
    }

    /// The dma-bufs its planes lie in.
    fn dma_bufs(&self) -> usize {
        let used = |object: &usize| self.planes.iter().any(|plane| plane.object == *object);
        (0..self.buffer.objects().len()).filter(used).count()
    }
}

/// The Vulkan format, where the device has it.
pub(super) fn known(device: &Device, fourcc: Fourcc) -> Result<&'static ImageFormat, Error> {
    let known = format_of(fourcc).ok_or(Error::Format(fourcc))?;
    match known.extension {
        Some(extension) if device.physical().version() < known.core => {
            Err(Error::FormatExtension {
                fourcc,
                extension: extension.to_string_lossy().into_owned(),
            })
        }
        _ => Ok(known),
    }
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
        memory::check(self, buffer)?;
        import(self, &Picture::whole(self, buffer)?, usage.into())
    }

    /// Imports one plane of a YCbCr buffer as an image of one or two colours and of the plane's
    /// own size: for programs that convert by themselves, and for devices that do not import the
    /// whole, as where its planes lie in several dma-bufs.
    ///
    /// As [`Self::import_image`] otherwise. [`Error::NoPlane`] for formats that have but one, and
    /// past the last one. [`Image::desc`] has the whole's format.
    pub fn import_plane(
        &self,
        buffer: &DmaBuf,
        plane: usize,
        usage: impl Into<ImageUsage>,
    ) -> Result<Image, Error> {
        for feature in Feature::IMAGES {
            self.require(feature)?;
        }
        memory::check(self, buffer)?;
        import(self, &Picture::plane(self, buffer, plane)?, usage.into())
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
        if usage.flags.is_empty() {
            return Err(Error::NoUsage);
        }
        let pixels = Pixels::from(known(self, fourcc)?);
        let mut found = Vec::new();
        for listed in query::modifiers(self, pixels.format).iter() {
            let modifier = Modifier(listed.drm_format_modifier);
            let kind = kind_of(&pixels, modifier, usage, false);
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
    pixels: &Pixels,
    modifier: Modifier,
    usage: ImageUsage,
    disjoint: bool,
) -> Kind {
    Kind {
        format: pixels.format,
        twin: pixels.srgb.filter(|_| usage.srgb),
        planes: if usage.planes { pixels.planes } else { &[] },
        modifier,
        usage,
        disjoint,
    }
}

fn import(device: &Device, picture: &Picture<'_>, usage: ImageUsage) -> Result<Image, Error> {
    let kind = importable(device, picture, usage)?;
    let image = create(device, picture, &kind)?;
    match kind.disjoint {
        false => bind_whole(image, picture),
        true => bind_planes(image, picture),
    }
}

/// Whether the device says that it imports such an image, and what kind of image that is.
fn importable(device: &Device, picture: &Picture<'_>, usage: ImageUsage) -> Result<Kind, Error> {
    let BufferDesc {
        fourcc, modifier, ..
    } = picture.layout;
    let name = || device.physical().name().to_owned();
    if !modifier.is_explicit() {
        return Err(Error::ImplicitModifier);
    }
    even(&picture.layout, picture.chroma)?;
    if usage.flags.is_empty() {
        return Err(Error::NoUsage);
    }
    let listed = query::modifiers(device, picture.pixels.format);
    let listed = listed
        .iter()
        .find(|listed| listed.drm_format_modifier == modifier.0)
        .ok_or_else(|| Error::Modifier {
            device: name(),
            fourcc,
            modifier,
        })?;
    if listed.drm_format_modifier_plane_count as usize != picture.planes.len() {
        return Err(Error::PlaneCount {
            fourcc,
            modifier,
            expected: listed.drm_format_modifier_plane_count,
            found: picture.planes.len(),
        });
    }
    aligned(picture)?;
    let refused = |result| Error::NotImportable {
        device: name(),
        fourcc,
        modifier,
        usage: usage.flags,
        result,
    };
    let dma_bufs = picture.dma_bufs();
    let kind = kind_of(&picture.pixels, modifier, usage, false);
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
    let BufferDesc { width, height, .. } = picture.layout;
    if width > limits.extent.width || height > limits.extent.height {
        return Err(Error::TooLarge {
            width,
            height,
            max_width: limits.extent.width,
            max_height: limits.extent.height,
        });
    }
    Ok(kind)
}

/// VUID-VkImageCreateInfo-format-04712 and -04713: subsampled formats have even sizes.
pub(super) fn even(layout: &BufferDesc, (across, down): (u32, u32)) -> Result<(), Error> {
    match layout.width.is_multiple_of(across) && layout.height.is_multiple_of(down) {
        true => Ok(()),
        false => Err(Error::OddSize {
            fourcc: layout.fourcc,
            width: layout.width,
            height: layout.height,
        }),
    }
}

/// Refuses LINEAR planes that are not whole pixels: nothing in Vulkan reaches such pixels, and not
/// every driver says so.
fn aligned(picture: &Picture<'_>) -> Result<(), Error> {
    match picture.layout.modifier {
        Modifier::LINEAR => {
            layout::check_whole_pixels(picture.infos, picture.planes).map_err(Error::Layout)
        }
        _ => Ok(()),
    }
}

/// What is common to images that are shared. To chain: the modifiers.
pub(super) fn create_info<'a>(
    layout: &BufferDesc,
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

fn create(device: &Device, picture: &Picture<'_>, kind: &Kind) -> Result<Image, Error> {
    // `size`, `array_pitch` and `depth_pitch` are zero:
    // VUID-VkImageDrmFormatModifierExplicitCreateInfoEXT-size-02267, -arrayPitch-02268,
    // -depthPitch-02269.
    let planes: ArrayVec<vk::SubresourceLayout, MAX_PLANES> = picture
        .planes
        .iter()
        .map(|plane| {
            vk::SubresourceLayout::default()
                .offset(plane.offset.into())
                .row_pitch(plane.stride.into())
        })
        .collect();
    let mut explicit = vk::ImageDrmFormatModifierExplicitCreateInfoEXT::default()
        .drm_format_modifier(picture.layout.modifier.0)
        .plane_layouts(&planes);
    let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(DMA_BUF);
    let views = kind.views();
    let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
    let mut info = create_info(&picture.layout, kind, &mut external).push_next(&mut explicit);
    if !views.is_empty() {
        info = info.push_next(&mut list);
    }
    // SAFETY: `info` lives until the call returns; the device has the extensions it chains, and
    // has said that it imports such images.
    let raw = unsafe { device.raw().create_image(&info, None) }.map_err(|result| match result {
        vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT => Error::PlaneLayout {
            device: device.physical().name().to_owned(),
            fourcc: picture.layout.fourcc,
            modifier: picture.layout.modifier,
        },
        result => device.failed(Call::CreateImage)(result),
    })?;
    Ok(Image::of(device, raw, picture.layout, picture.pixels, kind))
}

fn bind_whole(mut image: Image, picture: &Picture<'_>) -> Result<Image, Error> {
    // SAFETY: the image is alive, and not disjoint.
    let needs = unsafe { image.device.raw().get_image_memory_requirements(image.raw) };
    let dedicated = Dedicated::Image(image.raw);
    let object = &picture.buffer.objects()[picture.planes[0].object];
    let memory = Memory::import(&image.device, object, needs, dedicated)?;
    image.bind(memory)?;
    Ok(image)
}

/// A memory and a binding for each memory plane, also where two lie in one dma-buf.
fn bind_planes(mut image: Image, picture: &Picture<'_>) -> Result<Image, Error> {
    let device = image.device.clone();
    for (plane, aspect) in picture.planes.iter().zip(MEMORY_PLANES) {
        let needs = plane_needs(&image, aspect);
        let object = &picture.buffer.objects()[plane.object];
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
    pub(super) fn of(
        device: &Device,
        raw: vk::Image,
        layout: BufferDesc,
        pixels: Pixels,
        kind: &Kind,
    ) -> Self {
        Self {
            device: device.clone(),
            raw,
            layout,
            pixels,
            usage: kind.usage,
            disjoint: kind.disjoint,
            memories: ArrayVec::new(),
        }
    }

    /// The same, once its modifier is known.
    pub(super) fn named(mut self, layout: BufferDesc) -> Self {
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
    pub fn desc(&self) -> &BufferDesc {
        &self.layout
    }

    /// Its Vulkan format.
    pub fn format(&self) -> vk::Format {
        self.pixels.format
    }

    pub(super) fn pixels(&self) -> &Pixels {
        &self.pixels
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
        let handle = self.raw;
        self.device.destroy(move |raw| {
            // SAFETY: it is of this device and used by nothing any more, as the type's contract says.
            // The memory goes afterwards, as a field.
            unsafe { raw.destroy_image(handle, None) }
        });
    }
}

impl Image {
    /// Whether this image can be blitted to the other: their formats and modifiers allow it.
    ///
    /// `queue`: VUID-vkCmdBlitImage-commandBuffer-cmdpool wants one for graphics. `filter`: linear ones
    /// are not for all formats (VUID-vkCmdBlitImage-filter-02001).
    pub(crate) fn require_blit(
        &self,
        destination: &Image,
        queue: vk::QueueFlags,
        filter: vk::Filter,
    ) -> Result<(), Error> {
        let mut read = vk::FormatFeatureFlags::BLIT_SRC;
        if filter == vk::Filter::LINEAR {
            read |= vk::FormatFeatureFlags::SAMPLED_IMAGE_FILTER_LINEAR;
        }
        let draws = queue.contains(vk::QueueFlags::GRAPHICS);
        let ends = [
            (self, read),
            (destination, vk::FormatFeatureFlags::BLIT_DST),
        ];
        for (image, feature) in ends {
            let modifier = image.desc().modifier;
            let listed = query::modifiers(&image.device, image.format());
            let able = listed.iter().any(|properties| {
                properties.drm_format_modifier == modifier.0
                    && properties
                        .drm_format_modifier_tiling_features
                        .contains(feature)
            });
            // Blits go by the components' names, which must then be the right ones.
            let in_order = format_of(image.desc().fourcc).is_some_and(|f| f.in_order());
            if !able || !in_order || !draws {
                return Err(Error::Blit {
                    device: image.device.physical().name().to_owned(),
                    fourcc: image.desc().fourcc,
                    modifier,
                });
            }
        }
        Ok(())
    }
}
