//! The CPU's access to buffers: what it waits for, that it ends, and where the rows are.

mod brackets;
mod host_copy;

use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::buffer::PlaneFd;
use primeshare::sync::{Access, BufferMapping, Error, Mapping, implicit};
use primeshare::{Allocator, BufferDesc, DmaBuf, Errno, Fourcc, Modifier, Request};

use crate::fences::asleep::meanwhile;
use crate::fences::sw_sync::{self, Timeline};
use crate::fences::vgem::Fence;
use crate::support::{Guest, PATIENCE, buffer_on, in_guest, of_two_dma_bufs};
use brackets::Call::{EndRead, EndReadWrite, EndWrite, StartRead, StartReadWrite, StartWrite};

const AT_ONCE: Duration = Duration::ZERO;

fn allocators(guest: &Guest) -> [Box<dyn Allocator>; 4] {
    [
        Box::new(Udmabuf::open().unwrap()),
        Box::new(DmaHeap::system().unwrap()),
        Box::new(Dumb::new(&guest.vgem())),
        Box::new(Dumb::new(&guest.vkms())),
    ]
}

/// A buffer whose planes begin at odd places of one dma-buf, with rows of odd lengths.
fn crooked() -> DmaBuf {
    let memory = Udmabuf::open()
        .unwrap()
        .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
        .unwrap();
    let plane = |offset, stride| PlaneFd {
        fd: memory.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        offset,
        stride,
    };
    let layout = BufferDesc::linear(33, 21, Fourcc::NV12);
    DmaBuf::new(layout, [plane(101, 57), plane(5003, 71)]).unwrap()
}

#[test]
fn rows_lie_where_offset_and_stride_say() {
    in_guest(|_| {
        let buffer = crooked();
        let whole = Mapping::new(&buffer.objects()[0]);
        let mut whole = whole.unwrap();
        let size = whole.size();
        let before = vec![0xa5; size];
        let mut fill = whole.begin_wait(Access::Write, PATIENCE).unwrap();
        fill.write(0, &before).unwrap();
        fill.end().unwrap();

        let mut expected = before;
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        for (plane, (row_bytes, height)) in [(33, 21), (34, 11)].into_iter().enumerate() {
            let place = buffer.planes()[plane];
            let mut view = access.plane_mut(plane).unwrap();
            assert_eq!(view.as_plane().height(), height);
            assert_eq!(view.as_plane().row_bytes(), row_bytes);
            assert_eq!(view.as_plane().stride(), place.stride as usize);
            assert!(view.row(height).is_none() && view.row(usize::MAX).is_none());
            // Every other row alone, then the other rows by one iterator.
            let pixels = |row: usize| vec![(plane * 100 + row) as u8; row_bytes];
            for row in (0..height).step_by(2) {
                view.row(row).unwrap().write(0, &pixels(row)).unwrap();
            }
            let rows: Vec<_> = view.into_rows().collect();
            assert_eq!(rows.len(), height);
            for (row, mut bytes) in rows.into_iter().enumerate().skip(1).step_by(2) {
                assert_eq!(bytes.bytes(), row_bytes);
                bytes.write(0, &pixels(row)).unwrap();
            }
            for row in 0..height {
                let start = (place.offset + place.stride * row as u32) as usize;
                expected[start..start + row_bytes].copy_from_slice(&pixels(row));
            }
        }
        access.end().unwrap();

        // Read by bytes: the pixels are there, and between them nothing changed.
        let mut found = vec![0; size];
        let all = whole.begin_wait(Access::Read, PATIENCE).unwrap();
        all.read(0, &mut found).unwrap();
        drop(all);
        assert!(found == expected);
        // And by rows, from the bottom up.
        let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        let chroma = access.plane(1).unwrap();
        let mut last = vec![0; 34];
        chroma
            .rows()
            .next_back()
            .unwrap()
            .read(0, &mut last)
            .unwrap();
        assert_eq!(last, [110; 34]);
        assert_eq!(chroma.rows().count(), 11);
        // SAFETY: the row has so many bytes, and nobody writes them.
        let first = unsafe { chroma.row(0).unwrap().as_ptr().read_volatile() };
        assert_eq!(first, 100);
    });
}

