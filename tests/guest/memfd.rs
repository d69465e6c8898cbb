//! Memory that another program has drawn into, as a dma-buf: wl_shm pools.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use primeshare::alloc::{Allocator, Dumb, Error, Udmabuf};
use primeshare::blit::Strategy;
use primeshare::buffer::{self, BufferDesc};
use primeshare::vk::Use;
use primeshare::{DmaBuf, Errno, Fourcc, Modifier, Request};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::blit::read;
use crate::support::in_guest;

const SIZE: (u32, u32) = (64, 48);
const STRIDE: u32 = 320;

fn desc() -> BufferDesc {
    BufferDesc::linear(SIZE.0, SIZE.1, Fourcc::XRGB8888)
}

/// A client's pool of so many bytes.
fn pool(bytes: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = File::from(rustix::fs::memfd_create("wl_shm", flags).unwrap());
    memfd.set_len(bytes).unwrap();
    memfd
}

/// Draws a picture as a client does, from this byte on.
fn draw(pool: &File, offset: u32, seed: u8) -> Vec<Vec<u8>> {
    let row = |y: u32| -> Vec<u8> {
        let columns = 0..SIZE.0 * 4;
        columns.map(|x| seed ^ x as u8 ^ (3 * y) as u8).collect()
    };
    let rows: Vec<_> = (0..SIZE.1).map(row).collect();
    for (y, row) in (0_u64..).zip(&rows) {
        let place = u64::from(offset) + y * u64::from(STRIDE);
        pool.write_all_at(row, place).unwrap();
    }
    rows
}

fn shared(pool: impl AsFd, offset: u32) -> Result<DmaBuf, Error> {
    let udmabuf = Udmabuf::open().unwrap();
    udmabuf.from_memfd(pool, desc(), [(offset, STRIDE)])
}

#[test]
fn a_clients_memory_is_a_buffer_without_a_copy() {
    in_guest(|guest| {
        // At the start of a page, within one, and pages later.
        for offset in [0, 64, 4096 * 3 + 256] {
            let pool = pool(16 * 4096);
            let drawn = draw(&pool, offset, 1);
            let buffer = shared(&pool, offset).unwrap();
            assert!(read(&buffer) == drawn, "at {offset}");
            // It is the same memory.
            let drawn = draw(&pool, offset, 2);
            assert!(read(&buffer) == drawn, "drawn later, at {offset}");
            drop(pool);
            assert!(read(&buffer) == drawn, "the client has gone");
            let imported = guest.vkms().import(&buffer).unwrap();
            assert_eq!(imported.objects().len(), 1);
        }
    });
}

#[test]
fn a_gpu_reads_a_clients_memory_without_a_copy() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let vkms = guest.vkms();
        let gpus = crate::blit::two_gpus(guest);
        let strategies = crate::blit::forced(Strategy::Pull);
        let blitter = crate::blit::blitter_by(&gpus, &vkms, &vkms, &strategies);
        for offset in [0, 4096 * 3 + 256] {
            let pool = pool(16 * 4096);
            let buffer = shared(&pool, offset).unwrap();
            let image = vulkan.import_image(&buffer, Use::Source).unwrap();
            for seed in [4, 5] {
                let drawn = draw(&pool, offset, seed);
                let request = Request::new(SIZE.0, SIZE.1, Fourcc::XRGB8888);
                let copy = Dumb::new(&vkms).allocate(&request).unwrap();
                crate::blit::blit(&blitter, &buffer, &copy, &[], &[]).unwrap();
                assert!(read(&copy) == drawn, "at {offset}, {seed}");
            }
            drop(image);
        }
    });
}

