//! One full-screen client under several compositors, in the same guest: frames per second, and the time of the processor
//! that the compositor takes for a frame. The client's buffers are of vgem or of shared memory, the screen is of vkms.
//!
//! `cargo xtask bench compositors` runs it. Compositors that the machine lacks are left out, and named.

#[path = "../../../integrations/rust/tests/wlroots/client.rs"]
#[allow(dead_code, reason = "more is used by tests")]
#[rustfmt::skip]
mod client;
#[path = "../tests/compositor.rs"]
#[allow(dead_code, reason = "more is used by tests")]
mod compositor;

use std::path::{Path, PathBuf};
use std::time::Instant;

use client::Client;
use compositor::{Compositor, Foreign};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::{Device, DmaBuf, Fourcc, Request, device};
use rustix::fs::MemfdFlags;

const WARM_UP: u32 = 60;
const FRAMES: u32 = 300;

fn picture(seed: u8) -> impl Fn(u32, u32) -> [u8; 3] {
    move |x, y| [x as u8 ^ seed, y as u8, seed]
}

/// What a compositor takes for the frames of a client.
struct Cost {
    frames_per_second: f64,
    milliseconds: f64,
}

fn measure(compositor: &Compositor, mut frame: impl FnMut(u32)) -> Cost {
    (0..WARM_UP).for_each(&mut frame);
    let (before, start) = (compositor.processor_time(), Instant::now());
    (0..FRAMES).for_each(&mut frame);
    let (after, wall) = (compositor.processor_time(), start.elapsed());
    Cost {
        frames_per_second: f64::from(FRAMES) / wall.as_secs_f64(),
        milliseconds: (after - before).as_secs_f64() * 1000.0 / f64::from(FRAMES),
    }
}

fn by_memory(compositor: &Compositor, flags: MemfdFlags) -> Cost {
    let mut client = Client::connect(compositor);
    client.show_memory(picture(1), flags);
    client.show_memory(picture(2), flags);
    let buffers = client.shown().to_vec();
    measure(compositor, |n| client.show_frame(&buffers[n as usize % 2]))
}

fn by_dma_buf(compositor: &Compositor, device: &Device) -> Option<Cost> {
    let mut client = Client::connect(compositor);
    if !client.has_dma_bufs() {
        return None;
    }
    let (width, height) = client.size();
    let request = Request::new(width, height, Fourcc::XRGB8888);
    let buffers: Vec<DmaBuf> = (0..3).map(|_| Dumb::new(device).allocate(&request).unwrap()).collect();
    let shown: Vec<_> = buffers.iter().map(|buffer| client.show_dma_buf(buffer)).collect();
    Some(measure(compositor, |n| client.show_frame(&shown[n as usize % 3])))
}

fn main() {
    let (devices, _) = device::open_all().unwrap();
    let find = |driver: &str| devices.iter().find(|device| device.driver() == driver);
    let (Some(vgem), Some(vkms)) = (find("vgem"), find("vkms")) else {
        println!("left out: needs vgem and vkms");
        return;
    };
    let card = vkms.node().path.clone();
    let vgem = vgem.clone();
    // They hold no device while a compositor runs.
    drop(devices);
    println!(
        "{FRAMES} frames of one client that fills {}, in milliseconds of the compositor's process\n",
        card.display()
    );
    println!("{:38} {:>8} {:>12}", "", "frames/s", "ms a frame");
    let own = |arguments: &[&str]| Compositor::start(&[&["--card", &card.display().to_string()], arguments].concat());
    type Start<'a> = Box<dyn Fn() -> Option<Compositor> + 'a>;
    let path: PathBuf = card.clone();
    let foreign = |which: Foreign, renderer: &'static str| {
        let path: &Path = &path;
        Box::new(move || Compositor::start_foreign(which, renderer, path)) as Start<'_>
    };
    let ways: [(&str, Start<'_>); 6] = [
        ("compositor", Box::new(|| Some(own(&[])))),
        ("compositor --copy", Box::new(|| Some(own(&["--copy"])))),
        ("cage (wlroots), pixman", foreign(Foreign::Cage, "pixman")),
        ("cage (wlroots), gles2", foreign(Foreign::Cage, "gles2")),
        ("weston, pixman", foreign(Foreign::Weston, "pixman")),
        ("weston, gl", foreign(Foreign::Weston, "gl")),
    ];
    let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    for (name, start) in ways {
        let row = |what: &str, cost: Option<Cost>| match cost {
            Some(cost) => {
                println!("{:38} {:8.1} {:12.2}", format!("{name}, {what}"), cost.frames_per_second, cost.milliseconds);
            }
            None => println!("{:38} left out", format!("{name}, {what}")),
        };
        row("shared memory", start().map(|one| by_memory(&one, sealable)));
        row("dma-bufs", start().and_then(|one| by_dma_buf(&one, &vgem)));
    }
}