#[test]
fn nothing_outside_of_a_row_is_touched() {
    in_guest(|_| {
        let buffer = crooked();
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        assert_eq!(mapping.planes(), 2);
        let mut access = mapping.begin_wait(Access::ReadWrite, PATIENCE).unwrap();
        let range = |start, end| {
            Err(Error::Range {
                start,
                end,
                size: 33,
            })
        };
        let mut luma = access.plane_mut(0).unwrap();
        let mut row = luma.row(20).unwrap();
        assert_eq!(row.write(1, &[0; 33]), range(1, 34));
        assert_eq!(row.write(usize::MAX, &[0]), range(u64::MAX, u64::MAX));
        assert_eq!(row.as_row().read(34, &mut []), range(34, 34));
        assert_eq!(row.as_row().part(30, 4).map(|_| ()), range(30, 34));
        assert_eq!(row.as_row().part(30, 3).unwrap().bytes(), 3);
        assert_eq!(row.write(33, &[]), Ok(()));
        let none = Error::NoSuchPlane {
            plane: 2,
            planes: 2,
        };
        assert_eq!(access.plane(2).unwrap_err(), none);
        assert_eq!(access.plane_mut(2).unwrap_err(), none);
    });
}

#[test]
fn access_for_reading_gives_no_rows_to_write() {
    in_guest(|_| {
        let buffer = crooked();
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        let mut access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        assert_eq!(access.plane_mut(0).unwrap_err(), Error::ReadOnly);
        drop(access);
        let mut mapping = BufferMapping::read_only(&buffer).unwrap();
        let refused = mapping.begin_wait(Access::Write, PATIENCE).unwrap_err();
        assert_eq!(refused, Error::ReadOnly);
        assert!(
            mapping
                .begin_wait(Access::Read, PATIENCE)
                .unwrap()
                .plane(0)
                .is_ok()
        );
    });
}

#[test]
fn only_buffers_with_known_rows_have_rows() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let memory = buffer_on(&vgem);
        let tiled = Modifier(0x0100_0000_0000_0001);
        for (fourcc, modifier) in [
            (Fourcc::XRGB8888, tiled),
            (Fourcc::XRGB8888, Modifier::INVALID),
            (Fourcc(0x3436_5258), Modifier::LINEAR),
        ] {
            let plane = PlaneFd {
                fd: memory.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
                offset: 0,
                stride: 256,
            };
            let layout = BufferDesc::linear(64, 64, fourcc).with_modifier(modifier);
            let buffer = DmaBuf::new(layout, [plane]).unwrap();
            let refused = BufferMapping::new(&buffer).unwrap_err();
            assert_eq!(refused, Error::RowsUnknown { fourcc, modifier });
        }
    });
}

#[test]
fn rows_are_copied_from_one_buffer_to_another() {
    in_guest(|guest| {
        let buffers = allocators(guest).map(|allocator| {
            let request = Request::new(101, 33, Fourcc::RGB565);
            allocator.allocate(&request).unwrap()
        });
        let mut mappings = buffers.each_ref().map(|it| BufferMapping::new(it).unwrap());
        let mut first = mappings[0].begin_wait(Access::Write, PATIENCE).unwrap();
        for (number, mut row) in first.plane_mut(0).unwrap().into_rows().enumerate() {
            row.write(0, &[number as u8; 202]).unwrap();
        }
        first.end().unwrap();
        for to in 1..mappings.len() {
            let (done, rest) = mappings.split_at_mut(to);
            let source = done[to - 1].begin_wait(Access::Read, PATIENCE).unwrap();
            let mut target = rest[0].begin_wait(Access::ReadWrite, PATIENCE).unwrap();
            let rows = source.plane(0).unwrap();
            let into = target.plane_mut(0).unwrap().into_rows();
            for (mut into, from) in into.zip(rows.rows()) {
                into.copy_from(0, from).unwrap();
                assert!(into.copy_from(1, from).is_err());
            }
            for (number, row) in target.plane(0).unwrap().rows().enumerate() {
                let mut read = [0; 202];
                row.read(0, &mut read).unwrap();
                assert_eq!(read, [number as u8; 202]);
            }
        }
    });
}

