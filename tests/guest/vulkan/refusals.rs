//! What Vulkan cannot take, each for its own reason; and the ways round.

use primeshare::alloc::Udmabuf;
use primeshare::buffer::{self, PlaneFd};
use primeshare::negotiate::Usage;
use primeshare::sync::{Access, Mapping};
use primeshare::vk::ash::vk;
use primeshare::vk::{Device, Error, Feature, ImageOrBuffer, Transfer, Use, acquire, release};
use primeshare::{Allocator, BufferDesc, DmaBuf, Fourcc, Modifier, Request};

use super::bytes::{Bytes, run};
use crate::support::{PATIENCE, buffer_on, in_guest, of_two_dma_bufs};

const TILED: Modifier = Modifier(0x0100_0000_0000_0001);

/// The first dma-buf of a buffer, described in another way.
fn described(
    buffer: &DmaBuf,
    layout: BufferDesc,
    planes: &[(u32, u32)],
) -> Result<DmaBuf, buffer::Error> {
    let plane = |&(offset, stride): &(u32, u32)| PlaneFd {
        fd: buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        offset,
        stride,
    };
    DmaBuf::new(layout, planes.iter().map(plane))
}

fn refused(vulkan: &Device, buffer: &DmaBuf) -> Error {
    vulkan.import_image(buffer, Use::Source).unwrap_err()
}

#[test]
fn descriptions_that_do_not_fit_never_reach_vulkan() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let size = buffer.objects()[0].size();
        let linear = BufferDesc::linear(64, 64, Fourcc::XRGB8888);
        let refused = |layout, planes: &[(u32, u32)]| {
            described(&buffer, layout, planes).map(drop).unwrap_err()
        };
        assert_eq!(
            refused(linear, &[(0, 255)]),
            buffer::Error::StrideTooSmall {
                plane: 0,
                stride: 255,
                row_bytes: 256
            }
        );
        let past = |offset, stride| match refused(linear, &[(offset, stride)]) {
            buffer::Error::OutOfBounds { end, .. } => end,
            other => panic!("{other}"),
        };
        let last = u32::try_from(size).unwrap() - 64 * 256;
        assert_eq!(past(last + 4, 256), size + 4);
        assert_eq!(past(last, 260), size + 63 * 4);
        // Near the limits of 32 bits, nothing wraps.
        let most = u64::from(u32::MAX);
        assert_eq!(past(u32::MAX, 256), most + 64 * 256);
        assert_eq!(past(u32::MAX, u32::MAX), most + 63 * most + 256);
        let huge = BufferDesc::linear(u32::MAX, u32::MAX, Fourcc::XRGB8888);
        assert!(matches!(
            refused(huge, &[(0, u32::MAX)]),
            buffer::Error::TooLarge { .. }
        ));
        assert_eq!(
            refused(BufferDesc::linear(64, 64, Fourcc::NV12), &[(0, 64)]),
            buffer::Error::FormatPlaneCount {
                fourcc: Fourcc::NV12,
                expected: 2,
                found: 1
            }
        );
        let file = PlaneFd {
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            offset: 0,
            stride: 256,
        };
        assert_eq!(
            DmaBuf::new(linear, [file]).unwrap_err(),
            buffer::Error::NotADmaBuf { plane: 0 }
        );
    });
}

#[test]
fn modifiers_are_offered_where_the_import_works_too() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let offered = |fourcc, used| vulkan.importable_modifiers(fourcc, used).unwrap();
        let linear = [(Modifier::LINEAR, 16384, 16384)];
        assert_eq!(offered(Fourcc::XRGB8888, Use::Sampled), linear);
        // Mesa 25.0 lists the modifier, and imports no such image.
        let planar = offered(Fourcc::NV12, Use::Sampled);
        assert_eq!(planar.is_empty(), guest.has_old_mesa());
        assert_eq!(offered(Fourcc::NV12, Use::Attachment), []);
        let able = vulkan.capabilities();
        assert!(Feature::IMAGES.into_iter().all(|feature| able.has(feature)));
        // No lavapipe has it.
        assert_eq!(
            able.missing(Feature::AcquireUnmodified),
            ["VK_EXT_external_memory_acquire_unmodified"]
        );
    });
}

