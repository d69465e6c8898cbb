//! Sends a picture from one DRM device to another through Vulkan, and checks that it arrived.
//!
//! Allocates on the source, fills the buffer through Vulkan, shares it as a dma-buf, has a `Blitter` copy
//! it into a buffer of the destination by the best way that works, reads that back through the
//! destination's own mapping and compares every pixel.

mod options;
mod pick;
mod picture;
mod report;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use primeshare::alloc::{Allocator, Dumb, Request, Usage};
use primeshare::blit::{self, BlitDevice, BlitInfo, Blitter, Completion};
use primeshare::gbm::Gbm;
use primeshare::sync::{Access, Mapping};
use primeshare::vk::{self, Commands, Instance, Select, Staging, Use, Validation};
use primeshare::{Device, DmaBuf, Fourcc};

use options::Options;
use picture::Picture;
use report::Report;

const FORMAT: Fourcc = Fourcc::XRGB8888;
/// Longer than any copy takes, also on a busy machine in software.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    env_logger::init();
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the picture arrived as it was sent.
fn run(options: &Options) -> Result<bool> {
    if options.list {
        print!("{}", pick::list()?);
        return Ok(true);
    }
    let (source, destination) =
        pick::pair(options.source.as_deref(), options.destination.as_deref())?;
    let sent = match &options.image {
        Some(path) => Picture::load(path)?,
        None => Picture::pattern(options.size.width, options.size.height),
    };

    let (from, from_allocator) = allocate(&source, &sent)?;
    let (to, to_allocator) = allocate(&destination, &sent)?;
    spoil(&to)?;

    let validation = match options.validate {
        true => Validation::On,
        false => Validation::Off,
    };
    let instance = Instance::new(validation)?;
    let gpus = [
        pick_vulkan(&instance, &source, options)?,
        pick_vulkan(&instance, &destination, options)?,
    ];
    fill(&vk::Device::new(&gpus[0])?, &from, &sent)?;

    let shared = destination.import(&from)?;
    let sides = [(&source, &gpus[0]), (&destination, &gpus[1])];
    let [a, b] = sides.map(|(device, gpu)| BlitDevice::new(device, Some(gpu)));
    let settings = blit::Options::default().in_flight(options.in_flight);
    let blitter = Blitter::new(a, b, &settings)?;
    // Everything that may work is tried on private buffers. A compositor would not wait for that.
    let all = BlitInfo::default();
    let verdict = blitter.settle_wait(&from, &to, &all, PATIENCE)?;
    // The first copy meets fresh pages; it is not what a running compositor sees.
    blitter.blit(&from, &to, &all)?.wait(PATIENCE)?;
    let start = Instant::now();
    let mut under_way = VecDeque::new();
    for _ in 0..options.frames {
        if under_way.len() == options.in_flight {
            wait_for_oldest(&mut under_way)?;
        }
        under_way.push_back(blitter.blit(&from, &to, &all)?);
    }
    while !under_way.is_empty() {
        wait_for_oldest(&mut under_way)?;
    }
    let time = start.elapsed();
    let statistics = blitter.statistics();

    let (arrived, read_through) = read_back(&destination, &to)?;
    let difference = sent.first_difference(&arrived);
    if let Some(path) = &options.png {
        arrived.save(path)?;
    }
    // What the layer has to say of the end is part of what it says.
    drop(blitter);
    let complaints = instance.validation_messages();
    print!(
        "{}",
        Report {
            source: &source,
            destination: &destination,
            from: &from,
            from_allocator,
            to_allocator,
            filler: &gpus[0],
            shared: &shared,
            verdict: &verdict,
            statistics: &statistics,
            frames: options.frames,
            in_flight: options.in_flight,
            time,
            read_through,
            pixels: sent.pixel_count(),
            difference,
            png: options.png.as_deref(),
            complaints: options.validate.then_some(complaints.len()),
        }
    );
    Ok(difference.is_none() && complaints.is_empty())
}

