//! Who owns fds: none is left open, and none is closed that belongs to somebody else.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use primeshare::alloc::Dumb;
use primeshare::buffer::{BufferId, PlaneFd};
use primeshare::vk::ash::vk::BufferUsageFlags;
use primeshare::vk::{Error, ImageAllocator, Use};
use primeshare::{Allocator, BufferDesc, DmaBuf, ErrorKind, Fourcc, Modifier, Request};

use crate::child::{self, Child};
use crate::faults::fds::with_room_for;
use crate::faults::memory::FailNth;
use crate::support::{Guest, PATIENCE, buffer_on, can_run, in_guest, without_checks};

/// A buffer that somebody else exported read-only: lavapipe maps what it imports for writing, and
/// so refuses it.
pub(super) fn read_only(guest: &Guest) -> DmaBuf {
    let vgem = guest.vgem();
    let dumb = drm_ffi::mode::dumbbuffer::create(vgem.as_fd(), 64, 64, 32, 0).unwrap();
    let fd = crate::kernel::export(vgem.as_fd(), dumb.handle, libc::O_CLOEXEC);
    drm_ffi::gem::close(vgem.as_fd(), dumb.handle).unwrap();
    let plane = PlaneFd {
        fd,
        offset: 0,
        stride: dumb.pitch,
    };
    DmaBuf::new(BufferDesc::linear(64, 64, Fourcc::XRGB8888), [plane]).unwrap()
}

#[test]
fn a_refused_dma_buf_leaves_no_fd_behind_and_says_that_it_is_read_only() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let read_only = read_only(guest);
        for _ in 0..3 {
            let refused = vulkan.import_image(&read_only, Use::Source).unwrap_err();
            assert!(
                matches!(&refused, Error::ReadOnly { device } if device.contains("llvmpipe")),
                "{refused:?}"
            );
            // `in_guest` finds one that was left open, this one that was closed in the driver's
            // stead.
            let fd = read_only.plane_fd(0).unwrap();
            assert_eq!(BufferId::of(fd), Ok(read_only.id()));
        }
    });
}

/// Mesa 25.0 closes what it refuses, and the number is another thread's at once: here that thread
/// takes it for an fd of the very same dma-buf, so that looking at it would not tell.
#[test]
fn refused_imports_close_no_other_threads_fds() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let read_only = read_only(guest);
        let good = Dumb::new(&guest.vkms());
        let good = good
            .allocate(&Request::new(64, 64, Fourcc::XRGB8888))
            .unwrap();
        let (done, dups) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let mine: Vec<_> = (0..8)
                            .map(|_| read_only.plane_fd(0).unwrap().try_clone_to_owned().unwrap())
                            .collect();
                        std::thread::yield_now();
                        if mine.iter().any(|fd| BufferId::of(fd) != Ok(read_only.id())) {
                            done.store(true, Ordering::Relaxed);
                            panic!("closed by another");
                        }
                        dups.fetch_add(mine.len(), Ordering::Relaxed);
                    }
                });
            }
            // A busy machine gives the others little time: it takes as long as they need for some.
            let import = || {
                let mut rounds = 0;
                while rounds < 150 || dups.load(Ordering::Relaxed) <= 100 {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    rounds += 1;
                    let refused = vulkan.import_image(&read_only, Use::Source);
                    assert!(matches!(refused, Err(Error::ReadOnly { .. })));
                    vulkan.import_image(&good, Use::Source).unwrap();
                }
            };
            let importers = [(); 3].map(|()| scope.spawn(import));
            let results = importers.map(|thread| thread.join());
            done.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
    });
}

/// A driver that finds no free fd may say all the same that it gave one.
#[test]
fn a_lack_of_fds_is_an_error_of_allocating_and_passes() {
    if child::is_here() {
        return without_checks(allocate_without_fds);
    }
    in_guest(|guest| match guest.has_old_mesa() {
        // It forgets fds of its own: in `llvmpipe_resource_alloc_udmabuf` an inner `mem_fd` hides the
        // one that is closed.
        true => {
            let name = "vulkan::fds::a_lack_of_fds_is_an_error_of_allocating_and_passes";
            Child::start(name, &[]).assert_success(PATIENCE);
        }
        false => allocate_without_fds(guest),
    });
}

fn allocate_without_fds(guest: &Guest) {
    let vulkan = guest.vulkan();
    let exporter = ImageAllocator::new(&vulkan, Use::Source);
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    let modifiers = [Modifier::LINEAR];
    let usage = BufferUsageFlags::TRANSFER_SRC;
    let image = || {
        vulkan
            .create_image(64, 64, Fourcc::XRGB8888, &modifiers, Use::Source)
            .map(drop)
    };
    let bytes = || {
        vulkan
            .create_buffer(64, 64, Fourcc::XRGB8888, usage)
            .map(drop)
    };
    let exported = || exporter.create_wait(&request).map(drop);
    let operations: [&dyn Fn() -> Result<(), Error>; 3] = [&image, &bytes, &exported];
    for operation in operations {
        let mut refusals = 0;
        for room in 0..8 {
            if let Err(error) = with_room_for(room, operation) {
                assert!(
                    error.kind() == ErrorKind::Transient,
                    "room for {room}: {error}"
                );
                refusals += 1;
            }
        }
        assert!((1..8).contains(&refusals), "{refusals}");
    }
}

#[test]
fn a_refused_import_leaves_no_fd_behind_however_few_are_free() {
    in_guest(|guest| {
        let read_only = read_only(guest);
        for room in 0..6 {
            // What it has learnt of the driver, a device remembers.
            let vulkan = guest.vulkan();
            let before = open_fds();
            let refused = with_room_for(room, || vulkan.import_image(&read_only, Use::Source));
            assert!(refused.is_err(), "room for {room}");
            assert_eq!(open_fds(), before, "room for {room}: {refused:?}");
            let refused = vulkan.import_image(&read_only, Use::Source);
            assert!(
                matches!(refused, Err(Error::ReadOnly { .. })),
                "{refused:?}"
            );
        }
    });
}

/// Drivers answer that the handle is invalid, which is also their answer to memory that they never take.
#[test]
fn an_import_that_fails_for_lack_of_kernel_memory_passes() {
    in_guest(|guest| {
        let has_faults = Path::new("/sys/kernel/debug/failslab").exists();
        if !can_run(has_faults, "a kernel that injects faults") {
            return;
        }
        let vulkan = guest.vulkan();
        let buffer = buffer_on(&guest.vgem());
        let import = || vulkan.import_image(&buffer, Use::Source).map(drop);
        // What the driver makes once is made by now.
        import().unwrap();
        let faults = FailNth::here();
        let mut refusals = 0;
        for n in 1.. {
            let (imported, met) = faults.nth(n, import);
            if let Err(error) = imported {
                assert!(
                    error.kind() == ErrorKind::Transient,
                    "allocation {n}: {error}"
                );
                refusals += 1;
            }
            vulkan.forget_refusals();
            import().unwrap();
            if !met {
                break;
            }
        }
        assert!(refusals > 0);
    });
}

/// How many fds this process has open, the directory's own among them.
fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
