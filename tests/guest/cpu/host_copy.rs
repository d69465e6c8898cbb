//! Pictures that a virtual machine's host has: a classic resource of virtio-gpu with 3D is drawn
//! there, and its memory in the guest is a copy.

use std::os::fd::AsFd;

use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Options};
use primeshare::sync::{Access, BufferMapping, Error, Mapping};
use primeshare::vk::{Instance, Select, Validation};
use primeshare::{Device, DmaBuf, Fourcc};

use crate::child::{self, Child};
use crate::drivers::{LAVAPIPE, environment};
use crate::gl::{RED, SIZE, gl, is_red, picture};
use crate::support::{Guest, PATIENCE, can_run, in_guest, without_checks};

/// A test in a process of its own, where Mesa may leave what it likes.
fn with_a_gpu(name: &str, test: impl FnOnce(&Guest, &Device)) {
    if child::is_here() {
        return without_checks(|guest| test(guest, &guest.nth("virtio_gpu", 0)));
    }
    in_guest(|guest| {
        if can_run(guest.has_gpu(), "the guest gpu") {
            let name = format!("cpu::host_copy::{name}");
            // With lavapipe alone, as if there were no better Vulkan driver.
            let environment = environment("llvmpipe", &[LAVAPIPE]);
            Child::start(&name, &environment).assert_success(PATIENCE);
        }
    });
}

fn dumb_on(device: &Device) -> DmaBuf {
    let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
    Dumb::new(device).allocate(&request).unwrap()
}

#[test]
fn a_mapping_shows_what_the_gpu_drew() {
    with_a_gpu("a_mapping_shows_what_the_gpu_drew", |_, gpu| {
        let (buffer, gl) = (picture(gpu), gl(gpu));
        gl.fill(&buffer, RED, 1);
        assert!(is_red(&buffer));
        // Also by a mapping that was there before.
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        gl.fill(&buffer, [0.0, 0.0, 1.0], 1);
        let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        let mut pixel = [0; 4];
        access
            .plane(0)
            .unwrap()
            .row(7)
            .unwrap()
            .read(28, &mut pixel)
            .unwrap();
        assert_eq!(pixel[..3], [255, 0, 0]);
    });
}

#[test]
fn the_gpu_sees_what_was_written_and_what_was_left() {
    with_a_gpu(
        "the_gpu_sees_what_was_written_and_what_was_left",
        |_, gpu| {
            let (buffer, gl) = (picture(gpu), gl(gpu));
            gl.fill(&buffer, RED, 1);
            let mut mapping = BufferMapping::new(&buffer).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            let mut plane = access.plane_mut(0).unwrap();
            plane.row(0).unwrap().write(0, &[1, 2, 3, 255]).unwrap();
            access.end().unwrap();
            // The host's picture, by another mapping: fetched anew.
            let mut mapping = BufferMapping::read_only(&buffer).unwrap();
            let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
            let mut pixels = [0; 8];
            access
                .plane(0)
                .unwrap()
                .row(0)
                .unwrap()
                .read(0, &mut pixels)
                .unwrap();
            assert_eq!(pixels[..3], [1, 2, 3]);
            assert_eq!(pixels[4..7], [0, 0, 255]);
        },
    );
}

#[test]
fn memory_that_may_be_out_of_date_is_not_mapped_as_bytes() {
    with_a_gpu(
        "memory_that_may_be_out_of_date_is_not_mapped_as_bytes",
        |_, gpu| {
            let buffer = picture(gpu);
            let object = &buffer.objects()[0];
            assert_eq!(Mapping::new(object).err(), Some(Error::OnHost));
            assert_eq!(Mapping::read_only(object).err(), Some(Error::OnHost));
        },
    );
}

/// Nobody draws on a dumb buffer, and a transfer would overwrite what the CPU wrote.
#[test]
fn a_dumb_buffer_is_as_the_cpu_left_it() {
    with_a_gpu("a_dumb_buffer_is_as_the_cpu_left_it", |_, gpu| {
        let buffer = dumb_on(gpu);
        let written: Vec<u8> = (0..4 * SIZE).map(|byte| byte as u8).collect();
        let mut mapping = BufferMapping::new(&buffer).unwrap();
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        access
            .plane_mut(0)
            .unwrap()
            .row(3)
            .unwrap()
            .write(0, &written)
            .unwrap();
        access.end().unwrap();
        let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        let mut read = vec![0; written.len()];
        access
            .plane(0)
            .unwrap()
            .row(3)
            .unwrap()
            .read(0, &mut read)
            .unwrap();
        assert_eq!(read, written);
    });
}

#[test]
fn a_copy_of_what_the_gpu_drew_arrives() {
    with_a_gpu("a_copy_of_what_the_gpu_drew_arrives", |guest, gpu| {
        let display = guest.vkms();
        let (source, gl) = (picture(gpu), gl(gpu));
        let destination = dumb_on(&display);
        let instance = Instance::new(Validation::Off).unwrap();
        let lavapipe = instance.select(&Select::Software).unwrap();
        let sides = [gpu, &display].map(|device| BlitDevice::new(device, Some(&lavapipe)));
        let [from, to] = sides;
        let blitter = Blitter::new(from, to, &Options::default()).unwrap();
        // Once more after the strategies were tried, too.
        for colour in [RED, [0.0, 1.0, 0.0], RED] {
            gl.fill(&source, colour, 1);
            let fence = blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap();
            fence.wait(PATIENCE).unwrap();
            assert_eq!(is_red(&destination), colour == RED);
        }
    });
}

/// Everything that the system has opened for a mapping goes with the mapping.
#[test]
fn a_mapping_of_the_hosts_picture_leaves_nothing_open() {
    with_a_gpu(
        "a_mapping_of_the_hosts_picture_leaves_nothing_open",
        |_, gpu| {
            let buffer = picture(gpu);
            let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = count();
            let mapping = BufferMapping::new(&buffer).unwrap();
            assert!(count() > before);
            drop(mapping);
            assert!(Mapping::new(buffer.objects()[0].as_fd()).is_err());
            assert_eq!(count(), before);
        },
    );
}
