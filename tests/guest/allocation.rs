//! Allocators: what they give, and what they refuse.

use std::os::fd::AsFd;

use primeshare::alloc::{DmaHeap, Dumb, Error, Udmabuf};
use primeshare::buffer::{FormatInfo, PlaneFd};
use primeshare::device::{self, NodeKind};
use primeshare::gbm::{self, Gbm};
use primeshare::gem::ImportOrigin;
use primeshare::sync::{Access, Mapping};
use primeshare::{Allocator, Device, DmaBuf, Errno, Fourcc, Modifier, Request};

use crate::support::{Guest, PATIENCE, in_guest};

fn allocators(guest: &Guest) -> Vec<Box<dyn Allocator>> {
    let devices = [guest.vgem(), guest.vkms(), guest.third()];
    let mut all: Vec<Box<dyn Allocator>> = vec![
        Box::new(Udmabuf::open().unwrap()),
        Box::new(DmaHeap::system().unwrap()),
    ];
    for device in &devices {
        all.push(Box::new(Dumb::new(device)));
        all.push(Box::new(Gbm::new(device).unwrap()));
    }
    all
}

#[test]
fn buffers_are_writable_close_on_exec_and_large_enough() {
    in_guest(|guest| {
        for allocator in allocators(guest) {
            for (width, height) in [(1, 1), (64, 64), (1000, 101), (1920, 1080)] {
                for fourcc in [Fourcc::XRGB8888, Fourcc::ARGB8888, Fourcc::RGB565] {
                    let what = format!("{} {fourcc} {width}x{height}", allocator.name());
                    let buffer = allocator
                        .allocate(&Request::new(width, height, fourcc))
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!((buffer.width(), buffer.height()), (width, height));
                    assert_eq!(buffer.modifier(), Modifier::LINEAR, "{what}");
                    let flags = crate::kernel::flags(buffer.plane_fd(0).unwrap());
                    assert_eq!(flags, (true, true), "{what}");
                    let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
                    let plane = buffer.planes()[0];
                    let last = plane.offset + plane.stride * (height - 1);
                    let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
                    access.write(last as usize, &[1]).unwrap();
                }
            }
        }
    });
}

/// The first byte after the last pixel of the picture.
fn end(buffer: &DmaBuf) -> u64 {
    let info = FormatInfo::of(buffer.fourcc()).unwrap();
    let planes = info.planes.iter().zip(buffer.planes());
    let ends = planes.map(|(info, plane)| {
        let last = u64::from(plane.stride) * u64::from(info.rows(buffer.height()) - 1);
        let row_bytes = info.row_bytes(buffer.width()).unwrap();
        u64::from(plane.offset) + last + u64::from(row_bytes)
    });
    ends.max().unwrap()
}

#[test]
fn memory_ends_16_rows_and_a_page_after_the_picture() {
    in_guest(|guest| {
        let allocators: [Box<dyn Allocator>; 4] = [
            Box::new(Dumb::new(&guest.vgem())),
            Box::new(Dumb::new(&guest.vkms())),
            Box::new(Udmabuf::open().unwrap()),
            Box::new(DmaHeap::system().unwrap()),
        ];
        for allocator in allocators {
            let every = FormatInfo::all().map(|info| (info.fourcc, 33, 35));
            for (fourcc, width, height) in every.chain([(Fourcc::XRGB8888, 1600, 1068)]) {
                let request = Request::new(width, height, fourcc);
                let buffer = allocator.allocate(&request).unwrap();
                let widest = buffer.planes().iter().map(|plane| plane.stride).max();
                let wanted = end(&buffer) + 16 * u64::from(widest.unwrap()) + 4096;
                let size = buffer.objects()[0].size();
                let what = format!("{} {fourcc} {width}x{height}", allocator.name());
                assert!(size >= wanted, "{what}: {size} bytes, {wanted} wanted");
            }
        }
    });
}

#[test]
fn every_device_imports_every_allocators_buffers() {
    in_guest(|guest| {
        let devices = [guest.vgem(), guest.vkms(), guest.third()];
        for allocator in allocators(guest) {
            let request = Request::new(128, 32, Fourcc::XRGB8888);
            let buffer = allocator.allocate(&request).unwrap();
            for device in &devices {
                let first = device.import(&buffer).unwrap();
                // `allocators` opened the devices anew, so none of them is at home here.
                assert_eq!(first.origin(), ImportOrigin::New, "{}", allocator.name());
                assert_eq!(
                    device.import(&buffer).unwrap().origin(),
                    ImportOrigin::AlreadyImported
                );
            }
        }
    });
}

#[test]
fn gbm_shares_no_handles_with_the_device() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let gbm = Gbm::new(&vkms).unwrap();
        let buffer = gbm
            .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
            .unwrap();
        assert_eq!(vkms.stats().handles, 0);
        let imported = vkms.import(&buffer).unwrap();
        assert_eq!(imported.origin(), ImportOrigin::New);
        // The allocator may be dropped before its buffers.
        drop(gbm);
        assert_eq!(imported.object().export().unwrap().1, buffer.id());
    });
}

