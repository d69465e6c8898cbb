//! A copy from vgem to vkms, and a fence, in three event loops.
#![cfg(feature = "loops")]

mod common;

use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{PATIENCE, buffer_on, device};
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Completion, Options};
use primeshare::sync::SyncFile;
use primeshare_integrations::loops;
use rustix::event::epoll;
use rustix::ioctl;

/// How long nothing has to come.
const SILENCE: Duration = Duration::from_millis(50);

/// A fence that is signalled when the test wants it: `drivers/dma-buf/sw_sync.c`.
struct Timeline(File);

#[repr(C)]
struct CreateFence {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

const CREATE: ioctl::Opcode = ioctl::opcode::read_write::<CreateFence>(b'W', 0);
const INCREMENT: ioctl::Opcode = ioctl::opcode::write::<u32>(b'W', 1);

impl Timeline {
    fn new() -> (Self, SyncFile) {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .open("/sys/kernel/debug/sync/sw_sync")
            .unwrap();
        let mut create = CreateFence {
            value: 1,
            name: [0; 32],
            fence: -1,
        };
        // SAFETY: the number and the structure are those of SW_SYNC_IOC_CREATE_FENCE.
        unsafe { ioctl::ioctl(&file, ioctl::Updater::<{ CREATE }, _>::new(&mut create)) }.unwrap();
        // SAFETY: the fd is new, and nobody else knows it.
        let fence = unsafe { OwnedFd::from_raw_fd(create.fence) };
        (Self(file), SyncFile::new(fence).unwrap())
    }

    fn signal(self) {
        // SAFETY: the number and the type are those of SW_SYNC_IOC_INC.
        unsafe { ioctl::ioctl(&self.0, ioctl::Setter::<{ INCREMENT }, u32>::new(1)) }.unwrap();
    }
}

/// Copies from vgem to vkms by the CPU, which wait for a fence.
struct Copies(Blitter, [primeshare::DmaBuf; 2]);

impl Copies {
    fn new() -> Self {
        let devices = [device("vgem"), device("vkms")];
        let [from, to] = devices
            .each_ref()
            .map(|device| BlitDevice::new(device, None));
        let options = Options::default().input_timeout(PATIENCE);
        let blitter = Blitter::new(from, to, &options).unwrap();
        Self(blitter, devices.each_ref().map(buffer_on))
    }

    /// A copy that begins when the fence is signalled.
    fn after(&self, fence: &SyncFile) -> Completion {
        let after = [fence.as_fd()];
        let info = BlitInfo::default().after(&after);
        let [from, to] = &self.1;
        self.0.blit(from, to, &info).unwrap()
    }
}

#[test]
fn in_calloop_the_event_comes_once() {
    let copies = Copies::new();
    let (timeline, fence) = Timeline::new();
    // The loop has a reference, and the copy lives on afterwards: the loop is silent because the source has left it.
    let copy = copies.after(&fence);
    let mut event_loop = calloop::EventLoop::<Vec<&str>>::try_new().unwrap();
    let handle = event_loop.handle();
    let copied = |copy: &&Completion, events: &mut Vec<&str>| {
        assert_eq!(copy.result(), Some(Ok(())));
        events.push("copy");
    };
    let signalled = |fence: &SyncFile, events: &mut Vec<&str>| {
        assert!(fence.is_signalled().unwrap());
        events.push("fence");
    };
    loops::insert_once(&handle, &copy, copied).unwrap();
    loops::insert_once(&handle, fence, signalled).unwrap();
    let mut events = Vec::new();
    event_loop.dispatch(SILENCE, &mut events).unwrap();
    assert!(events.is_empty(), "{events:?} before the fence");

    timeline.signal();
    let end = Instant::now() + PATIENCE;
    while events.len() < 2 && Instant::now() < end {
        event_loop.dispatch(SILENCE, &mut events).unwrap();
    }
    for _ in 0..3 {
        event_loop.dispatch(SILENCE, &mut events).unwrap();
    }
    events.sort_unstable();
    assert_eq!(events, ["copy", "fence"]);
}

#[test]
fn in_epoll_the_event_comes_once() {
    let copies = Copies::new();
    let (timeline, fence) = Timeline::new();
    let copy = copies.after(&fence);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    // As above, for the copy. The fence is the watch's own.
    let mut watched_copy = Some(loops::Watched::new(poll.as_fd(), &copy, 1).unwrap());
    let mut watched_fence = Some(loops::Watched::new(poll.as_fd(), fence, 2).unwrap());
    assert_eq!(loops::wait(poll.as_fd(), SILENCE).unwrap(), [0; 0]);

    timeline.signal();
    let mut events = Vec::new();
    let end = Instant::now() + PATIENCE;
    while events.len() < 2 && Instant::now() < end {
        for key in loops::wait(poll.as_fd(), PATIENCE).unwrap() {
            events.push(key);
            match key {
                1 => assert_eq!(watched_copy.take().unwrap().get().result(), Some(Ok(()))),
                _ => assert!(watched_fence.take().unwrap().get().is_signalled().unwrap()),
            }
        }
    }
    assert_eq!(loops::wait(poll.as_fd(), SILENCE).unwrap(), [0; 0]);
    events.sort_unstable();
    assert_eq!(events, [1, 2]);
}

#[test]
fn in_tokio_the_event_comes_once() {
    let copies = Copies::new();
    let (timeline, fence) = Timeline::new();
    let copy = copies.after(&fence);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Each is left unchanged by a wait that was given up.
        let early = tokio::time::timeout(SILENCE, loops::signalled(&copy)).await;
        early.expect_err("before the fence");
        let early = tokio::time::timeout(SILENCE, loops::signalled(&fence)).await;
        early.expect_err("before it is signalled");

        timeline.signal();
        let signalled = tokio::time::timeout(PATIENCE, loops::signalled(&fence)).await;
        signalled.unwrap().unwrap();
        assert!(fence.is_signalled().unwrap());
        let copied = tokio::time::timeout(PATIENCE, loops::signalled(&copy)).await;
        copied.unwrap().unwrap();
        assert_eq!(copy.result(), Some(Ok(())));
        // It has left the runtime, or this would fail with EEXIST. Its fd is readable for good.
        loops::signalled(&copy).await.unwrap();
    });
}
