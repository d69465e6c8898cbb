//! Clients that break the rules, die, or ask for too much. Each is told the protocol's own error, or nothing if it did
//! nothing illegal; the compositor lives, and a well-behaved client beside it keeps its frames.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use primeshare::sync::Access;
use primeshare::{DmaBuf, Fourcc};
use rustix::fs::{MemfdFlags, ftruncate};
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_shm::{Format, WlShm};
use wayland_client::protocol::wl_subcompositor::WlSubcompositor;
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_buffer_params_v1::{Flags, ZwpLinuxBufferParamsV1};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1::ZwpLinuxDmabufV1;

use super::client::Client;
use super::compositor::Compositor;
use super::rogue::{Rogue, add, memory, raw_connection};
use super::screen::Screen;
use super::steady::{Done, Intervals, Steady};
use super::{alone, clients_device, dma_buf, picture, support, vgem};

const PARAMS: &str = "zwp_linux_buffer_params_v1";
const SEALABLE: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);
const XRGB: Fourcc = Fourcc::XRGB8888;
/// Frames of the well-behaved client by which it is judged.
const FRAMES: usize = 40;
/// No frame takes as long, whatever others do.
const LONGEST: Duration = Duration::from_secs(3);
/// How much memory the compositor may keep after an attack: allocators keep some, and so do caches.
const KEPT: u64 = 64 << 20;

/// A compositor, and a client beside the malicious ones.
struct Scene {
    steady: Steady,
    usual: Intervals,
    fds: usize,
    bytes: u64,
    compositor: Compositor,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Self {
        Self::with_fds(None)
    }

    /// With so many fds at most.
    fn with_fds(most: Option<u64>) -> Self {
        let alone = alone();
        let compositor = Compositor::start_with_fds(&[], most);
        // The first of the screens, if there are several.
        let steady = Steady::start(&compositor);
        // What the compositor makes once, it has made.
        let mut client = Client::connect(&compositor);
        let whole = dma_buf(&clients_device(), client.size(), XRGB, 1);
        let made = [
            client.memory(client.size(), picture(1), SEALABLE).0,
            client.memory((64, 64), picture(1), MemfdFlags::CLOEXEC).0,
            client.dma_buf(&whole),
            client.dma_buf(&small_buffer()),
        ];
        // Twice for each of the pictures that a screen has.
        made.iter().cycle().take(6 * made.len()).for_each(|buffer| client.frame(buffer));
        drop(client);
        let usual = steady.wait_for(FRAMES);
        let (fds, pages) = compositor.use_of_memory();
        println!("fds before: {:?}", compositor.kinds_of_fds());
        Self { steady, usual, fds, bytes: pages * 4096, compositor, _alone: alone }
    }

    /// Has a malicious client do its work. When it is gone, everything is as before.
    fn attack(&mut self, what: &str, attack: impl FnOnce(&Compositor, &Steady)) {
        let during = self.steady.during(FRAMES, || attack(&self.compositor, &self.steady));
        assert!(!self.compositor.has_ended(), "{what}: the compositor has ended: {}", self.compositor.log());
        self.compositor.wait_for_fds(self.fds);
        let grown = (self.compositor.use_of_memory().1 * 4096).saturating_sub(self.bytes);
        let ratio = during.median.as_secs_f64() / self.usual.median.as_secs_f64();
        println!(
            "{what}: intervals {:?} before and {:?} during (ratio {ratio:.2}), the longest {:?} and {:?}; {} KiB kept",
            self.usual.median,
            during.median,
            self.usual.longest,
            during.longest,
            grown >> 10
        );
        // Attacker, compositor and client have two processors.
        assert!(ratio < 4.0, "{what}: the well-behaved client gets its frames {ratio} times as slowly");
        assert!(during.longest < LONGEST, "{what}: a frame took {:?}", during.longest);
        assert!(grown < KEPT, "{what}: {grown} bytes more");
    }
}

/// 64 x 64 pixels with a stride of 256 bytes.
fn small_buffer() -> DmaBuf {
    dma_buf(&clients_device(), (64, 64), XRGB, 9)
}

fn fd(buffer: &DmaBuf) -> OwnedFd {
    buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap()
}

/// Asks for a buffer of this size in one of the two ways.
fn create(rogue: &Rogue, params: &ZwpLinuxBufferParamsV1, at_once: bool, (width, height): (i32, i32), fourcc: Fourcc) {
    match at_once {
        true => drop(params.create_immed(width, height, fourcc.0, Flags::empty(), &rogue.handle(), ())),
        false => params.create(width, height, fourcc.0, Flags::empty()),
    }
}

/// What it is, planes (index, offset, stride), size, format, and the number of the error.
type Case<'a> = (&'a str, &'a [(u32, u32, u32)], (i32, i32), Fourcc, u32);

