//! Allocation by Vulkan: images and buffers that are exported as dma-bufs.

use std::time::Duration;

use arrayvec::ArrayVec;
use ash::vk;

use super::buffer::Buffer;
use super::external::DMA_BUF;
use super::image::{Image, MEMORY_PLANES, Pixels, create_info, even, kind_of, known};
use super::memory::{Dedicated, Memory};
use super::query;
use super::{Call, Commands, Device, Error, Feature, ImageUsage, ownership};
use crate::alloc::{self, Allocator, Request};
use crate::buffer::layout::{Packed, pack};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, Fourcc, MAX_PLANES, Modifier};

/// How long a driver may take to make a new image's first layout.
const PATIENCE: Duration = Duration::from_secs(10);

impl Device {
    /// Allocates an image that can be shared, in whichever of these layouts the driver likes best,
    /// and its dma-buf.
    ///
    /// Modifiers that the device does not export for this usage and size are passed over;
    /// [`Error::NotExportable`] where none is left. The buffer tells which was chosen and where
    /// the planes lie. Its fd is close-on-exec. The contents are undefined, and so is the layout
    /// of tiled memory, until [`initialize`] has been executed, which is to come before any use;
    /// LINEAR memory needs none.
    pub fn create_image(
        &self,
        width: u32,
        height: u32,
        fourcc: Fourcc,
        modifiers: &[Modifier],
        usage: impl Into<ImageUsage>,
    ) -> Result<(Image, DmaBuf), Error> {
        for feature in Feature::IMAGES {
            self.require(feature)?;
        }
        let usage = usage.into();
        let pixels = Pixels::from(known(self, fourcc)?);
        let asked = BufferDesc::new(width, height, fourcc, Modifier::INVALID);
        if width == 0 || height == 0 {
            return Err(crate::buffer::Error::Empty { width, height }.into());
        }
        even(
            &asked,
            FormatInfo::of(fourcc).map_or((1, 1), |info| info.chroma),
        )?;
        let chosen = self.exportable(&asked, modifiers, usage)?;
        let raw: Vec<u64> = chosen.iter().map(|modifier| modifier.0).collect();
        let mut list =
            vk::ImageDrmFormatModifierListCreateInfoEXT::default().drm_format_modifiers(&raw);
        let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(DMA_BUF);
        let kind = kind_of(&pixels, Modifier::INVALID, usage, false);
        let views = kind.views();
        let mut formats = vk::ImageFormatListCreateInfo::default().view_formats(&views);
        let mut info = create_info(&asked, &kind, &mut external).push_next(&mut list);
        if !views.is_empty() {
            info = info.push_next(&mut formats);
        }
        // SAFETY: `info` lives until the call returns; the device has said that it exports images
        // of these modifiers.
        let raw = unsafe { self.raw().create_image(&info, None) }
            .map_err(self.failed(Call::CreateImage))?;
        // An owner first, so that it does not leak.
        let unnamed = Image::of(self, raw, asked, pixels, &kind);
        let mut properties = vk::ImageDrmFormatModifierPropertiesEXT::default();
        let modifier_functions = &self.functions().modifier;
        // SAFETY: the image is alive, and of this tiling.
        unsafe {
            modifier_functions.get_image_drm_format_modifier_properties(raw, &mut properties)
        }
        .map_err(self.failed(Call::GetImageDrmFormatModifierProperties))?;
        let layout = BufferDesc {
            modifier: Modifier(properties.drm_format_modifier),
            ..asked
        };
        let mut image = unnamed.named(layout);
        // SAFETY: the image is alive.
        let needs = unsafe { self.raw().get_image_memory_requirements(raw) };
        let memory = Memory::exportable(self, needs, Dedicated::Image(raw))?;
        let fd = memory.export()?;
        image.bind(memory)?;
        let planes = self.planes_of(&image)?;
        Ok((image, DmaBuf::of_one(layout, fd, planes, None)?))
    }

