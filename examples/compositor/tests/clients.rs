//! Programs of Debian: drawn on one device, shown on another.

use super::alone;
use super::compositor::{Compositor, wait_until};
use super::screen::Screen;

/// Starts it, and waits until a screen has shown so many frames of it.
fn frames_advance(program: &[&str], frames: usize) {
    let _alone = alone();
    let screen = Screen::first(&["vkms"]);
    let compositor = Compositor::start(&[]);
    let Some(mut program_) = compositor.run(program) else {
        return;
    };
    let mut pictures = Vec::new();
    wait_until("frames of a client", || {
        assert!(!program_.has_ended(), "{program:?} has ended: {}", program_.log());
        let now = screen.digest();
        if !pictures.contains(&now) {
            pictures.push(now);
        }
        pictures.len() > frames
    });
}

#[test]
fn a_program_of_qt() {
    frames_advance(&["featherpad"], 1);
}

#[test]
fn weston_simple_shm() {
    frames_advance(&["weston-simple-shm"], 10);
}

#[test]
fn weston_simple_egl() {
    frames_advance(&["weston-simple-egl"], 10);
}

#[test]
fn weston_simple_egl_that_fills_the_screen() {
    frames_advance(&["weston-simple-egl", "-f", "-o"], 10);
}

#[test]
fn weston_simple_dmabuf_egl() {
    frames_advance(&["weston-simple-dmabuf-egl", "-d", "/dev/dri/card0"], 10);
}

#[test]
fn vkcube() {
    frames_advance(&["vkcube", "--wsi", "wayland"], 10);
}

#[test]
fn glmark2() {
    frames_advance(&["glmark2-es2-wayland", "--run-forever"], 10);
}

#[test]
fn a_terminal() {
    // It writes, so that pictures differ.
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done";
    frames_advance(&["foot", "--config=/dev/null", "sh", "-c", script], 5);
}