#[test]
fn broken_rules_of_linux_dmabuf_are_answered_by_its_errors() {
    let buffer = small_buffer();
    let one = |places: &[(u32, u32, u32)], size: (i32, i32), fourcc: Fourcc, at_once: bool, rogue: &Rogue| {
        let (params, _) = rogue.params();
        for &(index, offset, stride) in places {
            add(&params, fd(&buffer), index, (offset, stride));
        }
        create(rogue, &params, at_once, size, fourcc);
    };
    let whole = (64, 64);
    let end = rustix::fs::seek(fd(&buffer), rustix::fs::SeekFrom::End(0)).unwrap() as u32;
    let high = (64, end as i32 / 256 + 1);
    #[rustfmt::skip]
    let buffers: [Case; 23] = [
        ("no plane", &[], whole, XRGB, 3),
        ("plane 4", &[(4, 0, 256)], whole, XRGB, 1),
        ("a plane far away", &[(u32::MAX, 0, 256)], whole, XRGB, 1),
        ("five planes", &[(0, 0, 256), (1, 0, 256), (2, 0, 256), (3, 0, 256), (4, 0, 256)], whole, XRGB, 1),
        ("a plane twice", &[(0, 0, 256), (0, 0, 256)], whole, XRGB, 2),
        ("a gap", &[(0, 0, 256), (2, 0, 256)], whole, XRGB, 3),
        ("no first plane", &[(1, 0, 256)], whole, XRGB, 3),
        ("too many planes", &[(0, 0, 256), (1, 0, 256)], whole, XRGB, 3),
        ("no format", &[(0, 0, 256)], whole, Fourcc(0), 4),
        ("a format that was not offered", &[(0, 0, 256)], whole, Fourcc::NV12, 4),
        ("no width", &[(0, 0, 256)], (0, 64), XRGB, 5),
        ("no height", &[(0, 0, 256)], (64, 0), XRGB, 5),
        ("a negative width", &[(0, 0, 256)], (-1, 64), XRGB, 5),
        ("a negative height", &[(0, 0, 256)], (64, i32::MIN), XRGB, 5),
        ("an offset behind the end", &[(0, end, 256)], whole, XRGB, 6),
        ("an offset that overflows", &[(0, u32::MAX, 256)], whole, XRGB, 6),
        ("a last row behind the end", &[(0, end - 16380, 256)], whole, XRGB, 6),
        ("no stride", &[(0, 0, 0)], whole, XRGB, 6),
        ("a stride shorter than a row", &[(0, 0, 252)], whole, XRGB, 6),
        ("a stride that overflows", &[(0, 0, u32::MAX)], whole, XRGB, 6),
        ("too wide", &[(0, 0, 256)], (65, 1), XRGB, 6),
        ("too high", &[(0, 0, 256)], high, XRGB, 6),
        ("as large as can be said", &[(0, 0, 256)], (i32::MAX, i32::MAX), XRGB, 5),
    ];
    let mut scene = Scene::new();
    scene.attack("linux-dmabuf", |compositor, _| {
        for (what, places, size, fourcc, code) in buffers {
            for at_once in [false, true] {
                let mut rogue = Rogue::connect(compositor);
                one(places, size, fourcc, at_once, &rogue);
                assert_eq!(rogue.error(what), (PARAMS.to_owned(), code), "{what}, at once: {at_once}");
            }
        }
        for second_modifier in [1, u32::MAX] {
            let mut rogue = Rogue::connect(compositor);
            let (params, _) = rogue.params();
            add(&params, fd(&buffer), 0, (0, 256));
            params.add(fd(&buffer).as_fd(), 1, 0, 256, 0, second_modifier);
            create(&rogue, &params, false, whole, XRGB);
            assert_eq!(rogue.error("two modifiers"), (PARAMS.to_owned(), 4));
        }
        let mut rogue = Rogue::connect(compositor);
        let (params, _) = rogue.params();
        params.add(fd(&buffer).as_fd(), 0, 0, 256, 0x00ab_cdef, 7);
        create(&rogue, &params, false, whole, XRGB);
        assert_eq!(rogue.error("a modifier that was not offered"), (PARAMS.to_owned(), 4));
    });
}

#[test]
fn a_params_object_that_made_a_buffer_makes_no_other() {
    let buffer = small_buffer();
    type Again = fn(&Rogue, &ZwpLinuxBufferParamsV1, OwnedFd);
    let again: [(&str, Again); 4] = [
        ("a second buffer", |rogue, params, _| create(rogue, params, false, (64, 64), XRGB)),
        ("a second buffer at once", |rogue, params, _| create(rogue, params, true, (64, 64), XRGB)),
        ("a plane too late", |_, params, fd| add(params, fd, 1, (0, 256))),
        ("a device too late", |_, params, _| params.set_sampling_device(vec![0; 8])),
    ];
    let mut scene = Scene::new();
    scene.attack("params that were used", |compositor, _| {
        for (what, again) in again {
            let mut rogue = Rogue::connect(compositor);
            let (params, answers) = rogue.params();
            add(&params, fd(&buffer), 0, (0, 256));
            create(&rogue, &params, false, (64, 64), XRGB);
            rogue.roundtrip().expect("the first is legal");
            assert_eq!(answers.created.load(Ordering::Relaxed), 1);
            again(&rogue, &params, fd(&buffer));
            assert_eq!(rogue.error(what), (PARAMS.to_owned(), 0), "{what}");
        }
        for bytes in [0, 4, 7, 9, 16] {
            let mut rogue = Rogue::connect(compositor);
            rogue.params().0.set_sampling_device(vec![0; bytes]);
            assert_eq!(rogue.error("a device of another size"), (PARAMS.to_owned(), 8), "{bytes} bytes");
        }
    });
}

