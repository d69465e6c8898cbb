//! What shaders see: alpha forced to one, sRGB decoded, YCbCr converted.

use primeshare::alloc::Udmabuf;
use primeshare::sync::Mapping;
use primeshare::vk::ash::vk;
use primeshare::vk::{
    Device, Error, Image, ImageUsage, ImageView, Transfer, Use, YcbcrColors, YcbcrSampler, acquire,
    release,
};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use super::bytes::{Bytes, cpu_write, extents, run};
use crate::support::{Guest, in_guest};

/// A compute shader that samples binding 0 in its middle and writes the colour to binding 1.
#[rustfmt::skip]
fn shader() -> Vec<u32> {
    const MAIN: &[u32] = &[u32::from_le_bytes(*b"main"), 0];
    let (main, void, function, float, vec2, vec4) = (1, 2, 3, 4, 5, 6);
    let (image, sampled, to_sampled, texture) = (7, 8, 9, 10);
    let (block, to_block, result, to_vec4, int) = (11, 12, 13, 14, 15);
    let (zero, half, none, middle, label, loaded, color, place) = (16, 17, 18, 19, 20, 21, 22, 23);
    let mut words = vec![0x0723_0203, 0x0001_0000, 0, 24, 0];
    let mut op = |code: u32, operands: &[u32]| {
        words.push((operands.len() as u32 + 1) << 16 | code);
        words.extend_from_slice(operands);
    };
    op(17, &[1]);                                       // OpCapability Shader
    op(14, &[0, 1]);                                    // OpMemoryModel Logical GLSL450
    op(15, &[&[5, main], MAIN].concat());               // OpEntryPoint GLCompute
    op(16, &[main, 17, 1, 1, 1]);                       // OpExecutionMode LocalSize
    for (variable, binding) in [(texture, 0), (result, 1)] {
        op(71, &[variable, 34, 0]);                     // OpDecorate DescriptorSet
        op(71, &[variable, 33, binding]);               // OpDecorate Binding
    }
    op(71, &[block, 3]);                                // OpDecorate BufferBlock
    op(72, &[block, 0, 35, 0]);                         // OpMemberDecorate Offset
    op(19, &[void]);                                    // OpTypeVoid
    op(33, &[function, void]);                          // OpTypeFunction
    op(22, &[float, 32]);                               // OpTypeFloat
    op(23, &[vec2, float, 2]);                          // OpTypeVector
    op(23, &[vec4, float, 4]);
    op(25, &[image, float, 1, 0, 0, 0, 1, 0]);          // OpTypeImage 2D, sampled
    op(27, &[sampled, image]);                          // OpTypeSampledImage
    op(32, &[to_sampled, 0, sampled]);                  // OpTypePointer UniformConstant
    op(59, &[to_sampled, texture, 0]);                  // OpVariable
    op(30, &[block, vec4]);                             // OpTypeStruct
    op(32, &[to_block, 2, block]);                      // OpTypePointer Uniform
    op(59, &[to_block, result, 2]);
    op(32, &[to_vec4, 2, vec4]);
    op(21, &[int, 32, 1]);                              // OpTypeInt
    op(43, &[int, zero, 0]);                            // OpConstant
    op(43, &[float, half, 0.5f32.to_bits()]);
    op(43, &[float, none, 0]);
    op(44, &[vec2, middle, half, half]);                // OpConstantComposite
    op(54, &[void, main, 0, function]);                 // OpFunction
    op(248, &[label]);                                  // OpLabel
    op(61, &[sampled, loaded, texture]);                // OpLoad
    op(88, &[vec4, color, loaded, middle, 2, none]);    // OpImageSampleExplicitLod Lod
    op(65, &[to_vec4, place, result, zero]);            // OpAccessChain
    op(62, &[place, color]);                            // OpStore
    op(253, &[]);                                       // OpReturn
    op(56, &[]);                                        // OpFunctionEnd
    words
}

