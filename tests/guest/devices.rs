//! Devices: one file description, one table.

use std::os::fd::AsFd;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use primeshare::device::{self, NodeKind};
use primeshare::gem::ImportOrigin;
use primeshare::{Device, Errno};

use crate::support::{buffer_on, in_guest};

#[test]
fn the_guest_has_its_devices() {
    in_guest(|guest| {
        let nodes = device::enumerate().unwrap();
        let of = |kind| nodes.iter().filter(|node| node.kind == kind).count();
        let expected = if guest.has_gpu() {
            // vgem, virtio-gpu, bochs and cirrus.
            (4, 2)
        } else if guest.in_qemu() {
            // vgem, virtio-gpu, bochs, qxl and cirrus; the first two also render.
            (5, 2)
        } else if guest.is_compat() {
            // The compatibility guest's kernel makes no second vkms.
            (2, 1)
        } else {
            (3, 1)
        };
        assert_eq!((of(NodeKind::Primary), of(NodeKind::Render)), expected);
        let vkms = guest.vkms();
        assert_eq!(vkms.driver(), guest.display());
        assert!(vkms.node().bus.is_some());
        assert_ne!(vkms.node().bus, guest.vgem().node().bus);
        if guest.has_third() {
            assert_ne!(vkms.node().bus, guest.third().node().bus);
        }
    });
}

#[test]
fn primary_and_render_node_are_one_device_on_the_bus() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let nodes = device::enumerate().unwrap();
        let render = nodes.iter().find(|n| n.kind == NodeKind::Render).unwrap();
        assert_eq!(render.bus, vgem.node().bus);
        assert_ne!(render.id, vgem.node().id);
    });
}

#[test]
fn a_dup_is_the_same_device_and_an_open_another() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let dup = Device::from_fd(vgem.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(dup.shares_handles_with(&vgem));
        let opened = vgem.reopen().unwrap();
        assert!(!opened.shares_handles_with(&vgem));

        let buffer = buffer_on(&vgem);
        let by_dup = dup.import(&buffer).unwrap();
        assert_eq!(by_dup.origin(), ImportOrigin::SelfImport);
        let elsewhere = opened.import(&buffer).unwrap();
        assert_eq!(elsewhere.origin(), ImportOrigin::New);
        // Each may go first; the handle is one and is closed once.
        drop(buffer);
        drop(vgem);
        drop(by_dup);
        assert_eq!(dup.stats().closes, 1);
        assert_eq!(dup.stats().failed_closes, 0);
    });
}

#[test]
fn the_same_device_by_another_file_is_told_from_another_device() {
    in_guest(|guest| {
        for (device, other) in [
            (guest.vgem(), guest.vkms()),
            (guest.vkms(), guest.vgem()),
            (guest.third(), guest.vgem()),
        ] {
            let opened = guest.open(&device.node().path);
            assert!(opened.is_same_device(&device) && device.is_same_device(&device));
            assert!(!opened.shares_handles_with(&device));
            assert!(!other.is_same_device(&device) && !other.shares_handles_with(&device));
            // What was made on the one is new to the other, under a handle of its own ...
            let buffer = buffer_on(&device);
            let imported = opened.import(&buffer).unwrap();
            assert_eq!(imported.origin(), ImportOrigin::New);
            assert_eq!((device.stats().handles, opened.stats().handles), (1, 1));
            // ... which is of the device's own memory: it can be mapped through its file.
            let page = 4096.try_into().unwrap();
            assert!(opened.map_dumb(imported.object(), page).is_ok());
            let foreign = other.import(&buffer).unwrap();
            assert!(other.map_dumb(foreign.object(), page).is_err());
        }
        assert!(guest.render_node().is_same_device(&guest.vgem()));
        assert!(!guest.render_node().is_same_device(&guest.vkms()));
        // The second vkms is another device, if there is one.
        assert_eq!(
            guest.third().is_same_device(&guest.vkms()),
            !guest.has_third()
        );
    });
}

#[test]
fn an_fd_that_answers_no_ioctl_is_refused_with_the_reason() {
    in_guest(|guest| {
        let path = guest.vgem().node().path.clone();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(&path, flags, Mode::empty()).unwrap();
        let refused = Device::from_fd(fd).unwrap_err();
        let version = device::Error::Version {
            path,
            errno: Errno::EBADF,
        };
        assert_eq!(refused, version);
    });
}

#[test]
fn what_is_no_drm_node_is_refused() {
    in_guest(|_| {
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = Device::from_fd(file.into()).unwrap_err();
        assert_eq!(refused, device::Error::NotDrm { path: None });
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let refused = Device::from_fd(file.into()).unwrap_err();
        assert_eq!(refused, device::Error::NotDrm { path: None });
        let refused = Device::open("/dev/null").unwrap_err();
        assert_eq!(refused.to_string(), "/dev/null is not a DRM device node");
        assert_eq!(
            Device::open("/dev/dri/card99").unwrap_err(),
            device::Error::Open {
                path: "/dev/dri/card99".into(),
                errno: Errno::ENOENT
            }
        );
    });
}

#[test]
fn capabilities_are_found_by_trying() {
    in_guest(|guest| {
        // vgem refuses to be asked for DRM_CAP_DUMB_BUFFER, yet has them.
        let can = guest.vgem().capabilities().unwrap();
        assert!(can.dumb);
        assert_eq!((can.export, can.import), (Some(true), Some(true)));
        assert_eq!(can.import_scattered, Some(true));
        let nodes = device::enumerate().unwrap();
        let render = nodes.iter().find(|n| n.kind == NodeKind::Render).unwrap();
        let can = Device::open(&render.path).unwrap().capabilities().unwrap();
        assert!(!can.dumb);
        assert_eq!((can.export, can.import), (None, Some(true)));
    });
}

#[test]
fn an_object_of_another_file_description_cannot_be_mapped_here() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let page = 4096.try_into().unwrap();
        let object = vgem.import(&buffer).unwrap().object().clone();
        assert_eq!(
            vkms.map_dumb(&object, page).unwrap_err(),
            device::Error::WrongDevice {
                device: vkms.to_string()
            }
        );
        // Nor the foreign memory behind an import.
        let foreign = vkms.import(&buffer).unwrap().object().clone();
        assert_eq!(
            vkms.map_dumb(&foreign, page).unwrap_err(),
            device::Error::Gem(primeshare::gem::Error::MapDumb {
                device: vkms.to_string(),
                handle: foreign.handle().raw(),
                errno: Errno::EINVAL
            })
        );
    });
}

#[test]
fn opening_a_device_takes_nobodys_mastership() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let buffer = buffer_on(&vkms);
        // A compositor that comes later can become master while we are there.
        let compositor = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&vkms.node().path)
            .unwrap();
        drm_ffi::auth::acquire_master(compositor.as_fd()).unwrap();
        drop(buffer);
    });
}