/// Fds of many kinds that are no dma-bufs, each of 16 KiB if it has a size.
fn other_fds() -> [(&'static str, OwnedFd); 6] {
    let (pipe, _) = std::io::pipe().unwrap();
    [
        ("a memfd", memory(16384)),
        ("/dev/null", File::open("/dev/null").unwrap().into()),
        ("a pipe", pipe.into()),
        ("an eventfd", rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()),
        ("a directory", File::open("/").unwrap().into()),
        ("a socket", std::os::unix::net::UnixStream::pair().unwrap().0.into()),
    ]
}

#[test]
fn what_is_no_dma_buf_is_answered_by_failed() {
    let mut scene = Scene::new();
    scene.attack("no dma-bufs", |compositor, _| {
        let mut rogue = Rogue::connect(compositor);
        for (what, fd) in other_fds() {
            let (params, answers) = rogue.params();
            add(&params, &fd, 0, (0, 256));
            create(&rogue, &params, false, (64, 64), XRGB);
            rogue.roundtrip().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(answers.failed.load(Ordering::Relaxed), 1, "{what}");
            assert_eq!(answers.created.load(Ordering::Relaxed), 0, "{what}");
        }
        for (what, fd) in other_fds() {
            let mut rogue = Rogue::connect(compositor);
            let (params, _) = rogue.params();
            add(&params, &fd, 0, (0, 256));
            create(&rogue, &params, true, (64, 64), XRGB);
            assert_eq!(rogue.error(what), (PARAMS.to_owned(), 7), "{what}");
        }
    });
}

#[test]
fn broken_rules_of_wl_shm_are_answered_by_its_errors() {
    let mut scene = Scene::new();
    scene.attack("wl_shm", |compositor, _| {
        let connect = || {
            let rogue = Rogue::connect(compositor);
            let shm: WlShm = rogue.bind(1);
            (rogue, shm)
        };
        for (size, code) in [(0, 1), (-1, 1), (i32::MIN, 1)] {
            let (mut rogue, shm) = connect();
            shm.create_pool(memory(16384).as_fd(), size, &rogue.handle(), ());
            assert_eq!(rogue.error("a pool"), ("wl_shm".to_owned(), code), "{size} bytes");
        }
        // A file may be shorter than its pool, until what it lacks is shown.
        for size in [16385, i32::MAX] {
            let (mut rogue, shm) = connect();
            let pool = shm.create_pool(memory(16384).as_fd(), size, &rogue.handle(), ());
            let buffer = pool.create_buffer(1, 64, 64, 256, Format::Xrgb8888, &rogue.handle(), ());
            rogue.roundtrip().unwrap();
            rogue.client.surface.attach(Some(&buffer), 0, 0);
            rogue.client.surface.commit();
            assert_eq!(rogue.error("past the end"), ("wl_buffer".to_owned(), 2), "{size} bytes");
        }
        for (what, fd) in other_fds().into_iter().skip(1) {
            let (mut rogue, shm) = connect();
            shm.create_pool(fd.as_fd(), 16384, &rogue.handle(), ());
            assert_eq!(rogue.error(what), ("wl_shm".to_owned(), 2), "{what}");
        }
        #[rustfmt::skip]
        let buffers = [
            (-4, 64, 64, 256, 1), (i32::MAX, 64, 64, 256, 1), (4, 64, 64, 256, 1), (0, 0, 64, 256, 1),
            (0, 64, 0, 256, 1), (0, -64, 64, 256, 1), (0, 64, -64, 256, 1), (0, 64, 64, 252, 1),
            (0, 64, 64, 0, 1), (0, -64, -64, -256, 1), (0, 64, 65, 256, 1), (0, i32::MAX, i32::MAX, i32::MAX, 1),
        ];
        for (offset, width, height, stride, code) in buffers {
            let (mut rogue, shm) = connect();
            let pool = shm.create_pool(memory(16384).as_fd(), 16384, &rogue.handle(), ());
            pool.create_buffer(offset, width, height, stride, Format::Xrgb8888, &rogue.handle(), ());
            let found = rogue.error("a buffer outside of its pool");
            assert_eq!(found, ("wl_shm_pool".to_owned(), code), "{offset} {width}x{height} {stride}");
        }
        let (mut rogue, shm) = connect();
        let pool = shm.create_pool(memory(16384).as_fd(), 16384, &rogue.handle(), ());
        pool.create_buffer(0, 64, 64, 256, Format::Nv12, &rogue.handle(), ());
        assert_eq!(rogue.error("planes"), ("wl_shm_pool".to_owned(), 0));
        for size in [16383, 0, -1] {
            let (mut rogue, shm) = connect();
            let pool = shm.create_pool(memory(16384).as_fd(), 16384, &rogue.handle(), ());
            pool.resize(size);
            assert_eq!(rogue.error("another size"), ("wl_shm_pool".to_owned(), 2), "{size} bytes");
        }
    });
}

#[test]
fn a_dma_buf_is_no_memory_for_wl_shm() {
    let mut scene = Scene::new();
    scene.attack("a dma-buf as wl_shm", |compositor, _| {
        let mut rogue = Rogue::connect(compositor);
        let shm: WlShm = rogue.bind(1);
        let pool = shm.create_pool(fd(&small_buffer()).as_fd(), 16384, &rogue.handle(), ());
        let buffer = pool.create_buffer(0, 64, 64, 256, Format::Xrgb8888, &rogue.handle(), ());
        rogue.client.surface.attach(Some(&buffer), 0, 0);
        rogue.client.surface.commit();
        // Some kernels say of a dma-buf that it is a regular file: then it is found out when it is read.
        assert_eq!(rogue.error("a dma-buf").1, 2);
    });
}

#[test]
fn memory_that_is_cut_off_is_an_error_of_its_client_only() {
    let mut scene = Scene::new();
    let gone = ("wl_buffer".to_owned(), 2);
    scene.attack("memory that is cut off", |compositor, _| {
        for (flags, left) in [(MemfdFlags::CLOEXEC, 0), (MemfdFlags::CLOEXEC, 4096), (SEALABLE, 0)] {
            let mut rogue = Rogue::connect(compositor);
            let (buffer, memory) = rogue.client.memory((64, 64), picture(1), flags);
            rogue.roundtrip().unwrap();
            ftruncate(&memory, left).unwrap();
            rogue.client.surface.attach(Some(&buffer), 0, 0);
            rogue.client.surface.commit();
            assert_eq!(rogue.error("cut off before the commit"), gone, "{flags:?}, {left} bytes are left");
        }
        let mut rogue = Rogue::connect(compositor);
        let (buffer, memory) = rogue.client.memory((64, 64), picture(1), MemfdFlags::CLOEXEC);
        (0..3).for_each(|_| rogue.client.frame(&buffer));
        ftruncate(&memory, 0).unwrap();
        rogue.client.surface.damage_buffer(0, 0, 64, 64);
        rogue.client.surface.attach(Some(&buffer), 0, 0);
        rogue.client.surface.commit();
        assert_eq!(rogue.error("cut off after frames"), gone);

        // The compositor has sealed what it reads itself.
        let mut rogue = Rogue::connect(compositor);
        let (buffer, memory) = rogue.client.memory((64, 64), picture(1), SEALABLE);
        (0..3).for_each(|_| rogue.client.frame(&buffer));
        assert_eq!(ftruncate(&memory, 0), Err(rustix::io::Errno::PERM));
        rogue.client.frame(&buffer);

        // The buffer is destroyed before it is read: who is at fault cannot be said any more, and nobody is told.
        let mut rogue = Rogue::connect(compositor);
        let (buffer, memory) = rogue.client.memory((64, 64), picture(1), MemfdFlags::CLOEXEC);
        rogue.roundtrip().unwrap();
        rogue.client.surface.attach(Some(&buffer), 0, 0);
        buffer.destroy();
        ftruncate(&memory, 0).unwrap();
        rogue.client.surface.commit();
        rogue.roundtrip().expect("nothing illegal");
    });
}

#[test]
fn a_picture_with_a_huge_stride_costs_no_more_memory_than_its_pixels() {
    const STRIDE: i32 = 256 << 20;
    let mut scene = Scene::new();
    scene.attack("a huge stride", |compositor, _| {
        let before = compositor.peak_of_memory();
        let mut rogue = Rogue::connect(compositor);
        let shm: WlShm = rogue.bind(1);
        let memory = memory(3 * STRIDE as u64);
        let pool = shm.create_pool(memory.as_fd(), 3 * STRIDE, &rogue.handle(), ());
        let buffer = pool.create_buffer(0, 64, 3, STRIDE, Format::Xrgb8888, &rogue.handle(), ());
        (0..3).for_each(|_| rogue.client.frame(&buffer));
        let peak = compositor.peak_of_memory() - before;
        assert!(peak < KEPT, "{peak} bytes for a picture of 768");
    });
}

#[test]
fn a_fence_that_does_not_come_keeps_only_its_own_surface_waiting() {
    let device = clients_device();
    let mut scene = Scene::new();
    let fds = scene.fds;
    scene.attack("a fence that does not come", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let ready = dma_buf(&device, (64, 64), XRGB, 1);
        let busy = dma_buf(&device, (64, 64), XRGB, 2);
        let (ready, late) = (rogue.client.dma_buf(&ready), rogue.client.dma_buf(&busy));
        rogue.client.frame(&ready);
        let fence = vgem::Fence::attach(&device, &busy, Access::Write);
        let done = Done::default();
        rogue.client.surface.frame(&rogue.handle(), done.clone());
        rogue.client.attach(&late);
        steady.wait_for(FRAMES);
        rogue.roundtrip().expect("a fence may be late");
        assert!(!done.load(Ordering::Acquire), "the commit was applied before its fence");
        // Each commit has a fence of its own, which is an fd.
        for _ in 0..1000 {
            rogue.client.surface.attach(Some(&late), 0, 0);
            rogue.client.surface.commit();
            assert!(rogue.send());
        }
        rogue.roundtrip().expect("a client may commit as often as it likes");
        let most = compositor.use_of_memory().0;
        assert!(most < fds + 64, "{most} fds for commits that wait, and {fds} were open before");
        fence.signal();
        rogue.client.dispatch_until("the frame", || done.load(Ordering::Acquire));
        // Gone while it waits.
        let fence = vgem::Fence::attach(&device, &busy, Access::Write);
        rogue.client.attach(&late);
        drop(rogue);
        steady.wait_for(5);
        compositor.wait_for_fds(fds);
        fence.signal();
    });
}

