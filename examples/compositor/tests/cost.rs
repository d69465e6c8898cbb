//! What a frame costs the compositor, and that it costs the same after many frames.

use rustix::fs::MemfdFlags;
use wayland_client::protocol::wl_buffer::WlBuffer;

use super::calls::Calls;
use super::client::Client;
use super::compositor::Compositor;
use super::{alone, clients_device, dma_buf, picture};
use primeshare::Fourcc;

/// What the compositor has done and has, after so many frames.
struct Use {
    calls: u64,
    fds: usize,
    pages: u64,
}

impl Use {
    fn now(compositor: &Compositor, calls: &Calls) -> Self {
        let (fds, pages) = compositor.use_of_memory();
        Self { calls: calls.count(), fds, pages }
    }
}

/// Shows 50 frames and then 500, of two buffers in turn.
fn costs_do_not_grow(kind: &str, make: impl Fn(&Client, u8) -> WlBuffer) {
    let _alone = alone();
    let compositor = Compositor::start(&[]);
    let mut client = Client::connect(&compositor);
    let buffers = [make(&client, 1), make(&client, 2)];
    // What is made once for each buffer, and trials.
    (0..30).for_each(|n| client.frame(&buffers[n % 2]));
    let calls = Calls::of(compositor.process_id());
    let mut show = |frames: usize| {
        let before = Use::now(&compositor, &calls);
        (0..frames).for_each(|n| client.frame(&buffers[n % 2]));
        let after = Use::now(&compositor, &calls);
        ((after.calls - before.calls) as f64 / frames as f64, after)
    };
    let ((few_each, few), (many_each, many)) = (show(50), show(500));
    println!(
        "{kind}: {few_each:.1} system calls a frame in 50 frames, {many_each:.1} in 500; \
         {} and {} fds; {} and {} resident pages",
        few.fds, many.fds, few.pages, many.pages
    );
    assert!(few_each > 1.0, "nothing was counted");
    assert!(many_each < few_each * 1.25, "{few_each} system calls a frame have become {many_each}");
    // A frame that is on its way has a fence or two.
    assert!(many.fds <= few.fds + 4, "{} fds have become {}", few.fds, many.fds);
    // One page for each frame would be 500.
    assert!(many.pages < few.pages + 400, "{} pages have become {}", few.pages, many.pages);
}

#[test]
fn frames_of_memory_that_can_be_sealed_cost_the_same_after_many() {
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    costs_do_not_grow("shm, sealable", |client, seed| client.memory(client.size(), picture(seed), sealable).0);
}

#[test]
fn frames_of_memory_that_cannot_be_sealed_cost_the_same_after_many() {
    let flags = MemfdFlags::CLOEXEC;
    costs_do_not_grow("shm, not sealable", |client, seed| client.memory(client.size(), picture(seed), flags).0);
}

#[test]
fn frames_of_dma_bufs_cost_the_same_after_many() {
    let device = clients_device();
    costs_do_not_grow("dma-buf", |client, seed| {
        client.dma_buf(&dma_buf(&device, client.size(), Fourcc::XRGB8888, seed))
    });
}
