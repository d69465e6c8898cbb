//! Pixels across: from the CPU to wgpu and back, and from one device to another.

use std::sync::Arc;

use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::vk;
use primeshare::wgpu::Error;
use primeshare::{Allocator, Modifier};
use wgpu::TextureAspect;

use super::*;
use crate::support::{PATIENCE, left_out};

/// A pixel of each place, in 8 bits a component, opaque.
const PLACES: &str =
    "return vec4f(f32(x & 255) / 255, f32(y & 255) / 255, f32((x >> 8) * 16 + 5) / 255, 1);";

/// The bytes that [`PLACES`] draws into XRGB8888.
fn places(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [((x >> 8) * 16 + 5) as u8, y as u8, x as u8, 255];
    let row = move |y| (0..width).flat_map(move |x| pixel(x, y));
    (0..height).flat_map(row).collect()
}

/// Width of a row in bytes, and rows.
fn extent(buffer: &DmaBuf) -> (usize, u32) {
    (rows(buffer, 0)[0].1, buffer.height())
}

#[test]
fn wgpu_reads_what_the_cpu_wrote() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let host = Host(&device);
        let vgem = guest.vgem();
        let allocators: [Box<dyn Allocator>; 2] = [
            Box::new(Dumb::new(&vgem)),
            Box::new(Udmabuf::open().unwrap()),
        ];
        let formats = [
            Fourcc::XRGB8888,
            Fourcc::ABGR8888,
            Fourcc::XBGR2101010,
            Fourcc::ABGR16161616F,
            Fourcc::R8,
            Fourcc::GR88,
        ];
        for allocator in &allocators {
            for fourcc in formats {
                for (width, height) in SIZES {
                    let what = format!("{} {fourcc} {width}x{height}", allocator.name());
                    let request = Request::new(width, height, fourcc);
                    let buffer = allocator.allocate(&request).unwrap();
                    let usages = TextureUsages::COPY_SRC | TextureUsages::TEXTURE_BINDING;
                    let texture = device.import(&buffer, usages).unwrap();
                    // Again after a release: the contents are kept both times.
                    for seed in [1, 2] {
                        let wrote = cpu_writes(&buffer, 0, seed);
                        device.acquire(&[&texture], []).unwrap();
                        let read = host.read(texture.get(), TextureAspect::All, extent(&buffer));
                        assert!(read == wrote, "{what}, round {seed}");
                        device.release_wait(&[&texture], PATIENCE).unwrap();
                        assert!(cpu_reads(&buffer, 0) == wrote, "{what}: changed");
                    }
                }
            }
        }
    });
}

#[test]
fn shaders_sample_what_the_cpu_wrote() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let host = Host(&device);
        let request = Request::new(40, 30, Fourcc::ABGR8888);
        let buffer = Dumb::new(&guest.vkms()).allocate(&request).unwrap();
        let wrote = cpu_writes(&buffer, 0, 9);
        let used = TextureUse::from(TextureUsages::TEXTURE_BINDING).with_srgb();
        let texture = device.import(&buffer, used).unwrap();
        device.acquire(&[&texture], []).unwrap();
        let view = texture.get().create_view(&Default::default());
        assert_eq!(host.sample(&view, (40, 30)), wrote);
        let decoded = texture.get().create_view(&TextureViewDescriptor {
            format: Some(wgpu::TextureFormat::Rgba8UnormSrgb),
            ..Default::default()
        });
        let decoded = host.sample(&decoded, (40, 30));
        for (decoded, wrote) in decoded.chunks(4).zip(wrote.chunks(4)) {
            let linear = |byte: u8| match f32::from(byte) / 255.0 {
                dark if dark <= 0.04045 => dark / 12.92,
                light => ((light + 0.055) / 1.055).powf(2.4),
            };
            for (decoded, wrote) in decoded.iter().zip(&wrote[..3]) {
                let wanted = linear(*wrote) * 255.0;
                assert!((f32::from(*decoded) - wanted).abs() < 1.0);
            }
            assert_eq!(decoded[3], wrote[3]);
        }
        device.release_wait(&[&texture], PATIENCE).unwrap();
    });
}

