//! The compositor with clients that know nothing of it: what is on the screens, and what is left behind.

// The shared files are formatted as their own packages want it.
mod calls;
#[path = "../../../integrations/rust/tests/wlroots/client.rs"]
#[rustfmt::skip]
mod client;
mod clients;
#[allow(dead_code, reason = "more is used by benchmarks")]
mod compositor;
mod cost;
#[path = "../../../tests/guest/kernel/fence.rs"]
#[rustfmt::skip]
#[allow(dead_code, reason = "more is used by the library's tests")]
mod fence;
mod malicious;
mod rogue;
#[path = "../../../integrations/rust/tests/wlroots/screen.rs"]
#[rustfmt::skip]
#[allow(dead_code, reason = "more is used by the tests of wlroots")]
mod screen;
mod steady;
#[path = "../../../tests/guest/fences/vgem.rs"]
#[rustfmt::skip]
#[allow(dead_code, reason = "more is used by the library's tests")]
mod vgem;
#[path = "../../../tests/guest/vkms.rs"]
#[rustfmt::skip]
#[allow(dead_code, reason = "more is used by the library's tests")]
mod vkms;

use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Client;
use compositor::{Compositor, wait_until};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{Device, DmaBuf, Fourcc, Request, device};
use rustix::fs::MemfdFlags;
use screen::Screen;

/// What the shared modules ask of the tests that they belong to.
mod support {
    pub(crate) fn can_run(can: bool, needs: &str) -> bool {
        if !can {
            eprintln!("test left out: needs {needs}");
        }
        can
    }
}

mod kernel {
    pub(crate) use super::fence;
}

/// A screen has one master.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A picture in which every pixel differs from its neighbours. `seed` tells pictures apart.
fn picture(seed: u8) -> impl Fn(u32, u32) -> [u8; 3] {
    move |x, y| [x as u8 ^ seed, y as u8, (x >> 8) as u8 * 16 + (y >> 8) as u8]
}

/// A device without screens: the clients' GPU.
fn clients_device() -> Device {
    let (devices, _) = device::open_all().unwrap();
    let is_it = |device: &Device| device.driver() == "vgem";
    devices.into_iter().find(is_it).expect("vgem")
}

fn dma_buf(device: &Device, (width, height): (u32, u32), fourcc: Fourcc, seed: u8) -> DmaBuf {
    let request = Request::new(width, height, fourcc);
    let buffer = Dumb::new(device).allocate(&request).unwrap();
    draw(&buffer, seed);
    buffer
}

fn draw(buffer: &DmaBuf, seed: u8) {
    let size = (buffer.width(), buffer.height());
    let pixels = client::pixels(size, picture(seed));
    let mut mapping = BufferMapping::new(buffer).unwrap();
    let wait = std::time::Duration::from_secs(5);
    let mut access = mapping.begin_wait(Access::Write, wait).unwrap();
    let rows = access.plane_mut(0).unwrap().into_rows();
    for (mut row, bytes) in rows.zip(pixels.chunks(4 * size.0 as usize)) {
        row.write(0, bytes).unwrap();
    }
    access.end().unwrap();
}

#[test]
fn memory_that_cannot_be_sealed_is_copied_and_exact() {
    let _alone = alone();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&[]);
    let mut client = Client::connect(&compositor);
    for seed in 1..4 {
        client.show(picture(seed));
        screen.wait_for(picture(seed), client.size());
    }
}

/// Draws into memory that was shown before.
fn redraw(memory: &std::fs::File, size: (u32, u32), seed: u8) {
    use std::os::unix::fs::FileExt;
    memory.write_all_at(&client::pixels(size, picture(seed)), 0).unwrap();
}

#[test]
fn memory_that_can_be_sealed_is_on_the_screen_itself() {
    let _alone = alone();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&[]);
    let mut client = Client::connect(&compositor);
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    for seed in [1, 3, 5] {
        let memory = client.show_memory(picture(seed), sealable);
        screen.wait_for(picture(seed), client.size());
        // Nobody copies anything for this.
        redraw(&memory, client.size(), seed + 1);
        screen.wait_for(picture(seed + 1), client.size());
    }
}

#[test]
fn memory_is_copied_on_request() {
    let _alone = alone();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&["--copy"]);
    let mut client = Client::connect(&compositor);
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = client.show_memory(picture(5), sealable);
    screen.wait_for(picture(5), client.size());
    redraw(&memory, client.size(), 6);
    // Some frames later.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(screen.shows(picture(5), client.size()));
}

#[test]
fn a_clients_dma_buf_that_fills_the_screen_is_shown_itself_and_others_are_drawn() {
    let _alone = alone();
    let device = clients_device();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&[]);
    let mut client = Client::connect(&compositor);
    let whole = dma_buf(&device, client.size(), Fourcc::XRGB8888, 1);
    client.show_dma_buf(&whole);
    screen.wait_for(picture(1), client.size());
    wait_until("the client's buffer on the screen", || {
        screen.on_screen().is_some_and(|shown| shown.id() == whole.id())
    });
    // What has alpha is drawn on black; the picture's alpha is 1.
    let alpha = dma_buf(&device, client.size(), Fourcc::ARGB8888, 2);
    client.show_dma_buf(&alpha);
    screen.wait_for(picture(2), client.size());
    assert_ne!(screen.on_screen().unwrap().id(), alpha.id());
}

