//! A wgpu host program: instance, device, and the work it does.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, Once, PoisonError};
use std::task::{Context, Poll, Waker};

use primeshare::vk::ash::vk;
use primeshare::wgpu::Device;

use crate::support::{Guest, in_guest};

/// What wgpu has passed on of the validation layer.
static COMPLAINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("wgpu_hal::vulkan")
    }

    fn log(&self, record: &log::Record<'_>) {
        // wgpu-hal names the objects in records of their own.
        let text = record.args().to_string();
        if self.enabled(record.metadata()) && !text.starts_with("\tobjects:") {
            let mut complaints = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
            complaints.push(text);
        }
    }

    fn flush(&self) {}
}

/// As [`in_guest`], with wgpu and the validation layer, whose silence is checked when all is gone.
pub(super) fn in_wgpu(test: impl FnOnce(&Guest, &wgpu::Instance)) {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    in_guest(|guest| {
        let complaints = || {
            let mut complaints = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *complaints)
        };
        complaints();
        let instance = instance();
        test(guest, &instance);
        let blind = layer_sees_no_modifiers(&instance);
        drop(instance);
        let mut complaints = complaints();
        if blind {
            complaints.retain(|complaint| !complaint.contains("ImageViewCreateInfo-None-02273"));
        }
        assert_eq!(complaints, [""; 0], "validation layer");
    });
}

/// Whether the driver leaves `VkDrmFormatModifierPropertiesList2EXT` empty, as lavapipe 25.0 does
/// although it is of Vulkan 1.3. The layer asks that list alone on an instance of 1.3, as wgpu's
/// is, and takes every view of an image with a modifier for one without features.
fn layer_sees_no_modifiers(instance: &wgpu::Instance) -> bool {
    let physical = primeshare::wgpu::physical(&adapter(instance)).unwrap();
    let mut old = vk::DrmFormatModifierPropertiesListEXT::default();
    let mut new = vk::DrmFormatModifierPropertiesList2EXT::default();
    let mut properties = vk::FormatProperties2::default()
        .push_next(&mut old)
        .push_next(&mut new);
    // SAFETY: the device has the extension, and is of Vulkan 1.3.
    unsafe {
        physical
            .instance()
            .raw()
            .get_physical_device_format_properties2(
                physical.raw(),
                vk::Format::B8G8R8A8_UNORM,
                &mut properties,
            );
    }
    old.drm_format_modifier_count > 0 && new.drm_format_modifier_count == 0
}

/// An instance by wgpu, with the validation layer. wgpu-hal has it validate synchronisation too.
fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    // What the layer says is passed on for DEBUG only.
    descriptor.flags = wgpu::InstanceFlags::VALIDATION | wgpu::InstanceFlags::DEBUG;
    wgpu::Instance::new(descriptor)
}

/// The adapter that is lavapipe.
pub(super) fn adapter(instance: &wgpu::Instance) -> wgpu::Adapter {
    let adapters = now(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let software =
        |adapter: &wgpu::Adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    adapters.into_iter().find(software).unwrap()
}

pub(super) fn open(instance: &wgpu::Instance) -> Device {
    open_with(instance, wgpu::Features::empty())
}

pub(super) fn open_with(instance: &wgpu::Instance, features: wgpu::Features) -> Device {
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        ..Default::default()
    };
    Device::open(&adapter(instance), &descriptor).unwrap()
}

/// The result of a future that wgpu has ready.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("wgpu lets us wait"),
    }
}

/// Work of a host program with wgpu's texture. Buffers of wgpu have rows of multiples of 256
/// bytes.
pub(super) struct Host<'a>(pub(super) &'a Device);

