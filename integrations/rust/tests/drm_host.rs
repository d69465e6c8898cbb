//! A host of the crate `drm`: vgem allocates, vkms shows.
#![cfg(feature = "drm")]

mod common;

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{PATIENCE, device};
use drm::control::{Device as _, Event, Mode, PageFlipFlags, connector, crtc};
use primeshare::alloc::Dumb;
use primeshare::buffer::PlaneRef;
use primeshare::{Allocator, DmaBuf, Errno, Fourcc, Modifier, Request};
use primeshare_integrations::drm_host::{Card, Framebuffers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A device has one master.
static MASTER: Mutex<()> = Mutex::new(());

fn master() -> (MutexGuard<'static, ()>, Card<File>) {
    let alone = MASTER.lock().unwrap_or_else(PoisonError::into_inner);
    // Who opens a node that has no master becomes it.
    let path = device("vkms").node().path.clone();
    let file = File::options().read(true).write(true).open(path);
    (alone, Card(file.unwrap()))
}

fn buffer(width: u32, height: u32) -> DmaBuf {
    let request = Request::new(width, height, Fourcc::XRGB8888);
    Dumb::new(&device("vgem")).allocate(&request).unwrap()
}

/// The screen, and what fills it.
fn screen(card: &Card<File>) -> (crtc::Handle, connector::Handle, Mode) {
    let resources = card.resource_handles().unwrap();
    let connector = resources.connectors()[0];
    let mode = card.get_connector(connector, true).unwrap().modes()[0];
    (resources.crtcs()[0], connector, mode)
}

/// Waits for the end of a page flip.
fn flipped(card: &Card<File>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).unwrap();
        let mut fds = [PollFd::new(card, PollFlags::IN)];
        assert!(
            poll(&mut fds, Some(&left)).unwrap() > 0,
            "no page flip in time"
        );
        let mut events = card.receive_events().unwrap();
        if events.any(|event| matches!(event, Event::PageFlip(_))) {
            return;
        }
    }
}

/// What was on a screen is in use for a moment longer, by the kernel's worker that ends the last commit.
fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nine_flips_over_three_buffers_make_three_framebuffers() {
    let (_alone, card) = master();
    let framebuffers = Framebuffers::new(&card).unwrap();
    let (crtc, connector, mode) = screen(&card);
    let (width, height) = mode.size();
    let buffers = [(); 3].map(|()| buffer(width.into(), height.into()));
    let first = framebuffers.get(&buffers[2]).unwrap().handle();
    card.set_crtc(crtc, Some(first), (0, 0), &[connector], Some(mode))
        .unwrap();
    let mut shown = Vec::new();
    for buffer in buffers.iter().cycle().take(9) {
        let framebuffer = framebuffers.get(buffer).unwrap().handle();
        card.page_flip(crtc, framebuffer, PageFlipFlags::EVENT, None)
            .unwrap();
        flipped(&card);
        assert_eq!(
            card.get_crtc(crtc).unwrap().framebuffer(),
            Some(framebuffer)
        );
        shown.push(framebuffer);
    }
    assert_eq!(framebuffers.tried(), 3);
    card.set_crtc(crtc, None, (0, 0), &[], None).unwrap();

    // The kernel knows each of them until its buffer goes.
    let exists = |of| card.get_framebuffer(of).is_ok();
    assert!(shown.iter().all(|&of| exists(of)));
    let [gone, kept @ ..] = buffers;
    drop(gone);
    wait_until(|| !exists(shown[0]));
    assert!(exists(shown[1]) && exists(shown[2]));
    drop(kept);
    wait_until(|| !exists(shown[1]) && !exists(shown[2]));
}

#[test]
fn a_refusal_is_remembered_for_as_long_as_the_buffer_lives() {
    let (_alone, card) = master();
    let framebuffers = Framebuffers::new(&card).unwrap();
    let memory = buffer(64, 64);
    // Tiles of a GPU by Intel, which vkms cannot show.
    let desc = memory.desc().with_modifier(Modifier(0x0100_0000_0000_0001));
    let tiled = || {
        let plane = PlaneRef {
            fd: memory.plane_fd(0).unwrap(),
            offset: 0,
            stride: memory.planes()[0].stride,
        };
        DmaBuf::from_borrowed(desc, [plane]).unwrap()
    };
    let refused = tiled();
    for _ in 0..5 {
        let error = framebuffers.get(&refused).unwrap_err();
        assert_eq!(Errno::of(&error), Some(Errno::EINVAL));
    }
    assert_eq!(framebuffers.tried(), 1);
    drop(refused);
    framebuffers.get(&tiled()).unwrap_err();
    assert_eq!(framebuffers.tried(), 2);
    // The memory itself can be shown.
    framebuffers.get(&memory).unwrap();
}