#[test]
fn the_cpu_reads_what_wgpu_drew() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let host = Host(&device);
        let vkms = guest.vkms();
        let allocators: [Box<dyn Allocator>; 2] = [
            Box::new(Dumb::new(&vkms)),
            Box::new(Udmabuf::open().unwrap()),
        ];
        for allocator in &allocators {
            for (width, height) in SIZES {
                let request = Request::new(width, height, Fourcc::XRGB8888);
                let buffer = allocator.allocate(&request).unwrap();
                let usages = TextureUsages::RENDER_ATTACHMENT;
                let texture = device.import(&buffer, usages).unwrap();
                device.acquire(&[&texture], []).unwrap();
                let view = texture.get().create_view(&Default::default());
                host.draw(&view, texture.get().format(), PLACES);
                device.release_wait(&[&texture], PATIENCE).unwrap();
                assert!(
                    cpu_reads(&buffer, 0) == places(width, height),
                    "{} {width}x{height}",
                    allocator.name()
                );
            }
        }
    });
}

#[test]
fn parts_that_wgpu_does_not_write_keep_what_the_cpu_wrote() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let buffer = Dumb::new(&guest.vgem())
            .allocate(&Request::new(64, 64, Fourcc::ABGR8888))
            .unwrap();
        let mut wanted = cpu_writes(&buffer, 0, 77);
        // Parked in a state that is for writing only.
        let texture = device.import(&buffer, TextureUsages::COPY_DST).unwrap();
        device.acquire(&[&texture], []).unwrap();
        device.queue().write_texture(
            wgpu::TexelCopyTextureInfo {
                origin: wgpu::Origin3d { x: 3, y: 5, z: 0 },
                ..texture.get().as_image_copy()
            },
            &[0x5a; 10 * 4],
            wgpu::TexelCopyBufferLayout {
                offset: 0,
                bytes_per_row: Some(10 * 4),
                rows_per_image: None,
            },
            wgpu::Extent3d {
                width: 10,
                height: 1,
                depth_or_array_layers: 1,
            },
        );
        device.release_wait(&[&texture], PATIENCE).unwrap();
        let start = (5 * 64 + 3) * 4;
        wanted[start..start + 40].fill(0x5a);
        assert!(cpu_reads(&buffer, 0) == wanted);
    });
}

#[test]
fn a_texture_made_by_wgpu_is_read_by_drm_devices_and_by_another_wgpu_device() {
    in_wgpu(|guest, instance| {
        let (device, other) = (host::open(instance), host::open(instance));
        let usages = TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC;
        for (width, height) in SIZES {
            let request = Request::new(width, height, Fourcc::XRGB8888);
            let (texture, buffer) = device.create(&request, usages).unwrap();
            assert_eq!(buffer.modifier(), Modifier::LINEAR);
            device.acquire(&[&texture], []).unwrap();
            let view = texture.get().create_view(&Default::default());
            Host(&device).draw(&view, texture.get().format(), PLACES);
            let done = device.release(&[&texture]).unwrap();

            let imported = other.import(&buffer, TextureUsages::COPY_SRC).unwrap();
            other.acquire(&[&imported], done).unwrap();
            let read = Host(&other).read(imported.get(), TextureAspect::All, extent(&buffer));
            assert!(read == places(width, height), "{width}x{height}");
            other.release_wait(&[&imported], PATIENCE).unwrap();

            for drm in [guest.vgem(), guest.vkms()] {
                let import = drm.import(&buffer).unwrap();
                assert_eq!(import.origin(), primeshare::gem::ImportOrigin::New);
            }
            assert!(cpu_reads(&buffer, 0) == places(width, height));
        }
    });
}