#[test]
fn a_fence_that_comes_after_the_commit_stops_no_other_screen() {
    let device = clients_device();
    if !support::can_run(Screen::all().len() > 1, "two screens") {
        return;
    }
    let mut scene = Scene::new();
    scene.attack("a fence after the commit", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let whole = dma_buf(&device, rogue.client.size(), XRGB, 3);
        let shown = rogue.client.dma_buf(&whole);
        (0..3).for_each(|_| rogue.client.frame(&shown));
        rogue.client.attach(&shown);
        let fence = vgem::Fence::attach(&device, &whole, Access::Write);
        for _ in 0..5 {
            rogue.client.surface.damage_buffer(0, 0, 64, 64);
            rogue.client.surface.commit();
            rogue.roundtrip().unwrap();
            let during = steady.wait_for(5);
            assert!(during.longest < Duration::from_secs(3), "{during:?}");
        }
        fence.signal();
    });
}

#[test]
fn clients_that_die_in_the_middle_of_a_frame_leave_nothing_behind() {
    let buffer = small_buffer();
    type Life = fn(&mut Rogue, &DmaBuf);
    let lives: [(&str, Life); 8] = [
        ("after attach", |rogue, buffer| {
            let buffer = rogue.client.dma_buf(buffer);
            rogue.client.surface.attach(Some(&buffer), 0, 0);
        }),
        ("after commit", |rogue, buffer| {
            let buffer = rogue.client.dma_buf(buffer);
            rogue.client.surface.attach(Some(&buffer), 0, 0);
            rogue.client.surface.commit();
        }),
        ("after commit of memory", |rogue, _| {
            let (buffer, _) = rogue.client.memory((64, 64), picture(1), SEALABLE);
            rogue.client.surface.attach(Some(&buffer), 0, 0);
            rogue.client.surface.commit();
        }),
        ("with callbacks", |rogue, buffer| {
            let buffer = rogue.client.dma_buf(buffer);
            for _ in 0..10 {
                rogue.client.surface.frame(&rogue.handle(), Done::default());
                rogue.client.surface.attach(Some(&buffer), 0, 0);
                rogue.client.surface.commit();
            }
        }),
        ("with planes and no buffer", |rogue, buffer| {
            for _ in 0..10 {
                let (params, _) = rogue.params();
                (0..4).for_each(|index| add(&params, fd(buffer), index, (0, 256)));
            }
        }),
        ("with buffers that were never attached", |rogue, buffer| {
            (0..10).for_each(|_| drop(rogue.client.dma_buf(buffer)));
        }),
        ("with a synchronized subsurface", |rogue, buffer| {
            let above = rogue.surface();
            let subcompositor: WlSubcompositor = rogue.bind(1);
            subcompositor.get_subsurface(&above, &rogue.client.surface, &rogue.handle(), ());
            let buffer = rogue.client.dma_buf(buffer);
            above.attach(Some(&buffer), 0, 0);
            above.commit();
        }),
        ("after frames", |rogue, buffer| {
            let buffer = rogue.client.dma_buf(buffer);
            (0..5).for_each(|_| rogue.client.frame(&buffer));
        }),
    ];
    let mut scene = Scene::new();
    scene.attack("death", |compositor, _| {
        for (_, life) in lives.iter().cycle().take(5 * lives.len()) {
            let mut rogue = Rogue::connect(compositor);
            life(&mut rogue, &buffer);
            assert!(rogue.send());
        }
    });
}