    /// Allocates a LINEAR picture as a `VkBuffer` that can be shared, and its dma-buf, laid out as
    /// the other allocators do it. For devices that do not share images.
    pub fn create_buffer(
        &self,
        width: u32,
        height: u32,
        fourcc: Fourcc,
        usage: vk::BufferUsageFlags,
    ) -> Result<(Buffer, DmaBuf), Error> {
        self.require(Feature::DmaBuf)?;
        self.require(Feature::Foreign)?;
        let info = FormatInfo::of(fourcc).ok_or(Error::Format(fourcc))?;
        let Packed { planes, size } = pack(width, height, info)?;
        if usage.is_empty() {
            return Err(Error::NoUsage);
        }
        let features = query::buffers(self, usage);
        if !features.contains(vk::ExternalMemoryFeatureFlags::EXPORTABLE) {
            return Err(self.buffer_usage(usage));
        }
        let mut buffer = Buffer::create(self, size, usage)?;
        let needs = buffer.needs();
        let memory = Memory::exportable(self, needs, Dedicated::Buffer(buffer.raw()))?;
        let fd = memory.export()?;
        buffer.bind(memory)?;
        let layout = BufferDesc::linear(width, height, fourcc);
        Ok((buffer, DmaBuf::of_one(layout, fd, planes, None)?))
    }

    /// Those of the modifiers that the device exports such images with.
    fn exportable(
        &self,
        asked: &BufferDesc,
        modifiers: &[Modifier],
        usage: ImageUsage,
    ) -> Result<Vec<Modifier>, Error> {
        let wanted = vk::ExternalMemoryFeatureFlags::EXPORTABLE;
        let able = self.modifiers_for(asked.fourcc, usage, wanted)?;
        let able = able
            .into_iter()
            .filter(|(modifier, _, _)| modifiers.contains(modifier));
        let (mut largest, mut chosen) = ((0, 0), Vec::new());
        let mut any = false;
        for (modifier, width, height) in able {
            any = true;
            largest = (width.max(largest.0), height.max(largest.1));
            if asked.width <= width && asked.height <= height {
                chosen.push(modifier);
            }
        }
        match (chosen.is_empty(), any) {
            (false, _) => Ok(chosen),
            (true, true) => Err(Error::TooLarge {
                width: asked.width,
                height: asked.height,
                max_width: largest.0,
                max_height: largest.1,
            }),
            (true, false) => Err(Error::NotExportable {
                device: self.physical().name().to_owned(),
                fourcc: asked.fourcc,
                modifiers: modifiers.to_vec(),
                usage: usage.flags,
            }),
        }
    }

    /// Offset and stride of each memory plane of a modifier's image.
    fn planes_of(&self, image: &Image) -> Result<ArrayVec<(u32, u32), MAX_PLANES>, Error> {
        let modifier = image.desc().modifier;
        let listed = query::modifiers(self, image.format());
        let listed = listed.iter().find(|l| l.drm_format_modifier == modifier.0);
        let count = listed.map_or(0, |l| l.drm_format_modifier_plane_count as usize);
        let plane = |aspect: &vk::ImageAspectFlags| {
            let subresource = vk::ImageSubresource::default().aspect_mask(*aspect);
            // SAFETY: the image is alive and has this memory plane
            // (VUID-vkGetImageSubresourceLayout-tiling-09433).
            let layout = unsafe {
                self.raw()
                    .get_image_subresource_layout(image.raw(), subresource)
            };
            let small = u32::try_from(layout.offset).ok();
            small
                .zip(u32::try_from(layout.row_pitch).ok())
                .ok_or(Error::PlaneOutOfReach {
                    offset: layout.offset,
                    stride: layout.row_pitch,
                })
        };
        let planes: ArrayVec<(u32, u32), MAX_PLANES> = MEMORY_PLANES
            .iter()
            .take(count)
            .map(plane)
            .collect::<Result<_, _>>()?;
        // lavapipe answers with the first plane's place for all (Mesa 26.1.6, seen).
        let same = |(index, plane): (usize, &(u32, u32))| {
            planes[..index].iter().any(|before| before.0 == plane.0)
        };
        match planes.iter().enumerate().any(same) {
            true => Err(Error::OverlappingPlanes {
                device: self.physical().name().to_owned(),
                fourcc: image.desc().fourcc,
            }),
            false => Ok(planes),
        }
    }
}