impl Host<'_> {
    /// Copies out a plane of a texture, and waits for it: its rows, one after the other.
    pub(super) fn read(
        &self,
        texture: &wgpu::Texture,
        aspect: wgpu::TextureAspect,
        (row, rows): (usize, u32),
    ) -> Vec<u8> {
        let bytes = self.begin_read(texture, aspect, (row, rows));
        self.finish_read(&bytes, row)
    }

    /// Submits the copy.
    pub(super) fn begin_read(
        &self,
        texture: &wgpu::Texture,
        aspect: wgpu::TextureAspect,
        (row, rows): (usize, u32),
    ) -> wgpu::Buffer {
        let stride = row.next_multiple_of(256);
        let device = self.0.device();
        let bytes = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: stride as u64 * u64::from(rows),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let size = match aspect {
            wgpu::TextureAspect::Plane1 => wgpu::Extent3d {
                width: texture.width() / 2,
                height: texture.height() / 2,
                depth_or_array_layers: 1,
            },
            _ => texture.size(),
        };
        encoder.copy_texture_to_buffer(
            wgpu::TexelCopyTextureInfo {
                aspect,
                ..texture.as_image_copy()
            },
            wgpu::TexelCopyBufferInfo {
                buffer: &bytes,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(stride as u32),
                    rows_per_image: None,
                },
            },
            size,
        );
        self.0.queue().submit([encoder.finish()]);
        bytes
    }

    /// Waits for the copy.
    pub(super) fn finish_read(&self, bytes: &wgpu::Buffer, row: usize) -> Vec<u8> {
        bytes.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
        let device = self.0.device();
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let mapped = bytes.get_mapped_range(..).unwrap();
        let rows = mapped.chunks_exact(row.next_multiple_of(256));
        rows.flat_map(|bytes| &bytes[..row]).copied().collect()
    }

    /// Draws, over all of a texture's view, what a fragment shader's `picture(x, y)` gives.
    pub(super) fn draw(&self, view: &wgpu::TextureView, format: wgpu::TextureFormat, body: &str) {
        let device = self.0.device();
        let source = format!(
            "@vertex fn corner(@builtin(vertex_index) n: u32) -> @builtin(position) vec4f {{
                return vec4f(f32(n & 1) * 4 - 1, f32(n >> 1) * 4 - 1, 0, 1);
            }}
            @fragment fn pixel(@builtin(position) place: vec4f) -> @location(0) vec4f {{
                let x = u32(place.x);
                let y = u32(place.y);
                {body}
            }}"
        );
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
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
                targets: &[Some(format.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Load,
                    store: wgpu::StoreOp::Store,
                },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&pipeline);
        pass.draw(0..3, 0..1);
        drop(pass);
        self.0.queue().submit([encoder.finish()]);
    }

    /// What a shader samples of each pixel of a view, as bytes of red, green, blue and alpha.
    pub(super) fn sample(&self, view: &wgpu::TextureView, (width, height): (u32, u32)) -> Vec<u8> {
        let device = self.0.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(
                "@group(0) @binding(0) var seen: texture_2d<f32>;
                @group(0) @binding(1) var<storage, read_write> colours: array<u32>;
                @compute @workgroup_size(1) fn look(@builtin(global_invocation_id) at: vec3u) {
                    let colour = textureLoad(seen, at.xy, 0);
                    colours[at.y * textureDimensions(seen).x + at.x] = pack4x8unorm(colour);
                }"
                .into(),
            ),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let size = u64::from(width * height) * 4;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let colours = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let read = buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry {
                    binding: 0,
                    resource: wgpu::BindingResource::TextureView(view),
                },
                wgpu::BindGroupEntry {
                    binding: 1,
                    resource: colours.as_entire_binding(),
                },
            ],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(width, height, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&colours, 0, &read, 0, size);
        self.0.queue().submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |mapped| mapped.unwrap());
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        read.get_mapped_range(..).unwrap().to_vec()
    }
}

/// What is listened for is heard.
#[test]
#[should_panic(expected = "validation layer")]
fn a_validation_message_is_seen() {
    in_wgpu(|_, instance| {
        let device = open(instance);
        let fence = vk::FenceCreateInfo::default();
        // SAFETY: a fence without use; never destroyed, which the layer says at the device's end.
        unsafe { device.vulkan().raw().create_fence(&fence, None) }.unwrap();
    });
}
