//! Vulkan: import, copy, refuse; with the validation layer's silence.

mod allocating;
pub(crate) mod bytes;
mod fds;
pub(crate) mod fences;
mod host;
pub(crate) mod matrix;
mod refusals;
mod shared;
mod unfinished;
mod views;

use std::time::Duration;

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::blit::{self, Blit};
use primeshare::gbm::Gbm;
use primeshare::sync::{Access, Mapping};
use primeshare::vk::{Error, Select, Staging};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use crate::fences::busy::Busy;
use crate::support::{PATIENCE, buffer_on, in_guest};

/// Bytes that depend on place and seed.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let byte = |n: usize| (n.wrapping_mul(31) >> 3) as u8 ^ n as u8 ^ seed;
    (0..length).map(byte).collect()
}

fn rows(buffer: &DmaBuf, bytes_per_pixel: u32) -> impl Iterator<Item = (usize, usize)> {
    let plane = buffer.planes()[0];
    let length = buffer.width() * bytes_per_pixel;
    (0..buffer.height()).map(move |y| ((plane.offset + plane.stride * y) as usize, length as usize))
}

fn write(buffer: &DmaBuf, bytes_per_pixel: u32, seed: u8) {
    let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
    let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
    for (y, (offset, length)) in rows(buffer, bytes_per_pixel).enumerate() {
        let row = pattern(length, seed.wrapping_add(y as u8));
        access.write(offset, &row).unwrap();
    }
}

fn check(buffer: &DmaBuf, bytes_per_pixel: u32, seed: u8, what: &str) {
    let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
    let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    for (y, (offset, length)) in rows(buffer, bytes_per_pixel).enumerate() {
        let mut row = vec![0; length];
        access.read(offset, &mut row).unwrap();
        assert!(
            row == pattern(length, seed.wrapping_add(y as u8)),
            "{what}: row {y} differs"
        );
    }
}

#[test]
fn a_copy_between_any_two_allocators_is_exact() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let (vgem, vkms) = (guest.vgem(), guest.third());
        let allocators: [Box<dyn Allocator>; 5] = [
            Box::new(Dumb::new(&vgem)),
            Box::new(Dumb::new(&vkms)),
            Box::new(Gbm::new(&vkms).unwrap()),
            Box::new(Udmabuf::open().unwrap()),
            Box::new(DmaHeap::system().unwrap()),
        ];
        let formats = [
            (Fourcc::XRGB8888, 4),
            (Fourcc::RGB565, 2),
            (Fourcc::ABGR8888, 4),
        ];
        let mut seed = 0;
        for from in &allocators {
            for to in &allocators {
                for (fourcc, bytes) in formats {
                    for (width, height) in [(1, 1), (33, 7), (1000, 101)] {
                        let request = Request::new(width, height, fourcc);
                        let what = format!(
                            "{} to {}, {fourcc} {width}x{height}",
                            from.name(),
                            to.name()
                        );
                        let source = from.allocate(&request).unwrap();
                        let destination = to.allocate(&request).unwrap();
                        seed += 1;
                        write(&source, bytes, seed);
                        write(&destination, bytes, !seed);
                        let mut blit = Blit::new(&vulkan, &source, &destination, 1)
                            .unwrap_or_else(|error| panic!("{what}: {error}"));
                        blit.submit().unwrap();
                        blit.wait(PATIENCE).unwrap();
                        check(&destination, bytes, seed, &what);
                        check(&source, bytes, seed, &what);
                    }
                }
            }
        }
    });
}

#[test]
fn several_copies_are_in_flight_and_no_more_than_asked_for() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let request = Request::new(1920, 1080, Fourcc::XRGB8888);
        let source = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let destination = Dumb::new(&guest.vkms()).allocate(&request).unwrap();
        write(&source, 4, 7);
        let mut blit = Blit::new(&vulkan, &source, &destination, 3).unwrap();
        // Until one comes while three of 8 MB are under way. Where the machine is busy, the copies
        // before may have had the time to end.
        let busy = loop {
            match blit.submit() {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(busy, blit::Error::Busy(3)), "{busy}");
        for _ in 0..10 {
            blit.wait_for_slot(PATIENCE).unwrap();
            blit.submit().unwrap();
        }
        blit.wait(PATIENCE).unwrap();
        assert!(blit.is_done().unwrap());
        check(&destination, 4, 7, "after all copies");
        // Dropped with one in flight.
        blit.submit().unwrap();
    });
}