#[test]
fn a_surface_has_one_role_and_is_not_above_itself() {
    type Life = fn(&mut Rogue, &WlSubcompositor);
    let lives: [(&str, (&str, u32), Life); 9] = [
        ("above itself", ("wl_subcompositor", 1), |rogue, subcompositor| {
            let one = rogue.surface();
            subcompositor.get_subsurface(&one, &one, &rogue.handle(), ());
        }),
        ("a cycle of two", ("wl_subcompositor", 1), |rogue, subcompositor| {
            let (one, two) = (rogue.surface(), rogue.surface());
            subcompositor.get_subsurface(&one, &two, &rogue.handle(), ());
            subcompositor.get_subsurface(&two, &one, &rogue.handle(), ());
        }),
        ("a cycle of many", ("wl_subcompositor", 1), |rogue, subcompositor| {
            let all: Vec<_> = (0..50).map(|_| rogue.surface()).collect();
            for pair in all.windows(2) {
                subcompositor.get_subsurface(&pair[1], &pair[0], &rogue.handle(), ());
            }
            subcompositor.get_subsurface(&all[0], &all[49], &rogue.handle(), ());
        }),
        ("a subsurface twice", ("wl_subcompositor", 0), |rogue, subcompositor| {
            let (one, two) = (rogue.surface(), rogue.surface());
            subcompositor.get_subsurface(&one, &two, &rogue.handle(), ());
            subcompositor.get_subsurface(&one, &two, &rogue.handle(), ());
        }),
        ("a window as a subsurface", ("wl_subcompositor", 0), |rogue, subcompositor| {
            let below = rogue.surface();
            subcompositor.get_subsurface(&rogue.client.surface, &below, &rogue.handle(), ());
        }),
        ("a subsurface as a window", ("xdg_wm_base", 0), |rogue, subcompositor| {
            let (one, two) = (rogue.surface(), rogue.surface());
            subcompositor.get_subsurface(&one, &two, &rogue.handle(), ());
            let shell = rogue.client.state.shell.as_ref().unwrap();
            shell.get_xdg_surface(&one, &rogue.handle(), ());
        }),
        ("a window twice", ("xdg_wm_base", 0), |rogue, _| {
            let shell = rogue.client.state.shell.as_ref().unwrap();
            shell.get_xdg_surface(&rogue.client.surface, &rogue.handle(), ());
        }),
        ("a toplevel twice", ("xdg_surface", 2), |rogue, _| {
            let shell = rogue.client.state.shell.as_ref().unwrap();
            let window = shell.get_xdg_surface(&rogue.surface(), &rogue.handle(), ());
            window.get_toplevel(&rogue.handle(), ());
            window.get_toplevel(&rogue.handle(), ());
        }),
        ("a picture before the first size", ("xdg_surface", 3), |rogue, _| {
            let shell = rogue.client.state.shell.as_ref().unwrap();
            let one = rogue.surface();
            shell.get_xdg_surface(&one, &rogue.handle(), ()).get_toplevel(&rogue.handle(), ());
            let (buffer, _) = rogue.client.memory((64, 64), picture(1), SEALABLE);
            one.attach(Some(&buffer), 0, 0);
            one.commit();
        }),
    ];
    let mut scene = Scene::new();
    scene.attack("roles", |compositor, _| {
        for (what, (interface, code), life) in lives {
            let mut rogue = Rogue::connect(compositor);
            let subcompositor = rogue.bind(1);
            life(&mut rogue, &subcompositor);
            assert_eq!(rogue.error(what), (interface.to_owned(), code), "{what}");
        }
        for scale in [0, -1, i32::MIN] {
            let mut rogue = Rogue::connect(compositor);
            rogue.client.surface.set_buffer_scale(scale);
            assert_eq!(rogue.error("a scale"), ("wl_surface".to_owned(), 0), "{scale}");
        }
    });
}