#[test]
fn each_window_has_a_screen_while_there_are_enough() {
    let _alone = alone();
    let screens = Screen::all();
    let compositor = Compositor::start(&[]);
    let mut clients: Vec<_> = screens.iter().map(|_| Client::connect(&compositor)).collect();
    for (client, seed) in clients.iter_mut().zip(10..) {
        client.show(picture(seed));
    }
    // Which has which is the compositor's choice.
    for screen in &screens {
        let mut seen = false;
        wait_until("some client's picture", || {
            seen = (10..10 + screens.len() as u8).any(|seed| screen.shows(picture(seed), screen.size()));
            seen
        });
    }
}

#[test]
fn a_screen_that_is_plugged_in_gets_a_window_and_gives_it_back() {
    let _alone = alone();
    if !vkms::can_be_plugged() {
        return;
    }
    let compositor = Compositor::start(&[]);
    let before = Screen::all().len();
    // Windows on all screens that are there already.
    let mut others: Vec<_> = (0..before).map(|_| Client::connect(&compositor)).collect();
    others.iter_mut().for_each(|client| client.show(picture(1)));
    let vkms = vkms::Vkms::new("compositor");
    for seed in 20..23 {
        let lit = || compositor.log().matches("INFO  compositor::screens]").count();
        let before = lit();
        vkms.plug();
        wait_until("the new screen", || lit() > before);
        let path = vkms.node().path;
        let mut client = Client::connect(&compositor);
        let screen = Screen::of(&path);
        client.show(picture(seed));
        screen.wait_for(picture(seed), client.size());
        drop((screen, client));
        vkms.unplug();
        wait_until("the end of the screen", || {
            let gone = compositor.log().matches("is gone").count();
            gone > usize::from(seed - 20)
        });
    }
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    let _alone = alone();
    let device = clients_device();
    let compositor = Compositor::start(&[]);
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let live = |seed| {
        let mut client = Client::connect(&compositor);
        client.show(picture(seed));
        client.show_memory(picture(seed), sealable);
        client.show_dma_buf(&dma_buf(&device, client.size(), Fourcc::XRGB8888, seed));
        client.show_dma_buf(&dma_buf(&device, (64, 64), Fourcc::ARGB8888, seed));
    };
    // All buffers of the screen have been used by then.
    (0..4).for_each(live);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (fds, _) = compositor.use_of_memory();
    (4..20).for_each(live);
    compositor.wait_for_fds(fds);
}

/// The pixels of a PNG file.
fn pixels_of(path: &std::path::Path) -> (u32, u32, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    (info.width, info.height, bytes)
}

#[test]
fn a_viewer_reads_the_frames_that_the_screen_shows() {
    let _alone = alone();
    // In its own directory.
    let compositor = Compositor::start(&["--share", "frames"]);
    let mut client = Client::connect(&compositor);
    client.show(picture(1));
    let out = compositor.file("viewer.png");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_viewer"));
    command.arg(compositor.file("frames")).args(["--frames", "3", "--out"]).arg(&out);
    let mut viewer = command.spawn().unwrap();
    let mut seed = 1;
    // It sees the frames that come after it has connected, and the last one is some frame of these.
    wait_until("the viewer's frames", || {
        seed = seed % 200 + 1;
        client.show(picture(seed));
        viewer.try_wait().unwrap().is_some_and(|status| {
            assert!(status.success());
            true
        })
    });
    let (width, height, bytes) = pixels_of(&out);
    assert_eq!((width, height), client.size());
    let is_picture = |seed: u8| {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        // PNG has red first.
        pixels.zip(bytes.chunks(3)).all(|((x, y), pixel)| {
            let [blue, green, red] = picture(seed)(x, y);
            pixel == [red, green, blue]
        })
    };
    assert!((1..=seed).any(is_picture), "it is no frame of the client's");
}

#[test]
fn a_viewer_that_dies_with_a_frame_holds_up_nobody() {
    let _alone = alone();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&["--share", "frames"]);
    let mut client = Client::connect(&compositor);
    let connect = || {
        use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
        let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let path = SocketAddrUnix::new(compositor.file("frames")).unwrap();
        net::connect(&socket, &path).unwrap();
        socket
    };
    let mut cycle = || {
        let viewers: Vec<_> = (0..3).map(|_| connect()).collect();
        for seed in 1..9 {
            client.show(picture(seed));
            screen.wait_for(picture(seed), client.size());
        }
        // Each has a frame that it never gives back.
        assert!(viewers.iter().all(|viewer| DmaBuf::receive(viewer).is_ok()));
        drop(viewers);
        client.show(picture(9));
        screen.wait_for(picture(9), client.size());
    };
    // As many pictures are allocated as are in use at a time.
    (0..3).for_each(|_| cycle());
    let (fds, _) = compositor.use_of_memory();
    (0..5).for_each(|_| cycle());
    compositor.wait_for_fds(fds);
}