#[test]
fn gbm_gives_only_modifiers_that_were_asked_for() {
    in_guest(|guest| {
        let gbm = Gbm::new(&guest.vkms()).unwrap();
        let tiled = Modifier(0x0100_0000_0000_0001);
        let allocate = |modifiers: &[Modifier]| {
            gbm.allocate(
                &Request::new(64, 64, Fourcc::XRGB8888).modifiers(modifiers.iter().copied()),
            )
        };
        let linear = allocate(&[tiled, Modifier::LINEAR]).unwrap();
        assert_eq!(linear.modifier(), Modifier::LINEAR);
        // With INVALID allowed, the driver may choose any layout.
        assert!(allocate(&[tiled, Modifier::INVALID]).is_ok());
        assert!(allocate(&[tiled]).is_err());
        assert!(allocate(&[]).is_err());
    });
}

#[test]
fn dumb_strides_suit_importers() {
    in_guest(|guest| {
        let dumb = Dumb::new(&guest.vkms());
        for (fourcc, width) in [(Fourcc::XRGB8888, 1366), (Fourcc::RGB565, 333)] {
            let buffer = dumb.allocate(&Request::new(width, 3, fourcc)).unwrap();
            assert_eq!(buffer.planes()[0].stride % 256, 0);
        }
    });
}

#[test]
fn every_known_format_is_allocated_with_room_for_its_rows() {
    in_guest(|guest| {
        let allocators: [Box<dyn Allocator>; 2] = [
            Box::new(Dumb::new(&guest.vkms())),
            Box::new(Udmabuf::open().unwrap()),
        ];
        for allocator in allocators {
            for info in FormatInfo::all() {
                let buffer = allocator
                    .allocate(&Request::new(333, 35, info.fourcc))
                    .unwrap();
                for (plane, info) in buffer.planes().iter().zip(info.planes) {
                    assert_eq!(plane.stride % 256, 0, "{}", buffer.fourcc());
                    assert!(plane.stride >= info.row_bytes(333).unwrap());
                }
                assert_eq!(buffer.planes().len(), info.planes.len());
            }
        }
    });
}

#[test]
fn vulkan_can_copy_every_plane_of_every_known_format() {
    in_guest(|guest| {
        let allocators: [Box<dyn Allocator>; 4] = [
            Box::new(Dumb::new(&guest.vgem())),
            Box::new(Dumb::new(&guest.vkms())),
            Box::new(Udmabuf::open().unwrap()),
            Box::new(DmaHeap::system().unwrap()),
        ];
        for allocator in allocators {
            for info in FormatInfo::all() {
                for width in [1, 333] {
                    let request = Request::new(width, 3, info.fourcc);
                    let buffer = allocator.allocate(&request).unwrap();
                    for (index, plane) in buffer.planes().iter().enumerate() {
                        let what = format!("{} {} {plane:?}", allocator.name(), info.fourcc);
                        let block = info.planes[index];
                        assert_eq!(plane.stride % block.block_bytes, 0, "{what}");
                        let region = primeshare::vk::copy_region(&buffer, index)
                            .unwrap_or_else(|error| panic!("{what}: {error}"));
                        let row = region.buffer_row_length / block.block_width;
                        assert_eq!(row * block.block_bytes, plane.stride, "{what}");
                    }
                }
            }
        }
    });
}