/// Records a new image's first layout, and the handing of it to the outside world.
///
/// Drivers keep data beside compressed pixels that must be made before anybody reads it.
///
/// # Safety
/// `commands` is being recorded on the image's device and for its queue family; the image is new.
pub unsafe fn initialize(commands: vk::CommandBuffer, image: &Image) {
    let barrier = vk::ImageMemoryBarrier::default()
        .image(image.raw())
        .subresource_range(ownership::WHOLE)
        .old_layout(vk::ImageLayout::UNDEFINED)
        .new_layout(vk::ImageLayout::GENERAL)
        .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .dst_access_mask(vk::AccessFlags::MEMORY_WRITE);
    let given = vk::ImageMemoryBarrier::default()
        .image(image.raw())
        .subresource_range(ownership::WHOLE)
        .old_layout(vk::ImageLayout::GENERAL)
        .new_layout(vk::ImageLayout::GENERAL)
        .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
        .src_queue_family_index(image.device.queue_family())
        .dst_queue_family_index(vk::QUEUE_FAMILY_FOREIGN_EXT);
    for barrier in [barrier, given] {
        // SAFETY: as the caller promises.
        unsafe {
            image.device.raw().cmd_pipeline_barrier(
                commands,
                vk::PipelineStageFlags::ALL_COMMANDS,
                vk::PipelineStageFlags::ALL_COMMANDS,
                vk::DependencyFlags::empty(),
                &[],
                &[],
                &[barrier],
            );
        }
    }
}

/// Allocates through Vulkan: the driver chooses among the modifiers asked for.
///
/// A tiled buffer is initialised before it is given out, which waits for the device's queue; a
/// LINEAR one waits for nothing.
#[derive(Clone, Debug)]
pub struct ImageAllocator {
    device: Device,
    usage: ImageUsage,
}

impl ImageAllocator {
    /// An allocator of images for this use.
    pub fn new(device: &Device, usage: impl Into<ImageUsage>) -> Self {
        Self {
            device: device.clone(),
            usage: usage.into(),
        }
    }

    /// As [`Allocator::allocate`], with the Vulkan reason of a failure. Waits for the GPU if the buffer is tiled, ten
    /// seconds at most: [`Error::Timeout`].
    pub fn create_wait(&self, request: &Request) -> Result<DmaBuf, Error> {
        let (image, buffer) = self.device.create_image(
            request.width,
            request.height,
            request.fourcc,
            &request.modifiers,
            self.usage,
        )?;
        if buffer.modifier() != Modifier::LINEAR {
            let mut commands = Commands::new(&self.device)?;
            // SAFETY: the image is new, and outlives the commands, which are waited for.
            unsafe {
                commands.record(|_, commands| initialize(commands, &image))?;
                commands.submit()?;
            }
            commands.wait(PATIENCE)?;
        }
        Ok(buffer)
    }
}

impl Allocator for ImageAllocator {
    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, alloc::Error> {
        self.create_wait(request).map_err(|error| match error {
            Error::Format(fourcc) => alloc::Error::Format {
                allocator: self.name(),
                fourcc,
            },
            Error::NotExportable { modifiers, .. } => alloc::Error::Modifiers {
                allocator: self.name(),
                modifiers,
            },
            Error::Describe(error) => alloc::Error::Layout(error),
            error => alloc::Error::of_allocator(self.name(), error.kind(), error.errno(), error),
        })
    }
}
