//! A GPU whose implicit fences are really pending: virgl draws on the host, asynchronously.

use std::time::Duration;

use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Options};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{DmaBuf, Fourcc};

use crate::child::{self, Child};
use crate::gl::{SIZE, gl, picture};
use crate::support::{Guest, can_run, in_guest, without_checks};

const PATIENCE: Duration = Duration::from_secs(300);

/// A test in a process of its own, where Mesa may leave what it likes, with a picture that the GPU
/// is drawing.
fn while_the_gpu_draws(name: &str, test: impl FnOnce(&Guest, &DmaBuf)) {
    if child::is_here() {
        return without_checks(|guest| {
            let gpu = guest.nth("virtio_gpu", 0);
            let (buffer, gl) = (picture(&gpu), gl(&gpu));
            let drawn = gl.keep_busy(&buffer);
            test(guest, &buffer);
            assert!(drawn.is_signalled().unwrap(), "did not wait");
        });
    }
    in_guest(|guest| {
        if can_run(guest.has_gpu(), "the guest gpu") {
            let name = format!("drivers::virgl::{name}");
            Child::start(&name, &[]).assert_success(PATIENCE);
        }
    });
}

#[test]
fn a_mapping_waits_for_what_the_gpu_draws() {
    while_the_gpu_draws("a_mapping_waits_for_what_the_gpu_draws", |_, buffer| {
        let mut mapping = BufferMapping::read_only(buffer).unwrap();
        mapping.begin_wait(Access::Read, PATIENCE).unwrap();
    });
}

#[test]
fn a_blitter_waits_for_what_the_gpu_draws() {
    while_the_gpu_draws("a_blitter_waits_for_what_the_gpu_draws", |guest, source| {
        let display = guest.vkms();
        let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
        let destination = Dumb::new(&display).allocate(&request).unwrap();
        let sides = [
            BlitDevice::new(&guest.nth("virtio_gpu", 0), None),
            BlitDevice::new(&display, None),
        ];
        let [from, to] = sides;
        let blitter = Blitter::new(from, to, &Options::default()).unwrap();
        let fence = blitter
            .blit(source, &destination, &BlitInfo::default())
            .unwrap();
        fence.wait(PATIENCE).unwrap();
    });
}
