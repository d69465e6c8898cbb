//! Sync files into Vulkan and out of it, and timelines. The fences are those of [`Gate`], since
//! lavapipe's own are signalled at once.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::MFdFlags;
use primeshare::Device;
use primeshare::sync::{self, Access, SyncFile, implicit};
use primeshare::vk::{self, Commands, Error, Point, Semaphore, Timeline};

use crate::fences::busy::Busy;
use crate::support::{Guest, PATIENCE, buffer_on, in_guest};

/// A fence that the test signals.
pub(crate) struct Gate(Busy);

impl Gate {
    /// A fence, and a sync file of it.
    pub(crate) fn new(vgem: &Device) -> (Self, SyncFile) {
        let buffer = buffer_on(vgem);
        let gate = Self(Busy::new(vgem, &buffer, Access::Write));
        let file = implicit::export_sync_file(&buffer, Access::Read).unwrap();
        (gate, file)
    }

    pub(crate) fn open(self) {
        self.0.end();
    }
}

fn empty(vulkan: &vk::Device) -> Commands {
    let mut commands = Commands::new(vulkan).unwrap();
    // SAFETY: nothing is recorded.
    unsafe { commands.record(|_, _| {}) }.unwrap();
    commands
}

#[test]
fn work_waits_for_all_sync_files() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let vgem = guest.vgem();
        let mut commands = empty(&vulkan);
        for _ in 0..20 {
            let ((first, file), (second, other)) = (Gate::new(&vgem), Gate::new(&vgem));
            let waits = [file, other]
                .map(|file| Point::Binary(Semaphore::from_sync_file(&vulkan, Some(file)).unwrap()));
            // SAFETY: the commands use nothing; each semaphore is waited for once.
            unsafe { commands.submit_with(&waits, &[]) }.unwrap();
            first.open();
            std::thread::sleep(Duration::from_millis(2));
            assert!(!commands.is_done().unwrap(), "one fence was not waited for");
            second.open();
            commands.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn work_between_sync_files_is_done_when_the_second_is_signalled() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let vgem = guest.vgem();
        let mut commands = empty(&vulkan);
        for _ in 0..5 {
            let (gate, before) = Gate::new(&vgem);
            let done = std::thread::scope(|scope| {
                // By another thread, since lavapipe does not export what is not signalled yet.
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(2));
                    gate.open();
                });
                // SAFETY: the commands use nothing.
                unsafe { commands.submit_after([before]) }.unwrap()
            });
            if let Some(done) = done {
                assert!(crate::kernel::flags(done.as_fd()).0, "not close-on-exec");
                let mut fds = [PollFd::new(done.as_fd(), PollFlags::POLLIN)];
                let patience = PollTimeout::try_from(PATIENCE).unwrap();
                assert_eq!(poll(&mut fds, patience), Ok(1));
            }
            commands.wait(PATIENCE).unwrap();
        }
    });
}

#[test]
fn no_sync_file_is_a_signal_that_has_been() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let semaphore = Semaphore::from_sync_file(&vulkan, None).unwrap();
        let mut commands = empty(&vulkan);
        // SAFETY: the commands use nothing, and the semaphore is signalled.
        unsafe { commands.submit_with(&[Point::Binary(semaphore)], &[]) }.unwrap();
        commands.wait(PATIENCE).unwrap();
    });
}

