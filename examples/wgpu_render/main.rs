//! Renders with wgpu into a buffer that is shared, and reads it on another DRM device.
//!
//! The buffer is either wgpu's own, exported, or one that a DRM device allocated, imported into
//! wgpu. The reading device imports it into its handle table, and every pixel of the dma-buf is
//! compared with what the shader is to write.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use primeshare::alloc::Dumb;
use primeshare::sync::{Access, Mapping};
use primeshare::wgpu::{Device as Wgpu, Texture};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request, device};
use wgpu::TextureUsages;

const FORMAT: Fourcc = Fourcc::XRGB8888;
/// Longer than any frame takes, also on a busy machine in software.
const PATIENCE: Duration = Duration::from_secs(120);

/// Renders with wgpu into a shared buffer, and checks every pixel on another DRM device.
#[derive(Debug, clap::Parser)]
#[command(name = "wgpu_render", version)]
struct Options {
    /// Allocate as a dumb buffer of this DRM node and import it into wgpu. Default: wgpu's own
    /// texture, exported.
    #[arg(long, value_name = "NODE")]
    allocate: Option<PathBuf>,
    /// The DRM node that reads. Default: the last there is.
    #[arg(long, value_name = "NODE")]
    read: Option<PathBuf>,
    /// Width in pixels.
    #[arg(long, default_value_t = 1280, value_parser = clap::value_parser!(u32).range(1..))]
    width: u32,
    /// Height in pixels.
    #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u32).range(1..))]
    height: u32,
    /// Write what was read as a PNG file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let home = options.allocate.as_ref().map(Device::open).transpose()?;
    let gpu = Wgpu::find(&instance, home.as_ref(), &wgpu::DeviceDescriptor::default())?;
    let reader = match &options.read {
        Some(path) => Device::open(path)?,
        None => reader()?,
    };
    println!("renders      {}", gpu.vulkan().physical().name());

    let usages = TextureUsages::RENDER_ATTACHMENT;
    let request = Request::new(options.width, options.height, FORMAT);
    let (texture, buffer) = match &home {
        None => {
            println!("allocated    by wgpu");
            gpu.create(&request, usages)?
        }
        Some(home) => {
            println!("allocated    on {home}");
            let buffer = Dumb::new(home).allocate(&request)?;
            (gpu.import(&buffer, usages)?, buffer)
        }
    };
    println!(
        "buffer       {}x{} {} {}, {} bytes",
        buffer.width(),
        buffer.height(),
        buffer.fourcc(),
        buffer.modifier(),
        buffer.objects()[0].size()
    );

    gpu.acquire(&[&texture], [])?;
    draw(&gpu, &texture);
    // The reader is the CPU, which has no use for a sync file.
    gpu.release_wait(&[&texture], PATIENCE)?;

    let shared = reader.import(&buffer)?;
    println!(
        "read         on {reader}, as handle {} ({:?})",
        shared.object().handle().raw(),
        shared.origin()
    );
    let picture = read(&buffer)?;
    if let Some(path) = &options.out {
        save(path, &picture, (buffer.width(), buffer.height()))?;
        println!("written      {}", path.display());
    }
    verify(&picture, buffer.width())?;
    println!("verified     all {} pixels", picture.len() / 3);
    Ok(())
}

/// The last device, which is not the allocating one where that is another.
fn reader() -> Result<Device> {
    let nodes = device::enumerate()?;
    let primary = |node: &&device::Node| node.kind == device::NodeKind::Primary;
    let nodes = nodes.iter().rev().filter(primary);
    nodes
        .flat_map(|node| Device::open(&node.path))
        .next()
        .context("there is no DRM device that can be opened (/dev/dri)")
}

/// What the shader writes at a place: red grows with x, green with y, and blue makes squares.
fn colour(x: u32, y: u32) -> [u8; 3] {
    [x as u8, y as u8, ((x / 64 + y / 64) % 2 * 255) as u8]
}

/// [`colour`], on the GPU.
const SHADER: &str = "
    @vertex fn corner(@builtin(vertex_index) n: u32) -> @builtin(position) vec4f {
        return vec4f(f32(n & 1) * 4 - 1, f32(n >> 1) * 4 - 1, 0, 1);
    }
    @fragment fn colour(@builtin(position) place: vec4f) -> @location(0) vec4f {
        let at = vec2u(place.xy);
        let blue = (at.x / 64 + at.y / 64) % 2;
        return vec4f(f32(at.x & 255) / 255, f32(at.y & 255) / 255, f32(blue), 1);
    }";

/// One triangle over all of the texture.
fn draw(gpu: &Wgpu, texture: &Texture) {
    let module = gpu
        .device()
        .create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
    let pipeline = gpu
        .device()
        .create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: None,
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: None,
                compilation_options: Default::default(),
                buffers: &[],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: None,
                compilation_options: Default::default(),
                targets: &[Some(texture.get().format().into())],
            }),
            multiview_mask: None,
            cache: None,
        });
    let view = texture.get().create_view(&Default::default());
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                store: wgpu::StoreOp::Store,
            },
        })],
        ..Default::default()
    });
    pass.set_pipeline(&pipeline);
    pass.draw(0..3, 0..1);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
}

/// The picture in the dma-buf, as red, green and blue.
fn read(buffer: &DmaBuf) -> Result<Vec<u8>> {
    let plane = buffer.planes()[0];
    let mut mapping = Mapping::new(&buffer.objects()[plane.object])?;
    let access = mapping.begin_wait(Access::Read, PATIENCE)?;
    let mut row = vec![0; buffer.width() as usize * 4];
    let mut picture = Vec::with_capacity(row.len() * buffer.height() as usize);
    for y in 0..buffer.height() as usize {
        access.read(plane.offset as usize + plane.stride as usize * y, &mut row)?;
        // XRGB8888 is a little-endian word.
        picture.extend(
            row.chunks_exact(4)
                .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]),
        );
    }
    Ok(picture)
}

fn verify(picture: &[u8], width: u32) -> Result<()> {
    for (n, found) in (0..).zip(picture.chunks_exact(3)) {
        let (x, y) = (n % width, n / width);
        let wanted = colour(x, y);
        ensure!(
            found == wanted,
            "the pixel at {x}, {y} is {found:?}, and {wanted:?} was drawn"
        );
    }
    Ok(())
}

fn save(path: &Path, picture: &[u8], (width, height): (u32, u32)) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Rgb);
    Ok(encoder.write_header()?.write_image_data(picture)?)
}