#[test]
fn a_subsurface_that_was_destroyed_may_be_made_again() {
    let mut scene = Scene::new();
    scene.attack("subsurfaces again and again", |compositor, _| {
        let mut rogue = Rogue::connect(compositor);
        let subcompositor: WlSubcompositor = rogue.bind(1);
        let above = rogue.surface();
        for _ in 0..100 {
            let made = subcompositor.get_subsurface(&above, &rogue.client.surface, &rogue.handle(), ());
            made.destroy();
        }
        rogue.roundtrip().expect("the surface had the same role before");
    });
}

#[test]
fn many_surfaces_and_deep_trees_of_them_stop_nobody() {
    const MANY: usize = 10_000;
    let mut scene = Scene::new();
    scene.attack("10,000 surfaces", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let surfaces: Vec<_> = (0..MANY).map(|_| rogue.surface()).collect();
        rogue.roundtrip().expect("a client may have many");
        steady.wait_for(5);
        drop(surfaces);
    });
    for upwards in [true, false] {
        scene.attack(&format!("10,000 subsurfaces one above the other, upwards: {upwards}"), |compositor, steady| {
            let mut rogue = Rogue::connect(compositor);
            let subcompositor: WlSubcompositor = rogue.bind(1);
            let mut all: Vec<_> = (0..MANY).map(|_| rogue.surface()).collect();
            all.insert(0, rogue.client.surface.clone());
            let pairs = all.windows(2);
            let pairs: Vec<_> = if upwards { pairs.collect() } else { pairs.rev().collect() };
            for pair in pairs {
                subcompositor.get_subsurface(&pair[1], &pair[0], &rogue.handle(), ());
            }
            // Shown, so that all of them are looked at for each frame.
            let (buffer, _) = rogue.client.memory((64, 64), picture(1), SEALABLE);
            rogue.client.surface.attach(Some(&buffer), 0, 0);
            rogue.client.surface.commit();
            // A compositor may say that this is too much.
            let _ = rogue.roundtrip();
            steady.wait_for(5);
        });
    }
}