/// Has every kind of file that is no sync file refused, many times, while other threads make files
/// of their own: an fd that is closed twice takes one of theirs along the second time, and one that
/// is never closed is found by `in_guest`.
fn assert_each_is_closed_once(guest: &Guest, refuse: impl Fn(&str, OwnedFd)) {
    let buffer = buffer_on(&guest.vgem());
    let file = |what| match what {
        "/dev/null" => File::open(what).unwrap().into(),
        "a pipe" => std::io::pipe().unwrap().0.into(),
        "a dma-buf" => buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap(),
        _ => memfd(),
    };
    let (done, made) = (
        AtomicBool::new(false),
        [(); 2].map(|()| AtomicUsize::new(0)),
    );
    std::thread::scope(|scope| {
        let others = made.each_ref().map(|made| {
            let done = &done;
            scope.spawn(move || look_after_files(done, made))
        });
        // A busy machine gives the others little time, so it takes as long as they need for some.
        let enough = || {
            let mut both = made.iter().zip(&others);
            both.all(|(made, other)| made.load(Ordering::Relaxed) > 100 || other.is_finished())
        };
        let mut rounds = 0;
        while rounds < 500 || !enough() {
            for what in ["/dev/null", "a pipe", "a dma-buf", "a memfd"] {
                refuse(what, file(what));
            }
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
        for other in others {
            other.join().expect("an fd was closed twice");
        }
    });
}

fn memfd() -> OwnedFd {
    nix::sys::memfd::memfd_create(c"none", MFdFlags::MFD_CLOEXEC).unwrap()
}

/// Makes files, counts them, and sees that they stay open until it closes them.
fn look_after_files(done: &AtomicBool, made: &AtomicUsize) {
    while !done.load(Ordering::Relaxed) {
        let mine = [(); 4].map(|()| memfd());
        let inodes = || {
            mine.each_ref()
                .map(|fd| nix::sys::stat::fstat(fd).map(|s| s.st_ino))
        };
        let before = inodes();
        std::thread::yield_now();
        let after = inodes();
        if before != after || after.iter().any(Result::is_err) {
            // No number of theirs is closed a third time.
            std::mem::forget(mine);
            panic!("{before:?}, then {after:?}");
        }
        made.fetch_add(mine.len(), Ordering::Relaxed);
    }
}

#[test]
fn what_is_no_sync_file_is_refused_and_closed_once() {
    in_guest(|guest| {
        assert_each_is_closed_once(guest, |what, file| {
            let refused = SyncFile::new(file).unwrap_err();
            assert_eq!(refused, sync::Error::NotASyncFile, "{what}");
        });
    });
}

#[test]
fn timelines_order_submissions() {
    in_guest(|guest| {
        let vulkan = guest.vulkan();
        let timeline = Timeline::new(&vulkan, 5).unwrap();
        assert_eq!(timeline.value().unwrap(), 5);
        let mut commands = empty(&vulkan);
        let (after, then) = (
            Point::Timeline(timeline.clone(), 6),
            Point::Timeline(timeline.clone(), 7),
        );
        // SAFETY: the commands use nothing; 6 is signalled below, and 7 is above it.
        unsafe { commands.submit_with(&[after], &[then]) }.unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(!commands.is_done().unwrap());
        assert!(matches!(
            timeline.wait(7, Duration::from_millis(1)),
            Err(Error::Timeout { .. })
        ));
        // SAFETY: it is at 5, and what is pending signals 7.
        unsafe { timeline.signal(6) }.unwrap();
        timeline.wait(7, PATIENCE).unwrap();
        commands.wait(PATIENCE).unwrap();
        assert_eq!(timeline.value().unwrap(), 7);
    });
}

#[test]
fn a_semaphore_travels_between_two_devices() {
    in_guest(|guest| {
        let (first, second) = (guest.vulkan(), guest.vulkan());
        let signalled = Semaphore::new(&first).unwrap();
        let (mut before, mut after) = (empty(&first), empty(&second));
        // SAFETY: the commands use nothing; the semaphore is signalled by what was submitted just
        // before, and waited for once.
        unsafe {
            before
                .submit_with(&[], &[Point::Binary(signalled.clone())])
                .unwrap();
            let file = signalled.export().unwrap();
            let there = Semaphore::from_sync_file(&second, file).unwrap();
            after.submit_with(&[Point::Binary(there)], &[]).unwrap();
        }
        after.wait(PATIENCE).unwrap();
    });
}
