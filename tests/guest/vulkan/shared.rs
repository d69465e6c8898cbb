//! One image per buffer and use; and what is left when many have come and gone.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use primeshare::alloc::{Dumb, Udmabuf};
use primeshare::vk::{Error, Use};
use primeshare::{Allocator, BufferDesc, DmaBuf, Errno, ErrorKind, Fourcc, Request};

use super::fds::read_only;
use crate::support::{buffer_on, in_guest};

#[test]
fn a_buffer_in_use_is_one_image_for_each_usage() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let buffer = buffer_on(&guest.vgem());
        let plane = primeshare::buffer::PlaneFd {
            fd: buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
            offset: 0,
            stride: buffer.planes()[0].stride,
        };
        let received = DmaBuf::new(*buffer.desc(), [plane]).unwrap();
        let first = vulkan.image(&buffer, Use::Source).unwrap();
        let again = vulkan.image(&received, Use::Source).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = vulkan.image(&buffer, Use::Destination).unwrap();
        assert_ne!(first.raw(), other.raw());
        // It is nobody's, and so gone although the buffer lives; and the other way about.
        let gone = Arc::downgrade(&first);
        drop((first, again));
        assert_eq!(gone.strong_count(), 0);
        drop((buffer, received));
        assert_eq!(Arc::strong_count(&other), 1);
    });
}

#[test]
fn threads_that_import_at_once_get_one_image() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let buffer = buffer_on(&guest.vgem());
        for _ in 0..50 {
            let images: Vec<_> = std::thread::scope(|scope| {
                let import = || vulkan.image(&buffer, Use::Source).unwrap();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(import)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert!(images.iter().all(|image| Arc::ptr_eq(image, &images[0])));
        }
    });
}

#[test]
fn lasting_refusals_are_remembered_and_a_lack_of_fds_is_not() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let refused = read_only(guest);
        let first = vulkan.image(&refused, Use::Source).unwrap_err();
        assert!(matches!(first, Error::ReadOnly { .. }) && first.kind() != ErrorKind::Transient);
        assert_eq!(vulkan.image(&refused, Use::Source).unwrap_err(), first);

        let buffer = buffer_on(&guest.vgem());
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Those from 3 on are in use.
        setrlimit(Resource::RLIMIT_NOFILE, 4, hard).unwrap();
        let lack = vulkan.image(&buffer, Use::Source);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let lack = lack.unwrap_err();
        assert_eq!(lack, Error::Duplicate(Errno::EMFILE));
        assert!(lack.kind() == ErrorKind::Transient);
        vulkan.image(&buffer, Use::Source).unwrap();
    });
}

#[test]
fn four_thousand_imports_of_one_buffer_leave_nothing_behind() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let buffer = buffer_on(&guest.vgem());
        let round = |count| {
            for _ in 0..count {
                vulkan.import_image(&buffer, Use::Destination).unwrap();
            }
        };
        round(512);
        let before = resident_pages();
        round(4096);
        assert_unchanged(before);
    });
}

#[test]
fn four_thousand_imported_buffers_leave_nothing_behind() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let dumb = Dumb::new(&guest.vgem());
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let round = |count| {
            let all: Vec<_> = (0..count)
                .map(|_| {
                    let request = Request::new(16, 16, Fourcc::XRGB8888);
                    let buffer = dumb.allocate(&request).unwrap();
                    let image = vulkan.image(&buffer, Use::Destination).unwrap();
                    (buffer, image)
                })
                .collect();
            assert_eq!(all.len(), count);
        };
        // Hash tables, malloc and the layer get the size that they keep.
        round(4096);
        let before = resident_pages();
        round(4096);
        assert_unchanged(before);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    });
}

/// Memory has noise: what is looked for is 4096 times something.
fn assert_unchanged(before: u64) {
    let after = resident_pages();
    assert!(after <= before + 128, "{before} pages, then {after}");
}

/// Pages of memory that the process has.
fn resident_pages() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn another_layout_of_the_same_memory_is_another_image() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let udmabuf = Udmabuf::open().unwrap();
        let buffer = udmabuf
            .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
            .unwrap();
        // The same memory, looked at as half the height.
        let plane = primeshare::buffer::PlaneFd {
            fd: buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
            offset: 0,
            stride: buffer.planes()[0].stride,
        };
        let half = DmaBuf::new(BufferDesc::linear(64, 32, Fourcc::XRGB8888), [plane]).unwrap();
        let images = [&buffer, &half].map(|b| vulkan.image(b, Use::Source).unwrap());
        assert_ne!(images[0].raw(), images[1].raw());
        assert_eq!(images[1].extent().height, 32);
    });
}