#[test]
fn reading_waits_for_writers_and_writing_for_everybody() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        let mut planes = BufferMapping::new(&buffer).unwrap();
        for (device, cpu) in [
            (Access::Write, Access::Read),
            (Access::Write, Access::Write),
            (Access::Read, Access::Write),
        ] {
            for wait_for_rows in [false, true] {
                let fence = Fence::attach(&vgem, &buffer, device);
                let refused = mapping.begin_wait(cpu, AT_ONCE).map(drop);
                assert_eq!(refused, Err(Error::TimedOut));
                let soon = Duration::from_millis(1);
                let refused = planes.begin_wait(cpu, soon).map(drop);
                assert_eq!(refused, Err(Error::TimedOut));
                let fence = std::sync::Mutex::new(Some(fence));
                meanwhile(
                    || match wait_for_rows {
                        false => mapping.begin_wait(cpu, PATIENCE).map(drop).unwrap(),
                        true => planes.begin_wait(cpu, PATIENCE).map(drop).unwrap(),
                    },
                    || fence.lock().unwrap().take().unwrap().signal(),
                );
                mapping.begin_wait(cpu, AT_ONCE).unwrap().end().unwrap();
            }
        }
        // Readers do not wait for each other.
        let fence = Fence::attach(&vgem, &buffer, Access::Read);
        drop(mapping.begin_wait(Access::Read, PATIENCE).unwrap());
        drop(planes.begin_wait(Access::Read, AT_ONCE).unwrap());
        fence.signal();
    });
}

#[test]
fn access_waits_for_an_explicit_fence_that_was_left_in_the_buffer() {
    in_guest(|guest| {
        if !sw_sync::is_there() {
            return;
        }
        let parts = [buffer_on(&guest.vgem()), buffer_on(&guest.vkms())];
        let buffer = of_two_dma_bufs(&parts[0], &parts[1]);
        let timeline = Timeline::new();
        // In the second of its dma-bufs.
        implicit::import_sync_file(&parts[1], &timeline.fence(1), Access::Write).unwrap();
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        let refused = mapping.begin_wait(Access::Read, AT_ONCE).map(drop);
        assert_eq!(refused, Err(Error::TimedOut));
        meanwhile(
            || {
                mapping
                    .begin_wait(Access::Read, PATIENCE)
                    .unwrap()
                    .end()
                    .unwrap()
            },
            || timeline.advance(1),
        );
    });
}

#[test]
fn every_access_that_begins_ends_once_also_by_a_panic() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = of_two_dma_bufs(&buffer_on(&vgem), &buffer_on(&vgem));
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        let mut planes = BufferMapping::new(&buffer).unwrap();
        let (panicked, calls) = brackets::of(&[], || {
            drop(mapping.begin_wait(Access::Read, PATIENCE).unwrap());
            mapping
                .begin_wait(Access::Write, PATIENCE)
                .unwrap()
                .end()
                .unwrap();
            catch_unwind(AssertUnwindSafe(|| {
                let _access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
                std::panic::resume_unwind(Box::new(()));
            }))
            .is_err()
        });
        assert!(panicked);
        let once = [
            StartRead, EndRead, StartWrite, EndWrite, StartWrite, EndWrite,
        ];
        assert_eq!(calls, once);
        let (panicked, calls) = brackets::of(&[], || {
            planes
                .begin_wait(Access::Read, PATIENCE)
                .unwrap()
                .end()
                .unwrap();
            catch_unwind(AssertUnwindSafe(|| {
                let _access = planes.begin_wait(Access::Write, PATIENCE).unwrap();
                std::panic::resume_unwind(Box::new(()));
            }))
            .is_err()
        });
        assert!(panicked);
        let both = [StartRead, StartRead, EndRead, EndRead];
        assert_eq!(calls[..4], both);
        assert_eq!(calls[4..], [StartWrite, StartWrite, EndWrite, EndWrite]);
    });
}

#[test]
fn a_call_that_is_interrupted_is_made_again() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        let (eintr, eagain) = (Some(Errno::EINTR), Some(Errno::EAGAIN));
        let answers = [eintr, eagain, eagain, None, eagain, eintr, None];
        let (ended, calls) = brackets::of(&answers, || {
            mapping.begin_wait(Access::Write, PATIENCE).unwrap().end()
        });
        assert_eq!(ended, Ok(()));
        assert_eq!(calls[..4], [StartWrite; 4]);
        assert_eq!(calls[4..], [EndWrite; 3]);
    });
}