/// The colour in the middle of an image, as a shader sees it.
fn sample(device: &Device, image: &Image, view: &ImageView, sampler: vk::Sampler) -> [f32; 4] {
    let raw = device.raw();
    let mut bytes = Bytes::with_usage(device, 16, vk::BufferUsageFlags::STORAGE_BUFFER);
    let samplers = [sampler];
    let bindings = [
        vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(vk::DescriptorType::COMBINED_IMAGE_SAMPLER)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .immutable_samplers(&samplers),
        vk::DescriptorSetLayoutBinding::default()
            .binding(1)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE),
    ];
    // Conversions may need one for each plane.
    let sizes = [
        vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::COMBINED_IMAGE_SAMPLER)
            .descriptor_count(3),
        vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1),
    ];
    // SAFETY: plain creation, use and destruction, waited for in `run`.
    unsafe {
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let set_layouts = [raw.create_descriptor_set_layout(&info, None).unwrap()];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&set_layouts);
        let layout = raw.create_pipeline_layout(&info, None).unwrap();
        let code = shader();
        let info = vk::ShaderModuleCreateInfo::default().code(&code);
        let module = raw.create_shader_module(&info, None).unwrap();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = [vk::ComputePipelineCreateInfo::default()
            .stage(stage)
            .layout(layout)];
        let pipelines = raw.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
        let pipeline = pipelines.unwrap()[0];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(1)
            .pool_sizes(&sizes);
        let pool = raw.create_descriptor_pool(&info, None).unwrap();
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(pool)
            .set_layouts(&set_layouts);
        let sets = raw.allocate_descriptor_sets(&info).unwrap();
        let seen = [vk::DescriptorImageInfo::default()
            .image_view(view.raw())
            .image_layout(Use::Sampled.layout())];
        let written = [vk::DescriptorBufferInfo::default()
            .buffer(bytes.raw())
            .range(16)];
        let write = vk::WriteDescriptorSet::default().dst_set(sets[0]);
        let writes = [
            write
                .descriptor_type(vk::DescriptorType::COMBINED_IMAGE_SAMPLER)
                .image_info(&seen),
            write
                .dst_binding(1)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .buffer_info(&written),
        ];
        raw.update_descriptor_sets(&writes, &[]);
        let transfer = [Transfer::image(image, Use::Sampled)];
        let point = vk::PipelineBindPoint::COMPUTE;
        run(device, |raw, commands| {
            acquire(commands, &transfer);
            raw.cmd_bind_pipeline(commands, point, pipeline);
            raw.cmd_bind_descriptor_sets(commands, point, layout, 0, &sets, &[]);
            raw.cmd_dispatch(commands, 1, 1, 1);
            release(commands, &transfer);
        });
        raw.destroy_descriptor_pool(pool, None);
        raw.destroy_pipeline(pipeline, None);
        raw.destroy_shader_module(module, None);
        raw.destroy_pipeline_layout(layout, None);
        raw.destroy_descriptor_set_layout(set_layouts[0], None);
    }
    let float = |four: &[u8]| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    let colors: Vec<f32> = bytes.contents().chunks(4).map(float).collect();
    [colors[0], colors[1], colors[2], colors[3]]
}

/// As [`sample`], with a sampler of no consequence.
fn sample_plain(device: &Device, image: &Image, view: &ImageView) -> [f32; 4] {
    let info = vk::SamplerCreateInfo::default();
    // SAFETY: plain creation; destroyed when the sampling is over.
    unsafe {
        let sampler = device.raw().create_sampler(&info, None).unwrap();
        let color = sample(device, image, view, sampler);
        device.raw().destroy_sampler(sampler, None);
        color
    }
}

/// A picture of one colour: for each plane, the bytes that it repeats.
fn filled(fourcc: Fourcc, planes: &[&[u8]]) -> DmaBuf {
    let udmabuf = Udmabuf::open().unwrap();
    let buffer = udmabuf.allocate(&Request::new(16, 16, fourcc)).unwrap();
    let mut bytes = Vec::new();
    for (pattern, (row, rows)) in planes.iter().zip(extents(&buffer)) {
        bytes.extend(pattern.iter().cycle().take(row * rows));
    }
    cpu_write(
        &buffer,
        &mut Mapping::new(&buffer.objects()[0]).unwrap(),
        &bytes,
    );
    buffer
}

fn assert_close(seen: [f32; 4], expected: [f32; 4], what: &str) {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 0.02;
    assert!(
        seen.iter().zip(&expected).all(close),
        "{what}: {seen:?} instead of {expected:?}"
    );
}

#[test]
fn formats_without_alpha_are_opaque_and_colours_come_in_order() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let (red, green, blue) = (1.0, 0.502, 0.063);
        let bytes: [(Fourcc, [u8; 4], f32); 6] = [
            (Fourcc::XRGB8888, [0x10, 0x80, 0xff, 0x00], 1.0),
            (Fourcc::ARGB8888, [0x10, 0x80, 0xff, 0x40], 0.251),
            (Fourcc::XBGR8888, [0xff, 0x80, 0x10, 0x00], 1.0),
            (Fourcc::ABGR8888, [0xff, 0x80, 0x10, 0x40], 0.251),
            (Fourcc::RGBX8888, [0x00, 0x10, 0x80, 0xff], 1.0),
            (Fourcc::BGRA8888, [0x40, 0xff, 0x80, 0x10], 0.251),
        ];
        for (fourcc, pixel, alpha) in bytes {
            let buffer = filled(fourcc, &[&pixel]);
            let image = vulkan.import_image(&buffer, Use::Sampled).unwrap();
            let view = image.view(Use::Sampled).unwrap();
            let seen = sample_plain(&vulkan, &image, &view);
            assert_close(seen, [red, green, blue, alpha], &fourcc.to_string());
        }
    });
}

