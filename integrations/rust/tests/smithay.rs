//! Smithay's buffers, on vgem and vkms.
#![cfg(feature = "smithay")]

mod common;

use common::{buffer_on, device};
use primeshare::alloc::{Dumb, Usage};
use primeshare::buffer::PlaneRef;
use primeshare::{Allocator as _, DmaBuf, Fourcc, Request};
use primeshare_smithay::{SmithayAllocator, from_smithay, to_smithay};
use smithay::backend::allocator::{self, Allocator as _, Buffer as _};

/// How many fds are open. One test of this file runs at a time.
fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All that counts fds is one test.
#[test]
fn a_buffer_goes_there_and_back_with_its_identity() {
    let (vgem, vkms) = (device("vgem"), device("vkms"));
    let buffer = buffer_on(&vgem);
    let before = fds();
    let dmabuf = to_smithay(&buffer).unwrap();
    assert_eq!(
        (dmabuf.width(), dmabuf.height(), dmabuf.num_planes()),
        (64, 64, 1)
    );
    assert_eq!(dmabuf.format().code, allocator::Fourcc::Xrgb8888);
    assert_eq!(dmabuf.format().modifier, allocator::Modifier::Linear);
    assert_eq!(fds(), before + 1);
    let back = from_smithay(&dmabuf).unwrap();
    assert_eq!(fds(), before + 2);
    assert_eq!((back.id(), back.desc()), (buffer.id(), buffer.desc()));
    assert_eq!(back.planes(), buffer.planes());
    // One handle for both.
    let (ours, theirs) = (vkms.import(&buffer).unwrap(), vkms.import(&back).unwrap());
    assert_eq!(ours.object(), theirs.object());
    drop((dmabuf, back, ours, theirs));
    assert_eq!(fds(), before);

    // Two planes in one dma-buf: two fds for Smithay, and one for the library.
    let request = Request::new(64, 64, Fourcc::NV12);
    let planar = Dumb::new(&vgem).allocate(&request).unwrap();
    let before = fds();
    let dmabuf = to_smithay(&planar).unwrap();
    assert_eq!((dmabuf.num_planes(), fds()), (2, before + 2));
    let back = from_smithay(&dmabuf).unwrap();
    assert_eq!(fds(), before + 3);
    assert_eq!((back.id(), back.planes()), (planar.id(), planar.planes()));
    drop((planar, dmabuf, back));

    // An allocator, whose buffers have one fd more than none.
    let before = fds();
    let mut smithays = SmithayAllocator {
        allocator: Dumb::new(&vgem),
        usage: Usage::SCANOUT,
    };
    let linear = [allocator::Modifier::Linear];
    let made = smithays
        .create_buffer(32, 16, allocator::Fourcc::Argb8888, &linear)
        .unwrap();
    assert_eq!((made.width(), made.height(), fds()), (32, 16, before + 1));
    let tiled = [allocator::Modifier::I915_x_tiled];
    smithays
        .create_buffer(32, 16, allocator::Fourcc::Argb8888, &tiled)
        .unwrap_err();
    assert_eq!(
        vkms.import(&from_smithay(&made).unwrap())
            .unwrap()
            .objects()
            .len(),
        1
    );
    drop(made);
    assert_eq!(fds(), before);

    // A format that Smithay does not know.
    let plane = PlaneRef {
        fd: buffer.plane_fd(0).unwrap(),
        offset: 0,
        stride: 256,
    };
    let desc = buffer.desc().with_fourcc(Fourcc(0x3030_3030));
    let unknown = DmaBuf::from_borrowed(desc, [plane]).unwrap();
    assert_eq!(
        to_smithay(&unknown).unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
    assert_eq!(unknown.fourcc(), Fourcc(0x3030_3030));
}
