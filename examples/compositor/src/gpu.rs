//! The GPU that draws: clients' buffers as textures, and pictures for screens.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::blit::{self, BlitDevice, Blitter, Shadow};
use primeshare::buffer::{BufferFlags, FormatInfo, PerBuffer, Refusal};
use primeshare::negotiate::{Endpoint, FormatSet, Usage};
use primeshare::sync::SyncFile;
use primeshare::wayland::ShmBuffer;
use primeshare::wgpu::wgpu::util::DeviceExt;
use primeshare::wgpu::{self as shared, Texture, format_of, wgpu};
use primeshare::{Device, DmaBuf, Fourcc, Request, device, vk};
use wgpu::TextureUsages;

/// Longer than any frame takes, also in software.
const PATIENCE: Duration = Duration::from_secs(20);
const SAMPLED: TextureUsages = TextureUsages::TEXTURE_BINDING;
const DRAWN: TextureUsages = TextureUsages::RENDER_ATTACHMENT;

/// The formats of clients' buffers.
pub(crate) const FORMATS: [Fourcc; 4] = [Fourcc::ARGB8888, Fourcc::XRGB8888, Fourcc::ABGR8888, Fourcc::XBGR8888];

pub(crate) struct Gpu {
    pub(crate) shared: shared::Device,
    /// The DRM device that clients are told to allocate on: the GPU's, or any if the GPU is software.
    pub(crate) device: Device,
    /// Whether that device has no GPU, so that its buffers without a modifier are linear.
    pub(crate) is_linear: bool,
    /// Copies what the GPU does not take.
    pub(crate) blitter: Blitter,
    /// For `wl_shm` without copies.
    udmabuf: Option<Udmabuf>,
    /// What was made of buffers: it goes with the buffer, so that nothing is imported for each frame.
    sources: PerBuffer<Source, shared::Error>,
    pipeline: wgpu::RenderPipeline,
    sampler: wgpu::Sampler,
}

/// What is drawn: a client's memory, or a copy of it in memory of wgpu's.
pub(crate) struct Source {
    bindings: wgpu::BindGroup,
    memory: Memory,
    pub(crate) size: (u32, u32),
    pub(crate) fourcc: Fourcc,
    pub(crate) is_opaque: bool,
    /// Its first row is the lowest.
    is_inverted: bool,
}

enum Memory {
    Shared(Arc<Texture>),
    Own(wgpu::Texture),
}

/// A source at its place on the screen.
pub(crate) struct Quad<'a> {
    pub(crate) source: &'a Source,
    pub(crate) is_opaque: bool,
    pub(crate) place: (i32, i32),
    pub(crate) size: (u32, u32),
}

/// A picture for a screen.
pub(crate) struct Target {
    texture: Texture,
    pub(crate) buffer: DmaBuf,
    /// More than one while a viewer reads it.
    pub(crate) users: Arc<()>,
}

/// Six corners of a rectangle for each instance: its left top and right bottom in clip space, and whether alpha is 1.
const SHADER: &str = "
    struct Out { @builtin(position) at: vec4f, @location(0) uv: vec2f, @location(1) opaque: f32 }
    @group(0) @binding(0) var picture: texture_2d<f32>;
    @group(0) @binding(1) var filtering: sampler;
    @vertex fn corner(@builtin(vertex_index) n: u32, @location(0) place: vec4f, @location(1) opaque: f32) -> Out {
        let uv = vec2f(f32(n == 1 || n == 2 || n == 4), f32(n == 2 || n == 4 || n == 5));
        return Out(vec4f(mix(place.xy, place.zw, uv), 0, 1), uv, opaque);
    }
    @fragment fn colour(in: Out) -> @location(0) vec4f {
        let colour = textureSample(picture, filtering, in.uv);
        return vec4f(colour.rgb, max(colour.a, in.opaque));
    }";

