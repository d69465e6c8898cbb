//! Imports into Vulkan against the bare calls that they are made of.

use std::hint::black_box;
use std::os::fd::{AsRawFd, IntoRawFd};

use anyhow::{Context, Result};
use primeshare::alloc::Dumb;
use primeshare::vk::ash::{khr, vk};
use primeshare::vk::{self as shared, Use};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use crate::measure::{interleaved, median};
use crate::table::Table;

const ROUNDS: usize = 31;
/// Calls timed together; of those that take less than a microsecond, a hundred times as many.
const CALLS: u32 = 200;
const QUICK: usize = 100;
const DMA_BUF: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;

pub(crate) fn run(vulkan: &shared::Device, source: &Device) -> Result<()> {
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    let buffer = Dumb::new(source).allocate(&request)?;
    let other = Dumb::new(source).allocate(&request)?;
    let held = vulkan.image(&buffer, Use::Source)?;
    let bare = Bare::new(vulkan);
    let times = interleaved(
        ROUNDS,
        CALLS,
        &mut [
            &mut || {
                for _ in 0..QUICK {
                    black_box(vulkan.image(&buffer, Use::Source)?);
                }
                Ok(())
            },
            &mut || {
                black_box(vulkan.image(&other, Use::Source)?);
                Ok(())
            },
            &mut || {
                black_box(vulkan.import_image(&other, Use::Source)?);
                Ok(())
            },
            &mut || bare.import_and_destroy(&other),
        ],
    )?;
    drop(held);
    let [known, first, fresh, calls] = [0, 1, 2, 3].map(|index| median(&times[index]));
    let known = known / QUICK as f64;
    let mut table = Table::new(["call", "median ns", "baseline", "median ns", "ratio"]);
    let mut row = |what: &str, ours: f64, baseline: &str, theirs: f64| {
        table.row([
            what.to_owned(),
            format!("{:.0}", ours * 1e9),
            baseline.to_owned(),
            format!("{:.0}", theirs * 1e9),
            format!("{:.4}", ours / theirs),
        ]);
    };
    let bare = "the bare Vulkan calls";
    row("image in use already", known, "import and drop", fresh);
    row("image not in use, and drop", first, bare, calls);
    row("import and drop", fresh, bare, calls);
    print!("{table}");
    Ok(())
}

/// The calls of an import by the book, without any question that has been answered before.
struct Bare<'a> {
    device: &'a shared::Device,
    memory_fd: khr::external_memory_fd::Device,
}

impl<'a> Bare<'a> {
    fn new(device: &'a shared::Device) -> Self {
        let instance = device.physical().instance().raw();
        Self {
            memory_fd: khr::external_memory_fd::Device::new(instance, device.raw()),
            device,
        }
    }

    fn import_and_destroy(&self, buffer: &DmaBuf) -> Result<()> {
        let raw = self.device.raw();
        let plane = buffer.planes()[0];
        let planes = [vk::SubresourceLayout::default()
            .offset(plane.offset.into())
            .row_pitch(plane.stride.into())];
        let mut explicit = vk::ImageDrmFormatModifierExplicitCreateInfoEXT::default()
            .drm_format_modifier(buffer.modifier().0)
            .plane_layouts(&planes);
        let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(DMA_BUF);
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::B8G8R8A8_UNORM)
            .extent(vk::Extent3D {
                width: buffer.width(),
                height: buffer.height(),
                depth: 1,
            })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
            .usage(vk::ImageUsageFlags::TRANSFER_SRC)
            .push_next(&mut external)
            .push_next(&mut explicit);
        let fd = buffer.plane_fd(0).context("no plane")?;
        // SAFETY: the calls are those of the library, which names the reasons; the buffer is one
        // that it imports. (A failure half-way ends the benchmark, and with it the process.)
        unsafe {
            let image = raw.create_image(&info, None)?;
            let needs = raw.get_image_memory_requirements(image);
            let mut types = vk::MemoryFdPropertiesKHR::default();
            self.memory_fd
                .get_memory_fd_properties(DMA_BUF, fd.as_raw_fd(), &mut types)?;
            let types = types.memory_type_bits & needs.memory_type_bits;
            let dup = fd.try_clone_to_owned()?;
            let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().image(image);
            let mut import = vk::ImportMemoryFdInfoKHR::default()
                .handle_type(DMA_BUF)
                .fd(dup.into_raw_fd());
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(needs.size)
                .memory_type_index(types.trailing_zeros())
                .push_next(&mut dedicated)
                .push_next(&mut import);
            let memory = raw.allocate_memory(&info, None)?;
            raw.bind_image_memory(image, memory, 0)?;
            raw.destroy_image(image, None);
            raw.free_memory(memory, None);
        }
        Ok(())
    }
}