/// Fences that a kernel driver left in the buffers (implicit synchronisation).
#[test]
fn a_single_copy_waits_for_the_fences_of_its_buffers() {
    in_guest(|guest| {
        let (vulkan, vgem) = (guest.vulkan(), guest.vgem());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vgem));
        let mut blit = Blit::new(&vulkan, &source, &destination, 1).unwrap();
        // Who writes the source, who uses the destination.
        let waited_for = [
            (&source, Access::Write),
            (&destination, Access::Write),
            (&destination, Access::Read),
        ];
        for (buffer, access) in waited_for {
            let busy = Busy::new(&vgem, buffer, access);
            blit.submit().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            assert!(!blit.is_done().unwrap(), "{access:?} was not waited for");
            busy.end();
            blit.wait(PATIENCE).unwrap();
        }
        // Others read the source as well.
        let busy = Busy::new(&vgem, &source, Access::Read);
        blit.submit().unwrap();
        blit.wait(PATIENCE).unwrap();
        busy.end();
        blit.wait_for_buffers(PATIENCE).unwrap();
    });
}

#[test]
fn an_image_keeps_the_memory_without_the_buffer() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let (source, destination) = (buffer_on(&guest.vgem()), buffer_on(&guest.vkms()));
        write(&source, 4, 3);
        let mut blit = Blit::new(&vulkan, &source, &destination, 1).unwrap();
        drop((source, vulkan));
        blit.submit().unwrap();
        blit.wait(PATIENCE).unwrap();
        check(&destination, 4, 3, "source's fds closed");
    });
}

#[test]
fn a_copy_stays_inside_the_picture() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let request = Request::new(33, 7, Fourcc::XRGB8888);
        let source = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
        let destination = Udmabuf::open().unwrap().allocate(&request).unwrap();
        let plane = destination.planes()[0];
        assert!(plane.stride > 33 * 4, "no padding to look at");
        let mut mapping = Mapping::new(&destination.objects()[0]).unwrap();
        let padding = 33 * 4;
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        access.write(padding, b"kept").unwrap();
        drop(access);
        let mut blit = Blit::new(&vulkan, &source, &destination, 1).unwrap();
        blit.submit().unwrap();
        blit.wait(PATIENCE).unwrap();
        let mut kept = [0; 4];
        let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        access.read(padding, &mut kept).unwrap();
        assert_eq!(&kept, b"kept");
    });
}

#[test]
fn a_staging_buffer_keeps_to_its_size() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        assert_eq!(
            Staging::upload(&vulkan, 0).unwrap_err(),
            Error::StagingEmpty
        );
        let mut staging = Staging::upload(&vulkan, 16).unwrap();
        staging.write(8, &[0; 8]).unwrap();
        assert_eq!(
            staging.write(9, &[0; 8]).unwrap_err(),
            Error::StagingRange {
                offset: 9,
                length: 8,
                size: 16
            }
        );
    });
}

#[test]
fn unlike_pictures_are_not_copied() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let dumb = Dumb::new(&guest.vgem());
        let allocate = |w, h, fourcc| dumb.allocate(&Request::new(w, h, fourcc)).unwrap();
        let small = allocate(64, 64, Fourcc::XRGB8888);
        let refused = Blit::new(&vulkan, &small, &allocate(64, 65, Fourcc::XRGB8888), 1);
        assert!(matches!(refused, Err(blit::Error::Size { .. })));
        let refused = Blit::new(&vulkan, &small, &allocate(64, 64, Fourcc::XBGR8888), 1);
        assert!(matches!(refused, Err(blit::Error::Format { .. })));
        let nv12 = || allocate(64, 64, Fourcc::NV12);
        let refused = Blit::new(&vulkan, &nv12(), &nv12(), 1);
        assert!(matches!(refused, Err(blit::Error::Planar(Fourcc::NV12))));
        let refused = Blit::new(&vulkan, &small, &small.clone(), 1);
        assert!(matches!(refused, Err(blit::Error::SameBuffer)));
        // The same bytes but for alpha, which can be dropped and not made up.
        let alpha = allocate(64, 64, Fourcc::ARGB8888);
        assert!(Blit::new(&vulkan, &alpha, &small, 1).is_ok());
        let refused = Blit::new(&vulkan, &small, &alpha, 1);
        assert!(matches!(refused, Err(blit::Error::Format { .. })));
    });
}

#[test]
fn devices_are_selected_by_kind_name_and_node() {
    in_guest(|guest| {
        let instance = guest.instance();
        let software = instance.select(&Select::Software).unwrap();
        assert!(software.is_software());
        let named = instance.select(&Select::Name("LLVMPIPE")).unwrap();
        assert_eq!(named.raw(), software.raw());
        let vgem = guest.vgem();
        // lavapipe drives no DRM node.
        assert!(!software.drives(&vgem));
        let missing = instance.select(&Select::Drm(&vgem)).unwrap_err();
        let text = missing.to_string();
        assert!(text.contains("vgem") && text.contains("llvmpipe"), "{text}");
    });
}