/// A buffer on the device, by gbm where that works, else as a dumb buffer; and by which.
fn allocate(device: &Device, picture: &Picture) -> Result<(DmaBuf, &'static str)> {
    let mut request = Request::new(picture.width(), picture.height(), FORMAT);
    request.usage = Usage::RENDER | Usage::SCANOUT;
    let by_gbm = Gbm::new(device).and_then(|gbm| Ok((gbm.allocate(&request)?, gbm.name())));
    by_gbm.or_else(|why_not_gbm| {
        let dumb = Dumb::new(device);
        let buffer = dumb
            .allocate(&request)
            .with_context(|| format!("{device}: cannot allocate; gbm said: {why_not_gbm}"))?;
        Ok((buffer, dumb.name()))
    })
}

/// Fills the destination with something else, so that what is compared later must have arrived.
fn spoil(buffer: &DmaBuf) -> Result<()> {
    let mut mapping = Mapping::new(&buffer.objects()[0])?;
    let noise = vec![0xa5; mapping.size()];
    mapping
        .begin_wait(Access::Write, PATIENCE)?
        .write(0, &noise)?;
    Ok(())
}

fn pick_vulkan(
    instance: &Instance,
    device: &Device,
    options: &Options,
) -> Result<vk::PhysicalDevice> {
    if let Some(name) = &options.vulkan {
        return Ok(instance.select(&Select::Name(name))?);
    }
    instance
        .select(&Select::Drm(device))
        .or_else(|_| instance.select(&Select::Software))
        .with_context(|| {
            format!("no Vulkan device for {device}; for one in software install Mesa's lavapipe")
        })
}

fn wait_for_oldest(under_way: &mut VecDeque<Completion>) -> Result<()> {
    let oldest = under_way.pop_front().context("no copy is under way")?;
    Ok(oldest.wait(PATIENCE)?)
}

/// Uploads the picture through Vulkan.
fn fill(device: &vk::Device, buffer: &DmaBuf, picture: &Picture) -> Result<()> {
    let image = device.import_image(buffer, Use::Destination)?;
    let transfer = [vk::Transfer::image(&image, Use::Destination)];
    let mut staging = Staging::upload(device, picture.bytes().len())?;
    staging.write(0, picture.bytes())?;
    let mut commands = Commands::new(device)?;
    let region = vk::ash::vk::BufferImageCopy::default()
        .image_subresource(
            vk::ash::vk::ImageSubresourceLayers::default()
                .aspect_mask(vk::ash::vk::ImageAspectFlags::COLOR)
                .layer_count(1),
        )
        .image_extent(image.extent());
    // SAFETY: all handles are of this device and outlive the wait below; the region is the image
    // and the bytes of the picture, tightly packed.
    unsafe {
        commands.record(|raw, buffer| {
            vk::acquire(buffer, &transfer);
            raw.cmd_copy_buffer_to_image(
                buffer,
                staging.raw(),
                image.raw(),
                Use::Destination.layout(),
                &[region],
            );
            vk::release(buffer, &transfer);
        })?;
        commands.submit()?;
    }
    Ok(commands.wait(PATIENCE)?)
}

/// The destination's picture as the destination itself sees it, and how it was read.
fn read_back(device: &Device, buffer: &DmaBuf) -> Result<(Picture, &'static str)> {
    let plane = buffer.planes()[0];
    let place = (plane.offset as usize, plane.stride as usize);
    let size = (buffer.width(), buffer.height());
    let mut mapping = Mapping::new(&buffer.objects()[0])?;
    let length = NonZeroUsize::new(mapping.size()).context("the dma-buf is empty")?;
    let guard = mapping.begin_wait(Access::Read, PATIENCE)?;
    let imported = device.import(buffer)?;
    if let Ok(own) = device.map_dumb(imported.object(), length) {
        let read = |offset, row: &mut [u8]| own.read(offset, row).context("past the end");
        let picture = Picture::read(size, place, read)?;
        return Ok((picture, "the destination's own mapping (MODE_MAP_DUMB)"));
    }
    let read = |offset, row: &mut [u8]| Ok(guard.read(offset, row)?);
    let picture = Picture::read(size, place, read)?;
    Ok((picture, "a mapping of the destination's dma-buf"))
}