#[test]
fn planar_formats_lie_in_one_buffer() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let allocators: [Box<dyn Allocator>; 2] = [
            Box::new(Dumb::new(&vkms)),
            Box::new(Udmabuf::open().unwrap()),
        ];
        for allocator in allocators {
            for fourcc in [Fourcc::NV12, Fourcc::P010] {
                let buffer = allocator.allocate(&Request::new(101, 33, fourcc)).unwrap();
                assert_eq!(buffer.planes().len(), 2);
                assert_eq!(buffer.objects().len(), 1);
                assert!(buffer.planes()[1].offset > 0);
            }
        }
        // Mesa's software gbm does not make NV12.
        let gbm = Gbm::new(&vkms).unwrap();
        let refused = gbm.allocate(&Request::new(64, 64, Fourcc::NV12));
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused.of(), Some(gbm::Error::Create { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn every_driver_with_dumb_buffers_makes_them_of_every_format() {
    in_guest(|guest| {
        let nodes = device::enumerate().unwrap();
        let primary = nodes.iter().filter(|node| node.kind == NodeKind::Primary);
        for device in primary.map(|node| guest.open(&node.path)) {
            let dumb = Dumb::new(&device);
            for info in FormatInfo::all() {
                let what = format!("{} {}", device.driver(), info.fourcc);
                let buffer = dumb
                    .allocate(&Request::new(101, 33, info.fourcc))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                // With a GPU the memory of a virtio-gpu is on the host.
                if guest.has_gpu() {
                    continue;
                }
                let last = usize::try_from(end(&buffer)).unwrap() - 1;
                let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
                let mut access = mapping.begin_wait(Access::ReadWrite, PATIENCE).unwrap();
                access.write(last, &[7]).unwrap();
                let mut read = [0];
                access.read(last, &mut read).unwrap();
                assert_eq!(read, [7], "{what}");
            }
        }
    });
}

#[test]
fn a_render_node_makes_no_dumb_buffers() {
    in_guest(|_| {
        let nodes = device::enumerate().unwrap();
        let render = nodes.iter().find(|n| n.kind == NodeKind::Render).unwrap();
        let render = Device::open(&render.path).unwrap();
        let dumb = Dumb::new(&render);
        let refused = dumb.allocate(&Request::new(64, 64, Fourcc::XRGB8888));
        assert_eq!(
            refused.unwrap_err(),
            Error::RenderNode {
                device: render.to_string()
            }
        );
        let endpoint = dumb.endpoint([Fourcc::XRGB8888]);
        assert_eq!(endpoint.unwrap_err().errno(), Some(Errno::EACCES));
        // PRIME is allowed there.
        let udmabuf = Udmabuf::open().unwrap();
        let buffer = udmabuf.allocate(&Request::new(64, 64, Fourcc::XRGB8888));
        assert!(render.import(&buffer.unwrap()).is_ok());
    });
}

#[test]
fn impossible_requests_are_refused_with_the_reason() {
    in_guest(|guest| {
        for allocator in allocators(guest) {
            let allocate = |request: &Request| allocator.allocate(request).unwrap_err();
            let name = allocator.name();
            let empty = allocate(&Request::new(0, 8, Fourcc::XRGB8888));
            assert_eq!(
                empty,
                Error::Layout(primeshare::buffer::Error::Empty {
                    width: 0,
                    height: 8
                }),
                "{name}"
            );
            let unknown = allocate(&Request::new(8, 8, Fourcc(0x1234_5678)));
            assert!(matches!(unknown, Error::Format { .. }), "{name}: {unknown}");
            let huge = allocate(&Request::new(u32::MAX, u32::MAX, Fourcc::XRGB8888));
            assert!(
                matches!(huge, Error::Layout(_)) || is_gbms(&huge),
                "{name}: {huge}"
            );
            let tiled = allocate(
                &Request::new(64, 64, Fourcc::XRGB8888)
                    .modifiers([Modifier(0x0100_0000_0000_0001)]),
            );
            assert!(
                matches!(tiled, Error::Modifiers { .. }) || is_gbms(&tiled),
                "{name}: {tiled}"
            );
        }
    });
}

#[test]
fn a_dumb_buffer_of_4_gib_or_more_is_refused_by_its_size() {
    in_guest(|guest| {
        for device in [guest.vgem(), guest.vkms()] {
            let dumb = Dumb::new(&device);
            for (width, height) in [(100_000_000, 1), (32_768, 32_767)] {
                let huge = Request::new(width, height, Fourcc::XRGB8888);
                let refused = dumb.allocate(&huge).unwrap_err();
                let too_large = primeshare::buffer::Error::TooLarge {
                    width,
                    height,
                    fourcc: Fourcc::XRGB8888,
                };
                assert_eq!(refused, Error::Layout(too_large), "{device}");
            }
        }
    });
}

#[test]
fn a_heap_is_not_asked_for_more_than_the_machine_has() {
    in_guest(|_| {
        // The kernel would use up all memory, and then kill this process.
        let huge = Request::new(60_000, 60_000, Fourcc::XRGB8888);
        let refused = DmaHeap::system().unwrap().allocate(&huge).unwrap_err();
        assert!(
            matches!(refused, Error::DmaHeap { errno, .. } if errno == Errno::ENOMEM),
            "{refused}"
        );
    });
}

/// The same buffer, made only from dups of its fds.
fn received(buffer: &DmaBuf) -> DmaBuf {
    let planes: Vec<_> = (0..)
        .zip(buffer.planes())
        .map(|(index, plane)| PlaneFd {
            fd: buffer
                .plane_fd(index)
                .unwrap()
                .try_clone_to_owned()
                .unwrap(),
            offset: plane.offset,
            stride: plane.stride,
        })
        .collect();
    DmaBuf::new(*buffer.desc(), planes).unwrap()
}

#[test]
fn a_buffer_needs_only_its_fds() {
    in_guest(|guest| {
        let buffers: Vec<_> = allocators(guest)
            .iter()
            .map(|a| a.allocate(&Request::new(64, 64, Fourcc::XRGB8888)).unwrap())
            .collect();
        // As another process would have them: allocators, devices and handles are gone.
        let received: Vec<_> = buffers.iter().map(received).collect();
        drop(buffers);
        for buffer in received {
            let mut mapping = Mapping::new(buffer.plane_fd(0).unwrap().as_fd()).unwrap();
            let mut access = mapping.begin_wait(Access::ReadWrite, PATIENCE).unwrap();
            access.write(0, b"still here").unwrap();
            let mut read = [0; 10];
            access.read(0, &mut read).unwrap();
            assert_eq!(&read, b"still here");
        }
    });
}

/// Whether gbm was asked and refused.
fn is_gbms(refused: &Error) -> bool {
    matches!(refused.of(), Some(gbm::Error::Create { .. }))
}