#[test]
fn buffers_vulkan_cannot_take_are_refused_with_the_reason() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let device = vulkan.physical().name().to_owned();
        let buffer = buffer_on(&guest.vgem());
        let linear = BufferDesc::linear(64, 64, Fourcc::XRGB8888);
        let described = |layout, planes: &[(u32, u32)]| {
            refused(&vulkan, &described(&buffer, layout, planes).unwrap())
        };
        let modifier = Modifier::INVALID;
        let implicit = described(linear.with_modifier(modifier), &[(0, 256)]);
        assert_eq!(implicit, Error::ImplicitModifier);
        assert_eq!(
            described(linear.with_modifier(TILED), &[(0, 256)]),
            Error::Modifier {
                device: device.clone(),
                fourcc: Fourcc::XRGB8888,
                modifier: TILED
            }
        );
        let fourcc = Fourcc::new(b"ABCD");
        let unknown = described(linear.with_fourcc(fourcc), &[(0, 256)]);
        assert_eq!(unknown, Error::Format(fourcc));
        let fourcc = Fourcc::ABGR1555;
        let newer = described(linear.with_fourcc(fourcc), &[(0, 256)]);
        assert_eq!(
            newer,
            Error::FormatExtension {
                fourcc,
                extension: "VK_KHR_maintenance5".to_owned()
            }
        );
        // Parts of a pixel more from row to row, and parts of a pixel from the start.
        let small = BufferDesc::linear(32, 32, Fourcc::XRGB8888);
        for (offset, stride) in [(0, 257), (0, 258), (1, 256), (2, 256)] {
            assert_eq!(
                described(small, &[(offset, stride)]),
                Error::Layout(buffer::Error::Misaligned {
                    plane: 0,
                    offset,
                    stride,
                    unit: 4
                })
            );
        }
        // Two rows that fit, but the driver counts the second one with its padding.
        let size = buffer.objects()[0].size();
        let stride = u32::try_from(size).unwrap() - 64;
        let tight = described(BufferDesc::linear(1, 2, Fourcc::XRGB8888), &[(0, stride)]);
        assert!(matches!(
            tight,
            Error::TooSmall { needed, available } if needed > size && available == size
        ));
        let wide = Udmabuf::open().unwrap();
        let wide = wide
            .allocate(&Request::new(1 << 20, 1, Fourcc::R8))
            .unwrap();
        assert!(matches!(refused(&vulkan, &wide), Error::TooLarge { .. }));
        // YCbCr is not for drawing into.
        let nv12 = Udmabuf::open().unwrap();
        let nv12 = nv12.allocate(&Request::new(64, 64, Fourcc::NV12)).unwrap();
        assert!(matches!(
            vulkan.import_image(&nv12, Use::Attachment).unwrap_err(),
            Error::NotImportable { usage, .. } if usage == Use::Attachment.usage()
        ));
    });
}

#[test]
fn memory_that_is_not_rows_of_one_dma_buf_is_no_vk_buffer() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let usage = vk::BufferUsageFlags::TRANSFER_SRC;
        let linear = BufferDesc::linear(64, 64, Fourcc::XRGB8888);
        let import = |modifier| {
            let other = described(&buffer, linear.with_modifier(modifier), &[(0, 256)]).unwrap();
            vulkan.import_buffer(&other, usage).unwrap_err()
        };
        assert_eq!(import(TILED), Error::NotLinear(TILED));
        assert_eq!(import(Modifier::INVALID), Error::ImplicitModifier);
        let both = of_two_dma_bufs(&buffer, &buffer_on(&vgem));
        let several = vulkan.import_buffer(&both, usage).unwrap_err();
        assert_eq!(several, Error::SeveralDmaBufs(2));
        let neither = vulkan.import_image_or_buffer(&both, Use::Source, usage);
        assert!(
            matches!(&neither, Err(Error::NeitherImageNorBuffer { buffer, .. })
                if **buffer == several),
            "{neither:?}"
        );
    });
}