#[test]
fn ten_thousand_buffers_of_one_client_take_no_fds_from_others() {
    const MANY: usize = 10_000;
    let mut scene = Scene::new();
    let buffer = small_buffer();
    scene.attack("10,000 buffers of memory", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let shm: WlShm = rogue.bind(1);
        let pool = shm.create_pool(memory(16384).as_fd(), 16384, &rogue.handle(), ());
        for _ in 0..MANY {
            pool.create_buffer(0, 64, 64, 256, Format::Xrgb8888, &rogue.handle(), ());
        }
        rogue.roundtrip().expect("buffers of one pool");
        steady.wait_for(5);
    });
    scene.attack("10,000 dma-bufs", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let dmabuf: ZwpLinuxDmabufV1 = rogue.bind(6);
        for n in 0..MANY {
            let params = dmabuf.create_params(&rogue.handle(), ());
            add(&params, fd(&buffer), 0, (0, 256));
            params.create_immed(64, 64, XRGB.0, Flags::empty(), &rogue.handle(), ());
            if n % 20 == 0 && !rogue.send() {
                break;
            }
        }
        // The compositor may say that this is too much; others are not to feel it.
        rogue.roundtrip().expect("it has its share of fds, which is larger");
        let mut other = Client::connect(compositor);
        let shown = other.dma_buf(&buffer);
        (0..3).for_each(|_| other.frame(&shown));
        steady.wait_for(5);
    });
    scene.attack("10,000 pools of memory", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let shm: WlShm = rogue.bind(1);
        let memory = memory(16384);
        for n in 0..MANY {
            shm.create_pool(memory.as_fd(), 16384, &rogue.handle(), ());
            if n % 20 == 0 && !rogue.send() {
                break;
            }
        }
        rogue.roundtrip().expect("it has its share of fds, which is larger");
        let mut other = Client::connect(compositor);
        let (shown, _) = other.memory((64, 64), picture(1), SEALABLE);
        (0..3).for_each(|_| other.frame(&shown));
        steady.wait_for(5);
    });
}

#[test]
fn a_client_that_takes_too_many_fds_is_told_that_there_is_no_memory() {
    let mut scene = Scene::with_fds(Some(1024));
    let no_memory = Some(("wl_display".to_owned(), 2));
    scene.attack("more fds than a client's share", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let shm: WlShm = rogue.bind(1);
        let memory = memory(16384);
        // One by one, so that the error can be read.
        let told = (0..200).find_map(|_| {
            shm.create_pool(memory.as_fd(), 16384, &rogue.handle(), ());
            rogue.roundtrip().err()
        });
        assert_eq!(told, no_memory);
        let mut rogue = Rogue::connect(compositor);
        let buffer = small_buffer();
        let told = (0..100).find_map(|_| {
            let (params, _) = rogue.params();
            (0..4).for_each(|index| add(&params, fd(&buffer), index, (0, 256)));
            rogue.roundtrip().err()
        });
        assert_eq!(told, no_memory);
        // What is given back does not count.
        let mut rogue = Rogue::connect(compositor);
        for _ in 0..200 {
            rogue.client.dma_buf(&buffer).destroy();
            rogue.send();
        }
        rogue.roundtrip().expect("one fd at a time");
        steady.wait_for(5);
    });
}

#[test]
fn a_client_that_never_stops_is_disconnected() {
    let mut scene = Scene::new();
    scene.attack("requests without end", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let end = std::time::Instant::now() + Duration::from_secs(30);
        let mut is_there = true;
        while is_there && std::time::Instant::now() < end {
            (0..100).for_each(|_| rogue.client.surface.damage(0, 0, 1, 1));
            is_there = rogue.send();
        }
        assert!(!is_there, "others have waited for 30 seconds");
        // The error is wl_display's 3, implementation; whether it can still be read is chance.
        let told = rogue.roundtrip().err();
        assert!(matches!(told, Some((object, 0 | 3)) if object == "wl_display" || object == "no error"));
        assert!(compositor.log().contains("leaves no time to others"));
        steady.wait_for(5);
    });
}

#[test]
fn a_client_that_reads_no_events_is_served_until_they_are_too_many() {
    let mut scene = Scene::new();
    let commit = |rogue: &Rogue, buffer: &WlBuffer, times| {
        for _ in 0..times {
            rogue.client.surface.frame(&rogue.handle(), Done::default());
            rogue.client.surface.attach(Some(buffer), 0, 0);
            rogue.client.surface.damage_buffer(0, 0, 64, 64);
            rogue.client.surface.commit();
            if !rogue.send() {
                return;
            }
        }
    };
    scene.attack("1,000 commits unread", |compositor, steady| {
        let mut rogue = Rogue::connect(compositor);
        let (buffer, _) = rogue.client.memory((64, 64), picture(1), MemfdFlags::CLOEXEC);
        commit(&rogue, &buffer, 1000);
        steady.wait_for(FRAMES);
        rogue.roundtrip().expect("the events of 1,000 commits have room");
        rogue.client.frame(&buffer);
    });
    scene.attack("100,000 commits unread", |compositor, steady| {
        let rogue = Rogue::connect(compositor);
        let (buffer, _) = rogue.client.memory((64, 64), picture(1), MemfdFlags::CLOEXEC);
        commit(&rogue, &buffer, 100_000);
        steady.wait_for(5);
    });
}