impl Gpu {
    /// The GPU of this DRM node; else the first that shares textures. `copies`: clients' memory is copied always.
    pub(crate) fn open(node: Option<&Path>, copies: bool) -> Result<Self> {
        let wanted = node.map(Device::open).transpose()?;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let shared = shared::Device::find(&instance, wanted.as_ref(), &wgpu::DeviceDescriptor::default())?;
        let physical = shared.vulkan().physical();
        let (devices, _) = device::open_all()?;
        let own = devices.iter().find(|device| physical.drives(device));
        let device = wanted.as_ref().or(own).or(devices.first());
        let device = device.context("there is no DRM device that can be opened (/dev/dri)")?.clone();
        let side = || BlitDevice::new(&device, Some(physical));
        let gpu = shared.device();
        let shader = gpu.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let vertex = wgpu::VertexBufferLayout {
            array_stride: 20,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: &wgpu::vertex_attr_array![0 => Float32x4, 1 => Float32],
        };
        let target = wgpu::ColorTargetState {
            format: wgpu::TextureFormat::Bgra8Unorm,
            blend: Some(wgpu::BlendState::PREMULTIPLIED_ALPHA_BLENDING),
            write_mask: wgpu::ColorWrites::ALL,
        };
        let pipeline = gpu.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: None,
            layout: None,
            vertex: wgpu::VertexState {
                module: &shader,
                entry_point: None,
                compilation_options: Default::default(),
                buffers: &[Some(vertex)],
            },
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &shader,
                entry_point: None,
                compilation_options: Default::default(),
                targets: &[Some(target)],
            }),
            multiview_mask: None,
            cache: None,
        });
        // A client's pixel is a screen's pixel, so that nothing is mixed.
        let sampler = gpu.create_sampler(&wgpu::SamplerDescriptor::default());
        Ok(Self {
            blitter: Blitter::new(side(), side(), &blit::Options::default())?,
            udmabuf: Udmabuf::open().ok().filter(|_| !copies),
            sources: PerBuffer::new(),
            is_linear: physical.is_software() && !physical.drives(&device),
            device,
            pipeline,
            sampler,
            shared,
        })
    }

    /// What the GPU samples, of the formats that clients are offered.
    pub(crate) fn samples(&self) -> Result<FormatSet> {
        let all = self.shared.vulkan().endpoint(Usage::SAMPLE)?.formats;
        let offered = all.iter().filter(|one| one.import && FORMATS.contains(&one.fourcc));
        Ok(offered.copied().collect())
    }

    /// What the GPU draws into.
    pub(crate) fn draws(&self) -> Result<Endpoint> {
        Ok(self.shared.vulkan().endpoint(Usage::RENDER)?)
    }

    /// A buffer as a source. The answer goes with the buffer, also if it is a refusal.
    pub(crate) fn import(&self, buffer: &DmaBuf) -> Result<Arc<Source>, Arc<shared::Error>> {
        self.sources.get_or_make(buffer, || {
            let texture = self.shared.texture(buffer, SAMPLED);
            let texture = texture.map_err(|error| Refusal::of(error.kind(), error))?;
            let size = (buffer.width(), buffer.height());
            let mut source = self.source(size, buffer.fourcc(), Memory::Shared(texture));
            source.is_inverted = buffer.flags().contains(BufferFlags::Y_INVERT);
            Ok(source)
        })
    }

    /// A client's memory as a source, without a copy, and as a buffer. `None`: it has to be copied.
    pub(crate) fn import_memory<'a>(&self, buffer: &'a ShmBuffer) -> Option<(Arc<Source>, &'a DmaBuf)> {
        let dma_buf = buffer.dma_buf(self.udmabuf.as_ref()?);
        let dma_buf = dma_buf.inspect_err(|why| log::debug!("memory is copied: {why}")).ok()?;
        let source = self.import(dma_buf);
        let source = source.inspect_err(|why| log::debug!("memory is copied: {why}")).ok()?;
        buffer.flush().inspect_err(|error| log::warn!("{error}")).ok()?;
        Some((source, dma_buf))
    }

    /// Copies for a surface whose buffers the GPU does not take.
    pub(crate) fn shadow(&self) -> Shadow {
        Shadow::new(Arc::new(Dumb::new(&self.device)), [])
    }

    /// Memory for rows that [`Self::upload`] writes.
    pub(crate) fn memory(&self, size: (u32, u32), fourcc: Fourcc) -> Option<Arc<Source>> {
        let most = self.shared.device().limits().max_texture_dimension_2d;
        let format = format_of(fourcc).filter(|_| size.0 <= most && size.1 <= most)?;
        let texture = self.shared.device().create_texture(&wgpu::TextureDescriptor {
            label: None,
            size: extent(size.0, size.1),
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage: SAMPLED | TextureUsages::COPY_DST,
            view_formats: &[],
        });
        Some(Arc::new(self.source(size, fourcc, Memory::Own(texture))))
    }

    /// Writes rows into memory of wgpu's.
    pub(crate) fn upload(&self, into: &Source, rows: Range<u32>, stride: u32, bytes: &[u8]) {
        let Memory::Own(texture) = &into.memory else {
            return;
        };
        let mut place = texture.as_image_copy();
        place.origin.y = rows.start;
        let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(stride), rows_per_image: None };
        let size = extent(into.size.0, rows.end - rows.start);
        self.shared.queue().write_texture(place, bytes, layout, size);
    }

    fn source(&self, size: (u32, u32), fourcc: Fourcc, memory: Memory) -> Source {
        let bindings = self.bind(match &memory {
            Memory::Shared(texture) => texture.get(),
            Memory::Own(texture) => texture,
        });
        let is_opaque = FormatInfo::of(fourcc).is_some_and(|info| !info.alpha);
        Source { bindings, memory, size, fourcc, is_opaque, is_inverted: false }
    }

    fn bind(&self, texture: &wgpu::Texture) -> wgpu::BindGroup {
        let view = texture.create_view(&Default::default());
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        self.shared.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &[
                entry(0, wgpu::BindingResource::TextureView(&view)),
                entry(1, wgpu::BindingResource::Sampler(&self.sampler)),
            ],
        })
    }

    /// A picture that the GPU draws into and a screen's device may read.
    pub(crate) fn target(&self, request: &Request) -> Result<Target, shared::Error> {
        let (texture, buffer) = self.shared.create(request, DRAWN)?;
        Ok(Target { texture, buffer, users: Arc::new(()) })
    }

    /// Draws the sources on black, in their order, and gives the fence of the picture; `None` if it is there already.
    pub(crate) fn draw(&self, target: &Target, quads: &[Quad<'_>]) -> Result<Option<SyncFile>> {
        let mut textures = vec![&target.texture];
        for quad in quads {
            if let Memory::Shared(texture) = &quad.source.memory
                && !textures.iter().any(|known| std::ptr::eq(*known, &**texture))
            {
                textures.push(texture);
            }
        }
        // The fences of the clients have come: a surface's commit waits for them.
        self.shared.acquire(&textures, [])?;
        self.encode(target, quads);
        let released = self.shared.release(&textures);
        let _ = self.shared.device().poll(wgpu::PollType::Poll);
        match released {
            Ok(fence) => Ok(fence),
            Err(shared::Error::Vulkan(vk::Error::Missing { .. })) => {
                self.shared.release_wait(&textures, PATIENCE)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn encode(&self, target: &Target, quads: &[Quad<'_>]) {
        let size = [target.buffer.width() as f32, target.buffer.height() as f32];
        let place = |quad: &Quad<'_>| {
            let (x, y) = (quad.place.0 as f32, quad.place.1 as f32);
            let (right, bottom) = (x + quad.size.0 as f32, y + quad.size.1 as f32);
            let (y, bottom) = if quad.source.is_inverted { (bottom, y) } else { (y, bottom) };
            let across = |x: f32| x / size[0] * 2.0 - 1.0;
            let down = |y: f32| 1.0 - y / size[1] * 2.0;
            let opaque = f32::from(quad.is_opaque);
            [across(x), down(y), across(right), down(bottom), opaque]
        };
        let places: Vec<[f32; 5]> = quads.iter().map(place).collect();
        let buffer = wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(&places),
            usage: wgpu::BufferUsages::VERTEX,
        };
        let instances = self.shared.device().create_buffer_init(&buffer);
        let view = target.texture.get().create_view(&Default::default());
        let mut encoder = self.shared.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        if !quads.is_empty() {
            pass.set_vertex_buffer(0, instances.slice(..));
        }
        for (quad, n) in quads.iter().zip(0..) {
            pass.set_bind_group(0, &quad.source.bindings, &[]);
            pass.draw(0..6, n..n + 1);
        }
        drop(pass);
        self.shared.queue().submit([encoder.finish()]);
    }
}

fn extent(width: u32, height: u32) -> wgpu::Extent3d {
    wgpu::Extent3d { width, height, depth_or_array_layers: 1 }
}