#[test]
fn what_is_no_image_may_be_bytes() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let udmabuf = Udmabuf::open().unwrap();
        let bytes = vk::BufferUsageFlags::TRANSFER_SRC;
        let odd = udmabuf
            .allocate(&Request::new(33, 17, Fourcc::NV12))
            .unwrap();
        match vulkan
            .import_image_or_buffer(&odd, Use::Source, bytes)
            .unwrap()
        {
            ImageOrBuffer::Buffer { buffer, refused } => {
                assert!(matches!(refused, Error::OddSize { .. }));
                // Not what the dma-buf has after the picture.
                let chroma = odd.planes()[1];
                let end = chroma.offset + 8 * chroma.stride + 34;
                assert_eq!(buffer.size(), u64::from(end));
                assert!(buffer.size() < odd.objects()[0].size());
            }
            ImageOrBuffer::Image(image) => panic!("{image:?}"),
        }
        let even = udmabuf.allocate(&Request::new(33, 17, Fourcc::R8)).unwrap();
        let imported = vulkan.import_image_or_buffer(&even, Use::Source, bytes);
        assert!(matches!(imported, Ok(ImageOrBuffer::Image(_))));
    });
}

#[test]
fn planes_in_different_dma_bufs_are_images_of_their_own() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let (luma, chroma) = (buffer_on(&guest.vgem()), buffer_on(&guest.vkms()));
        let both = of_two_dma_bufs(&luma, &chroma);
        for (plane, (width, height, texel)) in [(64, 64, 1), (32, 32, 2)].into_iter().enumerate() {
            let seed = plane as u8;
            let picture: Vec<u8> = (0..64 * height)
                .map(|n| (n * 7 + n / 64) as u8 ^ seed)
                .collect();
            let mut mapping = Mapping::new(&both.objects()[plane]).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            access.write(0, &picture).unwrap();
            drop(access);
            let image = vulkan.import_plane(&both, plane, Use::Source).unwrap();
            assert_eq!(
                (image.extent().width, image.extent().height),
                (width, height as u32)
            );
            let mut bytes = Bytes::new(&vulkan, (width * height as u32 * texel) as usize);
            let region = [vk::BufferImageCopy::default()
                .image_subresource(
                    vk::ImageSubresourceLayers::default()
                        .aspect_mask(vk::ImageAspectFlags::COLOR)
                        .layer_count(1),
                )
                .image_extent(image.extent())];
            let transfer = [Transfer::image(&image, Use::Source)];
            run(&vulkan, |raw, commands| {
                // SAFETY: see `run`.
                unsafe {
                    acquire(commands, &transfer);
                    let layout = Use::Source.layout();
                    let to = bytes.raw();
                    raw.cmd_copy_image_to_buffer(commands, image.raw(), layout, to, &region);
                    release(commands, &transfer);
                }
            });
            assert!(bytes.contents() == picture, "plane {plane} differs");
        }
        assert_eq!(
            vulkan.import_plane(&both, 2, Use::Source).unwrap_err(),
            Error::NoPlane {
                fourcc: Fourcc::NV12,
                plane: 2,
                planes: 2
            }
        );
        let refused = vulkan.import_plane(&luma, 0, Use::Source).unwrap_err();
        assert!(matches!(refused, Error::NoPlane { planes: 0, .. }));
        // As one image it would be disjoint, which lavapipe does not do.
        let refused = self::refused(&vulkan, &both);
        assert!(
            matches!(
                refused,
                Error::Disjoint { dma_bufs: 2, .. } | Error::NotImportable { .. }
            ),
            "{refused}"
        );
    });
}

/// Drivers must not be asked about a usage of nothing; the validation layer finds it.
#[test]
fn a_usage_of_nothing_is_refused_before_the_driver_is_asked() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let buffer = buffer_on(&guest.vgem());
        let (image, bytes) = (vk::ImageUsageFlags::empty(), vk::BufferUsageFlags::empty());
        let fourcc = Fourcc::XRGB8888;
        let linear = [Modifier::LINEAR];
        let refusals = [
            vulkan.import_image(&buffer, image).unwrap_err(),
            vulkan.import_buffer(&buffer, bytes).unwrap_err(),
            vulkan.importable_modifiers(fourcc, image).unwrap_err(),
            vulkan
                .create_image(64, 64, fourcc, &linear, image)
                .unwrap_err(),
            vulkan.create_buffer(64, 64, fourcc, bytes).unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal, Error::NoUsage);
        }
        // Scanning out is none of Vulkan's uses.
        vulkan.endpoint(Usage::SCANOUT).unwrap();
    });
}