#[test]
fn lists_that_clients_add_to_have_an_end() {
    let mut scene = Scene::new();
    scene.attack("a region of many rectangles", |compositor, _| {
        let mut rogue = Rogue::connect(compositor);
        let before = compositor.use_of_memory().1;
        let region = rogue.client.state.compositor.as_ref().unwrap().create_region(&rogue.handle(), ());
        for _ in 0..60 {
            (0..50_000).for_each(|n| region.add(n, n, 1, 1));
            rogue.roundtrip().expect("a region may have many");
        }
        rogue.client.surface.set_opaque_region(Some(&region));
        rogue.client.surface.commit();
        rogue.roundtrip().unwrap();
        let grown = (compositor.use_of_memory().1.saturating_sub(before)) * 4096;
        assert!(grown < KEPT / 2, "{grown} bytes for 3,000,000 rectangles");
    });
    scene.attack("feedback objects that are gone", |compositor, _| {
        let mut rogue = Rogue::connect(compositor);
        let dmabuf: ZwpLinuxDmabufV1 = rogue.bind(6);
        for _ in 0..200 {
            for _ in 0..50 {
                dmabuf.get_surface_feedback(&rogue.client.surface, &rogue.handle(), ()).destroy();
            }
            rogue.roundtrip().unwrap();
        }
    });
}

/// A message of the wire: object, request, and arguments.
fn message(object: u32, request: u16, arguments: &[u32]) -> Vec<u8> {
    let size = 8 + 4 * arguments.len() as u32;
    let words = [object, size << 16 | u32::from(request)];
    words.iter().chain(arguments).flat_map(|word| word.to_ne_bytes()).collect()
}

/// Binds the first global of this interface as object 4, through the registry, object 2.
fn bind_raw(stream: &mut std::os::unix::net::UnixStream, interface: &str) {
    stream.write_all(&[message(1, 1, &[2]), message(1, 0, &[3])].concat()).unwrap();
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    let mut name = None;
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).unwrap();
        let mut body = vec![0; (word(&header[4..]) >> 16) as usize - 8];
        stream.read_exact(&mut body).unwrap();
        match word(&header) {
            // The callback of the sync that was sent behind get_registry.
            3 => break,
            2 if body[8..].starts_with(interface.as_bytes()) => name = Some(word(&body)),
            _ => {}
        }
    }
    let mut text = interface.as_bytes().to_vec();
    text.resize((interface.len() + 4) / 4 * 4, 0);
    let mut arguments = vec![name.unwrap(), interface.len() as u32 + 1];
    arguments.extend(text.chunks(4).map(word));
    arguments.extend([1, 4]);
    stream.write_all(&message(2, 0, &arguments)).unwrap();
}

#[test]
fn bytes_that_are_no_requests_end_their_own_connection() {
    let mut scene = Scene::new();
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bad = [
        ("an object that is not there", message(0xdead, 0, &[1])),
        ("a request that is not there", message(1, 99, &[])),
        ("a message of no bytes", [1_u32, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()),
        ("a message of 5 bytes", [1_u32, 5 << 16].iter().flat_map(|word| word.to_ne_bytes()).collect()),
        ("an object 0", message(0, 0, &[])),
        ("an id that is the server's", message(1, 1, &[0xff00_0001])),
        ("an id that is taken", message(1, 1, &[1])),
        ("a global that is not there", {
            let bind = message(2, 0, &[9999, 4, u32::from_ne_bytes(*b"abc\0"), 1, 3]);
            [message(1, 1, &[2]), bind].concat()
        }),
        ("garbage", garbage),
    ];
    scene.attack("bytes", |compositor, steady| {
        for (what, bytes) in &bad {
            let mut stream = raw_connection(compositor);
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(bytes).unwrap();
            // Perhaps an error, then the end.
            let mut told = Vec::new();
            let end = stream.read_to_end(&mut told);
            let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(end.as_ref().is_ok() || end.as_ref().is_err_and(reset), "{what}: {end:?}");
        }
        // Half a message, and an fd that does not come: no error yet, and nobody waits for the rest.
        let mut half = raw_connection(compositor);
        half.write_all(&message(1, 1, &[2])[..7]).unwrap();
        let mut without_fd = raw_connection(compositor);
        bind_raw(&mut without_fd, "wl_shm");
        without_fd.write_all(&message(4, 0, &[5, 4096])).unwrap();
        steady.wait_for(5);
        let mut told = [0; 4096];
        without_fd.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // The formats of wl_shm, and no more.
        let _ = without_fd.read(&mut told).unwrap();
        let more = without_fd.read(&mut told);
        assert!(more.is_err(), "it waits for the fd: {more:?}");
        steady.wait_for(5);
    });
}