#[test]
fn an_srgb_view_decodes_the_same_memory() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let buffer = filled(Fourcc::XRGB8888, &[&[0x10, 0x80, 0xff, 0x00]]);
        let usage = Use::Sampled.usage() | Use::Storage.usage();
        let image = vulkan
            .import_image(&buffer, ImageUsage::from(usage).with_srgb())
            .unwrap();
        let view = image.srgb_view(Use::Sampled).unwrap();
        assert_eq!(view.format(), vk::Format::B8G8R8A8_SRGB);
        let seen = sample_plain(&vulkan, &image, &view);
        assert_close(seen, [1.0, 0.216, 0.005, 1.0], "decoded");
        let plain = image.view(Use::Sampled).unwrap();
        let seen = sample_plain(&vulkan, &image, &plain);
        assert_close(seen, [1.0, 0.502, 0.063, 1.0], "as it is");
        image.view(Use::Storage).unwrap();
    });
}

#[test]
fn views_that_cannot_be_are_refused() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let refused = |fourcc, used, srgb: bool| {
            let buffer = filled(fourcc, &[&[0; 4]]);
            let image =
                vulkan.import_image(&buffer, Use::Sampled.usage() | Use::Attachment.usage());
            let image = image.unwrap();
            let view = match srgb {
                true => image.srgb_view(used),
                false => image.view(used),
            };
            matches!(view, Err(Error::View { .. }))
        };
        assert!(
            refused(Fourcc::XRGB8888, Use::Storage, false),
            "not imported for it"
        );
        assert!(
            refused(Fourcc::XRGB8888, Use::Source, false),
            "not a view's use"
        );
        assert!(
            refused(Fourcc::XRGB8888, Use::Sampled, true),
            "sRGB not asked for"
        );
        assert!(
            refused(Fourcc::RGBX8888, Use::Attachment, false),
            "colours in another order"
        );
        assert!(!refused(Fourcc::XRGB8888, Use::Attachment, false));
    });
}

/// Red in narrow BT.601.
const RED: [u8; 3] = [81, 90, 240];

fn ycbcr_pictures() -> [(Fourcc, Vec<Vec<u8>>); 6] {
    let [y, cb, cr] = RED;
    // In the upper bits of 16.
    let wide = |value: u8| [0, value];
    [
        (Fourcc::NV12, vec![vec![y], vec![cb, cr]]),
        (Fourcc::NV21, vec![vec![y], vec![cr, cb]]),
        (
            Fourcc::P010,
            vec![wide(y).to_vec(), [wide(cb), wide(cr)].concat()],
        ),
        (Fourcc::YUV420, vec![vec![y], vec![cb], vec![cr]]),
        (Fourcc::YVU420, vec![vec![y], vec![cr], vec![cb]]),
        (Fourcc::YUYV, vec![vec![y, cb, y, cr]]),
    ]
}

#[test]
fn ycbcr_is_converted_when_sampled() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let colors = YcbcrColors {
            model: vk::SamplerYcbcrModelConversion::YCBCR_601,
            ..YcbcrColors::default()
        };
        for (fourcc, planes) in ycbcr_pictures() {
            let planes: Vec<&[u8]> = planes.iter().map(Vec::as_slice).collect();
            let buffer = filled(fourcc, &planes);
            let image = match vulkan.import_image(&buffer, Use::Sampled) {
                Err(Error::NotImportable { .. }) if is_refused(guest, &planes) => continue,
                image => image.unwrap(),
            };
            let sampler = YcbcrSampler::new(&vulkan, fourcc, colors).unwrap();
            let view = image.ycbcr_view(&sampler).unwrap();
            let seen = sample(&vulkan, &image, &view, sampler.raw());
            assert_close(seen, [1.0, 0.0, 0.0, 1.0], &fourcc.to_string());
            assert!(matches!(image.view(Use::Sampled), Err(Error::View { .. })));
        }
        let rgb = YcbcrSampler::new(&vulkan, Fourcc::XRGB8888, colors);
        assert!(matches!(rgb, Err(Error::View { .. })));
    });
}

/// Mesa 25.0 imports no images of several planes.
fn is_refused(guest: &Guest, planes: &[&[u8]]) -> bool {
    guest.has_old_mesa() && planes.len() > 1
}