#[cfg(feature = "wayland")]
#[test]
fn a_lack_of_fds_is_no_lasting_refusal_of_a_clients_memory() {
    use primeshare::wayland::{ShmFormat, ShmPool};

    in_guest(|_| {
        let udmabuf = Udmabuf::open().unwrap();
        let of = |pool: File| {
            let pool = ShmPool::new(pool.into(), 4096).unwrap();
            let buffer = pool.buffer(0, (16, 16), 64, ShmFormat(1), |_| true);
            buffer.unwrap()
        };
        let buffer = of(pool(4096));
        let refused = crate::faults::fds::with_room_for(0, || buffer.dma_buf(&udmabuf));
        assert_eq!(refused.unwrap_err().errno(), Some(Errno::EMFILE));
        let made = buffer.dma_buf(&udmabuf).unwrap().id();
        assert_eq!(buffer.dma_buf(&udmabuf).unwrap().id(), made);
        // What will be refused again is not asked again.
        let unsealable = rustix::fs::memfd_create("old", MemfdFlags::CLOEXEC).unwrap();
        let unsealable = File::from(unsealable);
        unsealable.set_len(4096).unwrap();
        let buffer = of(unsealable);
        for _ in 0..2 {
            let refused = buffer.dma_buf(&udmabuf).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::EPERM));
        }
    });
}

#[test]
fn a_clients_pool_can_grow_and_cannot_shrink_while_it_is_a_buffer() {
    in_guest(|_| {
        let pool = pool(16 * 4096);
        let drawn = draw(&pool, 0, 3);
        let buffer = shared(&pool, 0).unwrap();
        pool.set_len(32 * 4096).unwrap();
        pool.set_len(4096).unwrap_err();
        assert!(read(&buffer) == drawn);
        // A seal that is there already will do.
        rustix::fs::fcntl_add_seals(&pool, SealFlags::SEAL).unwrap();
        shared(&pool, 4096).unwrap();
    });
}

#[test]
fn memory_that_cannot_be_shared_is_refused_with_the_reason() {
    in_guest(|guest| {
        let small = pool(4096);
        let outside = shared(&small, 0).unwrap_err();
        let is_outside = matches!(
            outside,
            Error::Layout(buffer::Error::OutOfBounds { size: 4096, .. })
        );
        assert!(is_outside, "{outside}");
        let at_the_end = shared(pool(16 * 4096), 15 * 4096).unwrap_err();
        assert!(matches!(at_the_end, Error::Layout(_)), "{at_the_end}");

        // As clients made them before memfd, and as no client may.
        let unsealable = rustix::fs::memfd_create("old", MemfdFlags::CLOEXEC).unwrap();
        let unsealable = File::from(unsealable);
        unsealable.set_len(16 * 4096).unwrap();
        let errno = |error: Error| match error {
            Error::Seal { errno } => errno,
            error => panic!("{error}"),
        };
        assert_eq!(errno(shared(&unsealable, 0).unwrap_err()), Errno::EPERM);
        let sealed = pool(16 * 4096);
        rustix::fs::fcntl_add_seals(&sealed, SealFlags::SEAL).unwrap();
        assert_eq!(errno(shared(&sealed, 0).unwrap_err()), Errno::EPERM);
        let null = File::open("/dev/null").unwrap();
        assert_eq!(errno(shared(&null, 0).unwrap_err()), Errno::EINVAL);
        let buffer = crate::support::buffer_on(&guest.vgem());
        let dma_buf = buffer.plane_fd(0).unwrap();
        assert_eq!(errno(shared(dma_buf, 0).unwrap_err()), Errno::EINVAL);

        // Its last page is cut off.
        let error = shared(pool(u64::from(48 * STRIDE)), 0).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");

        let written = pool(16 * 4096);
        rustix::fs::fcntl_add_seals(&written, SealFlags::WRITE).unwrap();
        let error = shared(&written, 0).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");

        let udmabuf = Udmabuf::open().unwrap();
        let tiled = desc().with_modifier(Modifier(0x0100_0000_0000_0001));
        let pool = pool(16 * 4096);
        let refused = udmabuf.from_memfd(&pool, tiled, [(0, STRIDE)]);
        assert!(matches!(refused.unwrap_err(), Error::Modifiers { .. }));
        let unknown = desc().with_fourcc(Fourcc(0x3030_3030));
        let refused = udmabuf.from_memfd(&pool, unknown, [(0, STRIDE)]);
        assert!(matches!(refused.unwrap_err(), Error::Format { .. }));
        let planes = [(0, STRIDE); 6];
        let refused = udmabuf.from_memfd(&pool, desc(), planes).unwrap_err();
        assert!(matches!(refused, Error::Layout(_)), "{refused}");
    });
}
