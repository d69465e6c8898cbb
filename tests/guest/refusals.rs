//! Drivers that take or refuse each other's memory. A refusal must leave nothing behind.
//!
//! The drivers that refuse are virtio-gpu, bochs and qxl, which only the guests in QEMU have. In the other
//! guests, the same tests check that everything is taken.

use primeshare::alloc::{DmaHeap, Udmabuf};
use primeshare::device::{self, NodeKind};
use primeshare::gem::{self, ImportOrigin};
use primeshare::sync::{Access, Mapping};
use primeshare::{Allocator, Device, DmaBuf, Errno, Fourcc, Request, import};

use crate::support::{Guest, PATIENCE, buffer_on, in_guest, of_two_dma_bufs};

/// Why the driver `to` refuses to import memory of `from`, a driver or an allocator (Linux 6.12).
pub(crate) fn refusal(from: &str, to: &str) -> Option<Errno> {
    match (from, to) {
        // Its own objects need no import (`drm_gem_prime_import_dev`).
        _ if from == to => None,
        // No `gem_prime_import_sg_table`.
        (_, "bochs-drm") => Some(Errno::EINVAL),
        // Memory that its exporter cannot map for another device (`drm_gem_map_dma_buf`); asked
        // for only by drivers that would import it.
        ("bochs-drm" | "qxl", _) => Some(Errno::ENOSYS),
        // `virtgpu_gem_prime_import_sg_table`, `qxl_gem_prime_import_sg_table`.
        (_, "virtio_gpu") => Some(Errno::ENODEV),
        (_, "qxl") => Some(Errno::ENOSYS),
        (_, "vgem" | "vkms" | "cirrus") => None,
        (_, other) => panic!("what does {other} import?"),
    }
}

/// A file description of every device there is.
pub(crate) fn devices(guest: &Guest) -> Vec<Device> {
    let mut nodes = device::enumerate().unwrap();
    nodes.retain(|node| node.kind == NodeKind::Primary);
    nodes.iter().map(|node| guest.open(&node.path)).collect()
}

/// A buffer of every device and of every allocator that needs none, and who made it.
fn buffers(devices: &[Device]) -> Vec<(String, DmaBuf)> {
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    let system: [Box<dyn Allocator>; 2] = [
        Box::new(Udmabuf::open().unwrap()),
        Box::new(DmaHeap::system().unwrap()),
    ];
    let system = system.iter().map(|allocator| {
        let buffer = allocator.allocate(&request).unwrap();
        (allocator.name().to_owned(), buffer)
    });
    let own = devices
        .iter()
        .map(|device| (device.driver().to_owned(), buffer_on(device)));
    system.chain(own).collect()
}

#[test]
fn every_device_takes_or_refuses_every_buffer_as_its_driver_does() {
    in_guest(|guest| {
        let exporters = devices(guest);
        // File descriptions of their own, so that none has created what it imports.
        let importers = devices(guest);
        let mut refused = 0;
        for (from, buffer) in buffers(&exporters) {
            for device in &importers {
                // A refusal changes nothing, so the second answer is the first.
                for _ in 0..2 {
                    let expected = refusal(&from, device.driver());
                    let outcome = device.import(&buffer);
                    match (outcome, expected) {
                        (Ok(imported), None) => {
                            assert_eq!(imported.origin(), ImportOrigin::New);
                            let (_, id) = imported.object().export().unwrap();
                            assert_eq!(id, buffer.id());
                        }
                        (Err(error), Some(errno)) => {
                            let device = device.to_string();
                            let cause = gem::Error::Import { device, errno };
                            assert_eq!(error, import::Error { object: 0, cause });
                            refused += 1;
                        }
                        (outcome, _) => panic!("{from} -> {device}: {outcome:?}, not {expected:?}"),
                    }
                    assert_eq!(device.stats().handles, 0);
                }
            }
        }
        for device in &importers {
            assert_eq!(device.stats().failed_closes, 0);
        }
        let expected = if guest.has_gpu() {
            // Five foreign buffers each at virtio-gpu and bochs; one at vgem and cirrus.
            2 * (2 * 5 + 2)
        } else if guest.in_qemu() {
            // Six each at virtio-gpu, bochs and qxl; two at vgem and cirrus.
            2 * (3 * 6 + 2 * 2)
        } else {
            0
        };
        assert_eq!(refused, expected);
    });
}

#[test]
fn a_buffer_that_is_refused_is_at_home_on_its_own_device() {
    in_guest(|guest| {
        for device in devices(guest) {
            let buffer = buffer_on(&device);
            let object = device.import(&buffer).unwrap();
            assert_eq!(object.origin(), ImportOrigin::SelfImport, "{device}");
            let (object, found) = device.import_fd(buffer.plane_fd(0).unwrap()).unwrap();
            assert_eq!(
                (found, object.export().unwrap().1),
                (ImportOrigin::SelfImport, buffer.id())
            );
        }
    });
}

/// If an import is refused, a copy by the CPU still has to work.
#[test]
fn every_devices_buffers_can_be_written_and_read_by_the_cpu() {
    in_guest(|guest| {
        for device in devices(guest) {
            let buffer = buffer_on(&device);
            let sent: Vec<u8> = (0..64 * 64 * 4).map(|n| (n % 251) as u8).collect();
            let mut mapping = Mapping::of_object(&buffer, 0).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            access.write(0, &sent).unwrap();
            drop(access);
            // Read by the device's own view of the memory.
            let object = device.import(&buffer).unwrap();
            let length = sent.len().try_into().unwrap();
            let own = device.map_dumb(object.object(), length).unwrap();
            let mut read = vec![0; sent.len()];
            own.read(0, &mut read).unwrap();
            assert!(read == sent, "{device}");
        }
    });
}

#[test]
fn a_refused_plane_releases_those_before_it() {
    in_guest(|guest| {
        let devices = devices(guest);
        for (from, foreign) in buffers(&devices) {
            for device in &devices {
                let Some(errno) = refusal(&from, device.driver()) else {
                    continue;
                };
                let own = buffer_on(device);
                let both = of_two_dma_bufs(&own, &foreign);
                let before = device.stats();
                let error = device.import(&both).unwrap_err();
                let name = device.to_string();
                let cause = gem::Error::Import {
                    device: name,
                    errno,
                };
                assert_eq!(error, import::Error { object: 1, cause });
                // The plane that was taken is still its creator's, with the one handle.
                assert_eq!(device.stats().closes, before.closes);
                assert_eq!(
                    device.import(&own).unwrap().origin(),
                    ImportOrigin::SelfImport
                );
            }
        }
    });
}

#[test]
fn a_device_that_refuses_says_that_it_cannot_import() {
    in_guest(|guest| {
        for device in devices(guest) {
            let can = device.capabilities().unwrap();
            assert_eq!((can.dumb, can.export), (true, Some(true)), "{device}");
            let imports = refusal("udmabuf", device.driver()).is_none();
            assert_eq!(can.import, Some(imports), "{device}");
            assert_eq!(can.import_scattered, imports.then_some(true), "{device}");
        }
    });
}
