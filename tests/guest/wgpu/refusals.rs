//! What is refused, and that it is said why.

use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::vk::{self, Feature};
use primeshare::wgpu::{Error, physical};
use primeshare::{Allocator, Modifier};

use super::*;
use crate::support::buffer_on;

#[test]
fn what_a_hosts_device_lacks_is_named() {
    in_wgpu(|guest, instance| {
        let adapter = host::adapter(instance);
        let plain = host::now(adapter.request_device(&Default::default())).unwrap();
        let device = Device::wrap(&plain.0, &plain.1).unwrap();
        let capabilities = device.vulkan().capabilities();
        assert_eq!(
            capabilities.missing(Feature::Foreign),
            ["VK_EXT_queue_family_foreign"]
        );
        let refused = device.import(&buffer_on(&guest.vgem()), TextureUsages::COPY_SRC);
        match refused.unwrap_err() {
            Error::Vulkan(vk::Error::Missing { missing, .. }) => {
                assert_eq!(missing, "VK_EXT_queue_family_foreign");
            }
            other => panic!("{other}"),
        }
        // One that was opened to share is as good when it is the host's.
        let opened = host::open(instance);
        let wrapped = Device::wrap(opened.device(), opened.queue()).unwrap();
        let texture = wrapped.import(&buffer_on(&guest.vgem()), TextureUsages::COPY_SRC);
        texture.unwrap();
        let refused = Device::wrap(opened.device(), &plain.1);
        assert!(matches!(refused, Err(Error::OtherQueue)), "{refused:?}");
        assert!(physical(&adapter).unwrap().is_software());
    });
}

#[test]
fn textures_that_wgpu_does_not_have_are_refused_with_the_reason() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let vgem = guest.vgem();
        let refused = |buffer: &DmaBuf, usages| device.import(buffer, usages).unwrap_err();
        let of = |fourcc| {
            let request = Request::new(64, 64, fourcc);
            Dumb::new(&vgem).allocate(&request).unwrap()
        };
        let source = TextureUsages::COPY_SRC;
        assert_eq!(
            refused(&of(Fourcc::RGB565), source),
            Error::Format(Fourcc::RGB565)
        );
        assert!(matches!(
            refused(&of(Fourcc::NV12), source),
            Error::Features {
                missing: wgpu::Features::TEXTURE_FORMAT_NV12,
                ..
            }
        ));
        let buffer = of(Fourcc::XRGB8888);
        assert!(matches!(
            refused(&buffer, TextureUsages::empty()),
            Error::Usages { usages, .. } if usages.is_empty()
        ));
        assert!(matches!(
            refused(&buffer, source | TextureUsages::STORAGE_BINDING),
            Error::Usages {
                usages: TextureUsages::STORAGE_BINDING,
                ..
            }
        ));
        assert!(matches!(
            refused(&buffer, source | TextureUsages::TRANSIENT_ATTACHMENT),
            Error::Usages {
                usages: TextureUsages::TRANSIENT_ATTACHMENT,
                ..
            }
        ));
        let wide = Udmabuf::open().unwrap();
        let wide = wide.allocate(&Request::new(9000, 1, Fourcc::R8)).unwrap();
        assert_eq!(
            refused(&wide, source),
            Error::TooLarge {
                width: 9000,
                height: 1,
                most: 8192
            }
        );
        let fd = || buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
        let implicit = buffer.desc().with_modifier(Modifier::INVALID);
        let plane = primeshare::buffer::PlaneFd {
            fd: fd(),
            offset: 0,
            stride: buffer.planes()[0].stride,
        };
        let implicit = DmaBuf::new(implicit, [plane]).unwrap();
        assert_eq!(
            refused(&implicit, source),
            Error::Vulkan(vk::Error::ImplicitModifier)
        );
        let remembered = |_| device.texture(&implicit, source).unwrap_err();
        assert_eq!(remembered(1), remembered(2));
        let mut tiled = Request::new(64, 64, Fourcc::XRGB8888);
        tiled.modifiers = vec![Modifier(0x0100_0000_0000_0001)];
        let refused = device.create(&tiled, source);
        assert!(matches!(
            refused,
            Err(Error::Vulkan(vk::Error::NotExportable { .. }))
        ));
    });
}

#[test]
fn textures_change_hands_in_turns() {
    in_wgpu(|guest, instance| {
        let (device, other) = (host::open(instance), host::open(instance));
        let vgem = guest.vgem();
        let import = || {
            device
                .import(&buffer_on(&vgem), TextureUsages::COPY_SRC)
                .unwrap()
        };
        let (a, b): (Texture, Texture) = (import(), import());
        assert_eq!(device.release(&[&a]).unwrap_err(), Error::NotAcquired);
        device.acquire(&[&b], []).unwrap();
        assert_eq!(device.acquire(&[&a, &b], []).unwrap_err(), Error::Acquired);
        // All or none: `a` was not taken.
        assert!(!a.is_acquired() && b.is_acquired());
        assert_eq!(device.acquire(&[&a, &a], []).unwrap_err(), Error::Acquired);
        assert_eq!(other.acquire(&[&a], []).unwrap_err(), Error::OtherDevice);
        device.acquire(&[&a], []).unwrap();
        assert_eq!(device.release(&[&a, &a]).unwrap_err(), Error::NotAcquired);
        device.release(&[&a, &b]).unwrap();
        assert!(!a.is_acquired() && !b.is_acquired());
    });
}

#[test]
fn a_destroyed_device_is_an_error_and_no_panic() {
    in_wgpu(|guest, instance| {
        let device = host::open(instance);
        let buffer = buffer_on(&guest.vgem());
        let texture = device.import(&buffer, TextureUsages::COPY_SRC).unwrap();
        device.device().destroy();
        assert!(device.acquire(&[&texture], []).is_err());
        assert!(!texture.is_acquired());
    });
}
