//! Debian's compositor cage, unchanged, with `integrations/wlroots` preloaded, and wlroots' tinywl, with which it is
//! linked: clients that know nothing of it, and what is on the screens. `cargo xtask wlroots` builds what it needs and
//! runs it.
#![cfg(feature = "wlroots")]

mod client;
mod compositor;
mod screen;
mod udev;
#[path = "../../../../tests/guest/vkms.rs"]
mod vkms;

use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Client;
use compositor::{Compositor, Setup, Start};
use screen::Screen;
use udev::Udev;
use vkms::{Vkms, can_be_plugged};

/// What `vkms` asks of the tests that it belongs to.
mod support {
    pub(crate) fn can_run(can: bool, needs: &str) -> bool {
        if !can {
            eprintln!("test left out: needs {needs}");
        }
        can
    }
}

/// A screen has one master.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the machine has for these tests; where it has nothing, says so.
fn setup() -> Option<Setup> {
    let setup = Setup::from_environment();
    if setup.is_none() {
        eprintln!("test left out: needs compositors, as cargo xtask wlroots brings them");
    }
    setup
}

/// A picture in which every pixel differs from its neighbours. `seed` tells pictures apart.
fn picture(seed: u8) -> impl Fn(u32, u32) -> [u8; 3] {
    move |x, y| {
        [
            x as u8 ^ seed,
            y as u8,
            (x >> 8) as u8 * 16 + (y >> 8) as u8,
        ]
    }
}

#[test]
fn a_clients_picture_is_on_the_screen_in_a_buffer_of_the_library() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    let screen = Screen::first(&["vkms", "bochs-drm", "virtio_gpu"]);
    let compositor = Compositor::start(&setup, &[screen.path()])
        .preloaded()
        .run();
    let mut client = Client::connect(&compositor);
    client.show(picture(1));
    screen.wait_for(picture(1), client.size());
    let shown = screen.on_screen().unwrap().id().inode();
    let own = compositor.buffers();
    assert!(
        own.contains(&shown),
        "{shown} is on the screen, and of the library are {own:?}"
    );
    client.show(picture(2));
    screen.wait_for(picture(2), client.size());
}

#[test]
fn tinywl_shows_a_clients_picture_in_a_buffer_of_the_library_that_it_is_linked_with() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    let screen = Screen::first(&["vkms", "bochs-drm", "virtio_gpu"]);
    let compositor = Compositor::start(&setup, &[screen.path()]).tinywl().run();
    let mut client = Client::connect(&compositor);
    for seed in [7, 8] {
        client.show(picture(seed));
        screen.wait_for(picture(seed), client.size());
    }
    let shown = screen.on_screen().unwrap().id().inode();
    let own = compositor.buffers();
    assert!(own.contains(&shown), "{shown} is not of {own:?}");
}

#[test]
fn what_opengl_has_drawn_is_on_the_screen_in_a_buffer_of_the_library() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    let screen = Screen::first(&["vkms", "virtio_gpu"]);
    let compositor = Compositor::start(&setup, &[screen.path()])
        .preloaded()
        .by_opengl()
        .run();
    let mut client = Client::connect(&compositor);
    client.show(picture(5));
    screen.wait_for(picture(5), client.size());
    let shown = screen.on_screen().unwrap().id().inode();
    assert!(compositor.buffers().contains(&shown));
}

#[test]
fn a_screen_of_another_device_is_dark_without_the_library_and_lit_with_it() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    // Memory of the first is refused by bochs, and taken by another vkms.
    let Some([first, second]) =
        Screen::pair("virtio_gpu", "bochs-drm").or(Screen::pair("vkms", "vkms"))
    else {
        eprintln!("test left out: needs virtio-gpu and bochs, or two vkms");
        return;
    };
    let screens = [first.path(), second.path()];
    {
        let compositor = Compositor::start(&setup, &screens).run();
        let mut client = Client::connect(&compositor);
        client.show(picture(3));
        first.wait_for(picture(3), client.size());
        assert!(second.on_screen().is_none(), "wlroots lights it by itself");
    }
    let compositor = Compositor::start(&setup, &screens).preloaded().run();
    let mut client = Client::connect(&compositor);
    client.show(picture(4));
    // cage spreads the client over both.
    let (width, _) = first.size();
    first.wait_for(picture(4), client.size());
    second.wait_for(move |x, y| picture(4)(x + width, y), client.size());
}

/// cage with the library preloaded, and tinywl.
fn both<'a>(setup: &'a Setup, screen: &Screen) -> [Start<'a>; 2] {
    let start = || Compositor::start(setup, &[screen.path()]);
    [start().preloaded(), start().tinywl()]
}

#[test]
fn clients_that_crash_leave_nothing_behind() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    let screen = Screen::first(&["vkms", "bochs-drm", "virtio_gpu"]);
    for start in both(&setup, &screen) {
        let compositor = start.run();
        let one_client = |seed: u8| {
            let mut client = Client::connect(&compositor);
            client.show(picture(seed));
            screen.wait_for(picture(seed), client.size());
        };
        // What stays is there after the first few.
        (0..4).for_each(one_client);
        let fds = compositor.fds();
        let times = if std::env::var_os("PRIMESHARE_SOAK").is_some() {
            200
        } else {
            20
        };
        (0..times).for_each(one_client);
        compositor.wait_for_fds(fds);
    }
}

#[test]
fn a_screen_that_is_plugged_in_and_out_is_lit_again_and_leaves_nothing_behind() {
    let (_alone, Some(setup)) = (alone(), setup()) else {
        return;
    };
    if !can_be_plugged() {
        return;
    }
    let _udev = Udev::start();
    let slot = Vkms::new("plugged");
    slot.plug();
    let screen = Screen::of(&slot.node().path);
    for start in both(&setup, &screen) {
        let compositor = start.run();
        let mut client = Client::connect(&compositor);
        client.show(picture(6));
        screen.wait_for(picture(6), client.size());
        let again = || {
            slot.set_connected(false);
            screen.wait_for_darkness();
            slot.set_connected(true);
            screen.wait_for(picture(6), client.size());
        };
        // What stays is there after the first few.
        (0..3).for_each(|_| again());
        let fds = compositor.fds();
        (0..20).for_each(|_| again());
        compositor.wait_for_fds(fds);
    }
}