#[test]
fn access_that_cannot_begin_says_why_and_leaves_nothing_begun() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = of_two_dma_bufs(&buffer_on(&vgem), &buffer_on(&vgem));
        let mut planes = BufferMapping::new(&buffer).unwrap();
        let errno = Errno::ENODEV;
        let mut begin = |answers: &[Option<Errno>]| {
            brackets::of(answers, || {
                planes
                    .begin_wait(Access::Read, PATIENCE)
                    .and_then(|access| access.end())
            })
        };
        let (refused, calls) = begin(&[Some(errno)]);
        assert_eq!(
            (refused, calls),
            (Err(Error::Sync { errno }), vec![StartRead])
        );
        let (refused, calls) = begin(&[None, Some(errno)]);
        assert_eq!(refused, Err(Error::Sync { errno }));
        assert_eq!(calls, [StartRead, StartRead, EndRead]);
        // If an END fails, that is reported, and the other END is still made.
        let (refused, calls) = begin(&[None, None, Some(errno)]);
        assert_eq!(refused, Err(Error::SyncEnd { errno }));
        assert_eq!(calls, [StartRead, StartRead, EndRead, EndRead]);
    });
}

#[test]
fn a_mapping_is_begun_and_ended_often_on_memory_of_every_kind() {
    in_guest(|guest| {
        for allocator in allocators(guest) {
            let request = Request::new(64, 64, Fourcc::NV12);
            let buffer = allocator.allocate(&request).unwrap();
            let mut mapping = BufferMapping::new(&buffer).unwrap();
            for access in [Access::Read, Access::Write, Access::Read] {
                let ended = mapping.begin_wait(access, PATIENCE).unwrap().end();
                assert_eq!(ended, Ok(()), "{}", allocator.name());
            }
        }
    });
}

#[test]
fn a_mapping_keeps_no_handle() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        drop(buffer);
        assert_eq!(vgem.stats().handles, 0);
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        let mut plane = access.plane_mut(0).unwrap();
        plane.row(63).unwrap().write(0, &[1; 256]).unwrap();
        access.end().unwrap();
    });
}

#[test]
fn an_access_tells_the_driver_no_more_than_what_is_done() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        for (access, told) in [
            (Access::Read, [StartRead, EndRead]),
            (Access::Write, [StartWrite, EndWrite]),
            (Access::ReadWrite, [StartReadWrite, EndReadWrite]),
        ] {
            let begin = || mapping.begin_wait(access, PATIENCE).unwrap().end();
            let (ended, calls) = brackets::of(&[], begin);
            assert_eq!((ended, calls), (Ok(()), told.to_vec()));
        }
    });
}

#[test]
fn what_was_begun_for_writing_only_is_not_read() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut whole = Mapping::new(&buffer.objects()[0]).unwrap();
        let access = whole.begin_wait(Access::Write, PATIENCE).unwrap();
        assert_eq!(access.read(0, &mut [0]), Err(Error::WriteOnly));
        let mut other = Mapping::new(&buffer.objects()[0]).unwrap();
        let mut into = other.begin_wait(Access::Write, PATIENCE).unwrap();
        assert_eq!(into.copy_from(0, &access, 0, 4), Err(Error::WriteOnly));
        drop((into, access));
        let mut planes = BufferMapping::new(&buffer).unwrap();
        let mut access = planes.begin_wait(Access::Write, PATIENCE).unwrap();
        assert_eq!(access.plane(0).err(), Some(Error::WriteOnly));
        assert!(access.plane_mut(0).is_ok());
        drop(access);
        let access = planes.begin_wait(Access::ReadWrite, PATIENCE).unwrap();
        assert!(access.plane(0).is_ok());
    });
}

/// Makes a page of a mapping unreadable, as if a driver had moved the memory out of the BAR: maps a page past
/// the end of a file there.
fn put_out_of_reach(mapping: &mut BufferMapping) {
    let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    let first = access.plane(0).unwrap().row(0).unwrap().as_ptr();
    let file = rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_FIXED,
    );
    // SAFETY: one page of the mapping, which the test does not touch any more.
    let page = unsafe {
        libc::mmap(
            first.cast_mut().cast(),
            4096,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    assert_eq!(page.cast_const().cast(), first);
}

#[test]
fn memory_that_cannot_be_read_is_a_typed_error() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        put_out_of_reach(&mut mapping);
        let errno = Errno::EFAULT;
        for (access, bracket) in [
            (Access::Read, [StartRead, EndRead]),
            (Access::Write, [StartWrite, EndWrite]),
        ] {
            let begin = || mapping.begin_wait(access, PATIENCE).map(drop);
            let (refused, calls) = brackets::of(&[], begin);
            assert_eq!(refused, Err(Error::Unreadable { errno }));
            // The access that was begun has been ended.
            assert_eq!(calls, bracket);
        }
    });
}
