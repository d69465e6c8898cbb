//! Buffers that Vulkan allocates.

use primeshare::alloc;
use primeshare::gem::ImportOrigin;
use primeshare::sync::Mapping;
use primeshare::vk::ash::vk;
use primeshare::vk::{Error, ImageAllocator, Use, initialize};
use primeshare::{Allocator, Fourcc, Modifier, Request};

use super::bytes::{Bytes, bytes_to_image, cpu_has, gradient, packed_size, run};
use crate::support::in_guest;

const TILED: Modifier = Modifier(0x0100_0000_0000_0001);

#[test]
fn an_image_is_of_a_modifier_that_was_asked_for_and_its_buffer_says_which() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let modifiers = [TILED, Modifier::LINEAR];
        let usage = vk::ImageUsageFlags::TRANSFER_DST | vk::ImageUsageFlags::SAMPLED;
        let (image, buffer) = vulkan
            .create_image(100, 50, Fourcc::XRGB8888, &modifiers, usage)
            .unwrap();
        assert_eq!(buffer.modifier(), Modifier::LINEAR);
        assert_eq!(image.desc(), buffer.desc());
        // lavapipe makes it without close-on-exec.
        let flags = crate::kernel::flags(buffer.plane_fd(0).unwrap());
        assert_eq!(flags, (true, true));
        // Everybody has it: what Vulkan draws, the CPU and another device see.
        run(&vulkan, |_, commands| {
            // SAFETY: see `run`.
            unsafe { initialize(commands, &image) };
        });
        let mut bytes = Bytes::new(&vulkan, packed_size(&buffer));
        let picture = gradient(&buffer, 77);
        bytes.contents().copy_from_slice(&picture);
        bytes_to_image(&bytes, &image, &buffer);
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        assert!(cpu_has(&buffer, &mut mapping, &picture));
        assert_eq!(
            guest.vkms().import(&buffer).unwrap().origin(),
            ImportOrigin::New
        );
        // The buffer keeps the memory without the image and the device.
        drop((image, bytes, vulkan));
        assert!(cpu_has(&buffer, &mut mapping, &picture));
    });
}

#[test]
fn what_vulkan_does_not_allocate_is_refused_with_the_reason() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let create = |width, height, fourcc, modifiers: &[Modifier]| {
            let created = vulkan.create_image(width, height, fourcc, modifiers, Use::Sampled);
            created.map(drop).unwrap_err()
        };
        assert_eq!(
            create(64, 64, Fourcc::XRGB8888, &[TILED, Modifier::INVALID]),
            Error::NotExportable {
                device: vulkan.physical().name().to_owned(),
                fourcc: Fourcc::XRGB8888,
                modifiers: vec![TILED, Modifier::INVALID],
                usage: vk::ImageUsageFlags::SAMPLED,
            }
        );
        let unknown = Fourcc::new(b"ABCD");
        let linear = [Modifier::LINEAR];
        assert_eq!(create(64, 64, unknown, &linear), Error::Format(unknown));
        let empty = create(0, 64, Fourcc::R8, &linear);
        assert!(matches!(
            empty,
            Error::Describe(primeshare::buffer::Error::Empty { .. })
        ));
        let wide = create(1 << 20, 1, Fourcc::R8, &linear);
        assert!(matches!(wide, Error::TooLarge { .. }));
        let exporter = ImageAllocator::new(&vulkan, Use::Sampled);
        let tiled = Request::new(64, 64, Fourcc::XRGB8888).modifiers([TILED]);
        assert_eq!(
            exporter.allocate(&tiled).unwrap_err(),
            alloc::Error::Modifiers {
                allocator: "vulkan",
                modifiers: vec![TILED]
            }
        );
    });
}

#[test]
fn many_allocations_leave_nothing_behind() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let exporter = ImageAllocator::new(&vulkan, Use::Source);
        for _ in 0..200 {
            exporter
                .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
                .unwrap();
            let usage = vk::BufferUsageFlags::TRANSFER_SRC;
            vulkan.create_buffer(64, 64, Fourcc::NV12, usage).unwrap();
        }
    });
}
