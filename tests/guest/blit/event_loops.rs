//! A blitter inside a program with an event loop and signals of its own.

use std::fs;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Strategy, SyncFiles};
use primeshare::{Device, DmaBuf};

use super::{PATIENCE, blitter, forced, patient, settle};
use crate::support::{buffer_on, in_guest};

/// A program's event loop, which counts how often it is woken up.
struct Loop {
    epoll: Epoll,
    woken: usize,
}

impl Loop {
    fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        Self { epoll, woken: 0 }
    }

    fn add(&self, fd: impl AsFd) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll.add(fd, event).unwrap();
    }

    /// Waits for an event, or looks whether there is one.
    fn turn(&mut self, timeout: EpollTimeout) -> bool {
        let mut events = [EpollEvent::empty(); 8];
        let events = self.epoll.wait(&mut events, timeout).unwrap();
        self.woken += events;
        events > 0
    }

    fn wait(&mut self) {
        let patience = EpollTimeout::try_from(PATIENCE).unwrap();
        assert!(self.turn(patience), "nothing came");
    }
}

const FRAMES: usize = 20;

/// Copies frame after frame, and drops each fence on its event.
fn copy_by_events(
    blitter: &Blitter,
    [source, destination]: [&DmaBuf; 2],
    watch: impl Fn(&mut Loop, &primeshare::blit::Completion),
) {
    let mut events = Loop::new();
    for frame in 1..=FRAMES {
        let fence = blitter
            .blit(source, destination, &BlitInfo::default())
            .unwrap();
        watch(&mut events, &fence);
        events.wait();
        fence.wait(PATIENCE).unwrap();
        drop(fence);
        // While the next ones are made, too.
        for _ in 0..10 {
            assert!(
                !events.turn(EpollTimeout::ZERO),
                "woken up for a fence that is gone"
            );
        }
        assert_eq!(events.woken, frame);
    }
}

#[test]
fn a_fence_wakes_its_event_loop_once() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let blitter = blitter(guest, &vgem, &vkms, &forced(Strategy::Cpu));
        settle(&blitter, &source, &destination);
        copy_by_events(&blitter, [&source, &destination], |events, fence| {
            events.add(fence);
        });
    });
}

#[test]
fn the_sync_file_of_a_copy_goes_with_its_fence() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let options = forced(Strategy::Pull).sync_files(SyncFiles::Always);
        let blitter = blitter(guest, &vgem, &vkms, &options);
        settle(&blitter, &source, &destination);
        copy_by_events(&blitter, [&source, &destination], |events, fence| {
            events.add(fence.sync_file().expect("a sync file at once"));
        });
    });
}

#[test]
fn the_end_of_trials_wakes_an_event_loop() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let info = BlitInfo::default();
        let settle = || blitter.settle(&source, &destination, &info).unwrap();
        let mut events = Loop::new();
        let end = settle();
        events.add(&end);
        assert!(!events.turn(EpollTimeout::ZERO), "before anything is tried");
        events.wait();
        let verdict = blitter.verdict(&source, &destination, &info).unwrap();
        assert!(verdict.settled, "{verdict}");
        drop(end);
        assert!(!events.turn(EpollTimeout::ZERO), "closed");
        // Nothing is left to try.
        let end = settle();
        events.add(&end);
        assert!(events.turn(EpollTimeout::ZERO));
    });
}

#[test]
fn nobody_waits_for_the_trials_of_a_blitter_that_is_gone() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let blitter = blitter(guest, &vgem, &vkms, &patient());
        let end = blitter.settle(&source, &destination, &BlitInfo::default());
        let end = end.unwrap();
        drop(blitter);
        let mut events = Loop::new();
        events.add(&end);
        assert!(events.turn(EpollTimeout::ZERO));
    });
}

/// The threads of this process with this name, and the signals that each blocks, as bits.
fn blocked_by(name: &str) -> Vec<(i32, u64)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::trim)
        };
        let is_it = field("Name:")? == name;
        let blocked = u64::from_str_radix(field("SigBlk:")?, 16).unwrap();
        is_it.then_some((field("Pid:")?.parse().unwrap(), blocked))
    };
    tasks.filter_map(|entry| task(entry.unwrap())).collect()
}

fn cpu_blitter(source: &Device, destination: &Device) -> Blitter {
    let sides = [source, destination].map(|device| BlitDevice::new(device, None));
    let [from, to] = sides;
    Blitter::new(from, to, &patient()).unwrap()
}

/// The kernel gives a signal for the process to any thread that does not block it.
#[test]
fn the_blitters_thread_takes_no_signal_that_is_the_programs() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let blitter = cpu_blitter(&vgem, &vkms);
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        super::blit(&blitter, &source, &destination, &[], &[]).unwrap();
        // The copy may be made by this thread before the blitter's own has got its name.
        let end = Instant::now() + PATIENCE;
        let (thread, blocked) = loop {
            match blocked_by("primeshare blit")[..] {
                [one] => break one,
                [] if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
                ref threads => panic!("{threads:?}"),
            }
        };
        let blocks = |signal: Signal| blocked & (1 << (signal as u32 - 1)) != 0;
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGCHLD,
            Signal::SIGALRM,
        ] {
            assert!(blocks(signal), "{signal}");
        }
        // Signals that the thread itself causes must not be blocked.
        for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
            assert!(!blocks(signal), "{signal}");
        }
        // It would end the process.
        let process = std::process::id() as i32;
        // SAFETY: the call takes numbers; the thread is alive as long as its blitter.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGTERM) };
        assert_eq!(sent, 0);
        super::blit(&blitter, &source, &destination, &[], &[]).unwrap();
    });
}

#[test]
fn a_programs_own_mask_is_as_before() {
    in_guest(|guest| {
        let mask = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("SigBlk:"));
            line.unwrap().to_owned()
        };
        let before = mask();
        let _blitter = cpu_blitter(&guest.vgem(), &guest.vkms());
        assert_eq!(mask(), before);
    });
}