#[test]
fn textures_outlive_their_buffers_devices_and_work_under_way() {
    in_wgpu(|guest, instance| {
        let usages = TextureUsages::RENDER_ATTACHMENT | TextureUsages::COPY_SRC;
        for order in 0..4 {
            let device = host::open(instance);
            let buffer = Dumb::new(&guest.vgem())
                .allocate(&Request::new(256, 256, Fourcc::XRGB8888))
                .unwrap();
            let texture = device.import(&buffer, usages).unwrap();
            drop(buffer);
            device.acquire(&[&texture], []).unwrap();
            let view = texture.get().create_view(&Default::default());
            Host(&device).draw(&view, texture.get().format(), PLACES);
            match order {
                0 => drop((device, texture, view)),
                1 => drop((view, texture, device)),
                2 => {
                    texture.get().destroy();
                    drop((device, texture, view));
                }
                _ => {
                    let (image, vulkan) = (texture.image().raw(), device.vulkan().clone());
                    assert_ne!(image, Default::default());
                    device.release(&[&texture]).unwrap();
                    drop((view, texture, device, vulkan));
                }
            }
        }
    });
}

#[test]
fn a_buffer_in_use_is_one_texture_for_each_use() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let buffer = crate::support::buffer_on(&guest.vgem());
        let first = device.texture(&buffer, TextureUsages::COPY_SRC).unwrap();
        let again = device.texture(&buffer, TextureUsages::COPY_SRC).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = device.texture(&buffer, TextureUsages::COPY_DST).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        let gone = Arc::downgrade(&first);
        drop((first, again));
        assert_eq!(gone.strong_count(), 0);
    });
}

#[test]
fn threads_share_one_queue() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let vgem = guest.vgem();
        let draw = |seed: u32| {
            for round in 0..10 {
                let request = Request::new(48, 20, Fourcc::XRGB8888);
                let buffer = Dumb::new(&vgem).allocate(&request).unwrap();
                let texture = device
                    .import(&buffer, TextureUsages::RENDER_ATTACHMENT)
                    .unwrap();
                device.acquire(&[&texture], []).unwrap();
                let view = texture.get().create_view(&Default::default());
                let value = seed * 16 + round;
                let body = format!("return vec4f(f32({value}) / 255);");
                Host(&device).draw(&view, texture.get().format(), &body);
                let done = device.release(&[&texture]).unwrap();
                device.acquire(&[&texture], done).unwrap();
                device.release_wait(&[&texture], PATIENCE).unwrap();
                assert!(
                    cpu_reads(&buffer, 0)
                        .iter()
                        .all(|byte| u32::from(*byte) == value)
                );
            }
        };
        std::thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || draw(seed));
            }
        });
    });
}

#[test]
fn planes_of_video_frames_are_seen_one_by_one() {
    in_wgpu(|guest, instance| {
        let device = host::open_with(instance, wgpu::Features::TEXTURE_FORMAT_NV12);
        let host = Host(&device);
        let request = Request::new(66, 34, Fourcc::NV12);
        let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let usages = TextureUsages::TEXTURE_BINDING;
        let texture = match device.import(&buffer, usages) {
            // Mesa 25.0 lists the modifier and then refuses the image.
            Err(Error::Vulkan(vk::Error::NotImportable { fourcc, .. })) if guest.has_old_mesa() => {
                assert_eq!(fourcc, Fourcc::NV12);
                return left_out("a newer Mesa than 25.0");
            }
            texture => texture.unwrap(),
        };
        let (luma, chroma) = (cpu_writes(&buffer, 0, 3), cpu_writes(&buffer, 1, 4));
        device.acquire(&[&texture], []).unwrap();
        let view = |aspect, format| {
            texture.get().create_view(&TextureViewDescriptor {
                aspect,
                format: Some(format),
                ..Default::default()
            })
        };
        let view0 = view(TextureAspect::Plane0, wgpu::TextureFormat::R8Unorm);
        let view1 = view(TextureAspect::Plane1, wgpu::TextureFormat::Rg8Unorm);
        let seen = host.sample(&view0, (66, 34));
        assert!(
            seen.chunks(4)
                .zip(&luma)
                .all(|(seen, luma)| seen[0] == *luma)
        );
        let seen = host.sample(&view1, (33, 17));
        assert!(
            seen.chunks(4)
                .zip(chroma.chunks(2))
                .all(|(seen, two)| seen[..2] == *two)
        );
        device.release_wait(&[&texture], PATIENCE).unwrap();
    });
}
