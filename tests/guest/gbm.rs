//! Allocation through gbm, over imitations of other drivers. They are in `guest/gbm`, where each says what
//! it imitates, and are preloaded over Mesa's own.

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use primeshare::alloc::{Allocator, Dumb, Request, Usage};
use primeshare::gbm::{Error, Gbm};
use primeshare::sync::{Access, BufferMapping};
use primeshare::{Device, DmaBuf, Fourcc, Modifier};

use crate::child::{self, Child};
use crate::kernel::flags;
use crate::support::{Guest, PATIENCE, in_guest, in_other_process, next_handle};

/// Where cargo's runner says that the drivers are.
const DRIVERS: &str = "PRIMESHARE_GBM_DRIVERS";

/// A test in another process, over these drivers. A call goes to the first of them that implements it.
fn over(
    drivers: &[&str],
    environment: &[(&'static str, &str)],
    name: &str,
    test: impl FnOnce(&Guest),
) {
    if child::is_here() {
        return in_other_process(test);
    }
    in_guest(|_| {
        // LD_PRELOAD takes no path with a space or a colon.
        let directory = std::env::temp_dir().join("primeshare-gbm-drivers");
        symlink(std::env::var_os(DRIVERS).unwrap(), &directory).unwrap();
        let paths = drivers.iter().map(|driver| {
            let path = directory.join(driver).with_extension("so");
            path.to_str().unwrap().to_owned()
        });
        let mut all = vec![("LD_PRELOAD", paths.collect::<Vec<_>>().join(":"))];
        all.extend(
            environment
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let child = Child::start(&format!("gbm::{name}"), &all);
        let ended = std::panic::AssertUnwindSafe(|| child.assert_success(PATIENCE));
        let ended = std::panic::catch_unwind(ended);
        std::fs::remove_file(&directory).unwrap();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Devices on which gbm allocates by different drivers.
fn devices(guest: &Guest) -> Vec<Device> {
    let mut devices = vec![guest.vgem(), guest.vkms()];
    if guest.in_qemu() {
        devices.push(guest.nth("virtio_gpu", 0));
    }
    devices
}

fn request() -> Request {
    Request::new(640, 480, Fourcc::XRGB8888)
}

fn with(modifiers: &[Modifier], usage: Usage) -> Request {
    request().modifiers(modifiers.iter().copied()).usage(usage)
}

/// Checks that no two buffers share memory: each keeps what is written to it.
fn assert_apart(buffers: &[DmaBuf]) {
    let map = |buffer: &DmaBuf| BufferMapping::new(buffer).unwrap();
    let mut mappings: Vec<_> = buffers.iter().map(map).collect();
    for (mapping, value) in mappings.iter_mut().zip(1..) {
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        let mut plane = access.plane_mut(0).unwrap();
        plane.row(0).unwrap().write(0, &[value]).unwrap();
    }
    for (mapping, value) in mappings.iter_mut().zip(1..) {
        let mut read = [0];
        let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        let row = access.plane(0).unwrap().row(0).unwrap();
        row.read(0, &mut read).unwrap();
        assert_eq!(read, [value], "written through another buffer");
    }
    for (index, buffer) in buffers.iter().enumerate() {
        let others = &buffers[index + 1..];
        assert!(others.iter().all(|other| other.id() != buffer.id()));
    }
}

#[test]
fn a_driver_with_a_cache_of_buffers_knows_which_are_in_use() {
    let name = "a_driver_with_a_cache_of_buffers_knows_which_are_in_use";
    over(&["cache"], &[], name, |guest| {
        for device in devices(guest) {
            let gbm = Gbm::new(&device).unwrap();
            let allocate = |_| gbm.allocate(&request()).unwrap();
            assert_apart(&[0, 1, 2].map(allocate));
        }
    });
}

#[test]
fn a_buffer_in_the_memory_of_a_living_one_is_not_handed_out() {
    let name = "a_buffer_in_the_memory_of_a_living_one_is_not_handed_out";
    let environment = [("PRIMESHARE_GBM_CACHE", "all")];
    // Both have the one screen, and so the one cache.
    over(&["screen", "cache"], &environment, name, |guest| {
        let vkms = guest.vkms();
        let gbms = [Gbm::new(&vkms).unwrap(), Gbm::new(&vkms).unwrap()];
        let buffer = gbms[0].allocate(&request()).unwrap();
        let clone = buffer.clone();
        drop(buffer);
        for gbm in &gbms {
            let refused = gbm.allocate(&request()).unwrap_err();
            let Some(Error::Reused { id, .. }) = refused.of() else {
                panic!("{refused}");
            };
            assert_eq!(*id, clone.id());
        }
        // It is nobody's any more.
        drop(clone);
        assert!(gbms[1].allocate(&request()).is_ok());
    });
}

#[test]
fn gbm_allocates_if_another_file_description_has_all_handles() {
    let name = "gbm_allocates_if_another_file_description_has_all_handles";
    over(&["screen"], &[], name, |guest| {
        let vkms = guest.vkms();
        let [first, second] = [(); 2].map(|()| Gbm::new(&vkms).unwrap());
        let allocate = |gbm: &Gbm| gbm.allocate(&request()).unwrap();
        assert_apart(&[0, 1].map(|_| allocate(&first)));
        let buffers = [0, 1].map(|_| allocate(&second));
        assert_ne!(buffers[0].id(), buffers[1].id());
        for buffer in &buffers {
            let (close_on_exec, writable) = flags(buffer.plane_fd(0).unwrap());
            // There is no other export than Mesa's, and Mesa 25.0's is read-only.
            assert_eq!((close_on_exec, writable), (true, !guest.has_old_mesa()));
            assert!(BufferMapping::read_only(buffer).is_ok());
            assert!(vkms.import(buffer).is_ok());
        }
    });
}

#[test]
fn a_handle_of_another_file_description_is_not_taken_for_ours() {
    let name = "a_handle_of_another_file_description_is_not_taken_for_ours";
    over(&["screen"], &[], name, |guest| {
        let [owner, ours] = [(); 2].map(|()| guest.vkms());
        let gbm_on =
            |device: &Device| Gbm::from_fd(device.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let [_first, second] = [gbm_on(&owner), gbm_on(&ours)];
        // The next handle of the owner is in use on our file description.
        assert_eq!(next_handle(&owner), 1);
        let other = Dumb::new(&ours).allocate(&request()).unwrap();
        assert_ne!(next_handle(&ours), 1);
        let buffer = second.allocate(&request()).unwrap();
        assert_ne!(buffer.id(), other.id());
    });
}

#[test]
fn a_buffer_that_mesa_does_not_export_is_an_error() {
    let name = "a_buffer_that_mesa_does_not_export_is_an_error";
    let environment = [("PRIMESHARE_GBM_PLANES", "0")];
    over(&["planes"], &environment, name, |guest| {
        for device in devices(guest) {
            let refused = Gbm::new(&device).unwrap_err();
            let Some(Error::Export { plane, errno, .. }) = refused.of() else {
                panic!("{refused:?}");
            };
            assert_eq!((*plane, *errno), (0, None));
        }
    });
}

#[test]
fn planes_in_one_buffer_need_one_export_of_mesas() {
    let name = "planes_in_one_buffer_need_one_export_of_mesas";
    let environment = [("PRIMESHARE_GBM_PLANES", "1")];
    over(&["screen", "planes"], &environment, name, |guest| {
        let vkms = guest.vkms();
        let gbm = Gbm::new(&vkms).unwrap();
        let buffer = gbm.allocate(&with(&[Modifier::INVALID], Usage::RENDER));
        let buffer = buffer.unwrap();
        assert_eq!((buffer.planes().len(), buffer.objects().len()), (2, 1));
        // If the second plane cannot be compared with the first, nothing is known of it.
        let refused = Gbm::new(&vkms).unwrap_err();
        assert!(
            matches!(refused.of(), Some(Error::Export { plane: 1, .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn linear_is_had_without_rendering_where_it_cannot_be_had_with() {
    let name = "linear_is_had_without_rendering_where_it_cannot_be_had_with";
    over(&["nvidia"], &[], name, |guest| {
        let gbm = Gbm::new(&guest.vkms()).unwrap();
        for usage in [Usage::RENDER, Usage::RENDER | Usage::SCANOUT] {
            let request = with(&[Modifier::LINEAR], usage);
            let buffer = gbm.allocate(&request).unwrap();
            assert_eq!(buffer.modifier(), Modifier::LINEAR);
        }
    });
}

#[test]
fn a_tiled_answer_to_linear_is_refused() {
    let name = "a_tiled_answer_to_linear_is_refused";
    let environment = [("PRIMESHARE_GBM_MODIFIERS", "none")];
    over(&["nvidia"], &environment, name, |guest| {
        let gbm = Gbm::new(&guest.vkms()).unwrap();
        for usage in [Usage::empty(), Usage::SCANOUT, Usage::RENDER] {
            let linear = gbm.allocate(&with(&[Modifier::LINEAR], usage));
            assert!(linear.is_err(), "{linear:?}");
            let both = gbm.allocate(&with(&[Modifier::LINEAR, Modifier::INVALID], usage));
            assert_eq!(both.unwrap().modifier(), Modifier::INVALID);
        }
    });
}

/// Mesa complains if dumb buffers are asked for on a render node, where the kernel refuses them.
#[test]
fn mesa_is_not_asked_for_what_it_complains_of() {
    if child::is_here() {
        return in_other_process(|guest| {
            // Those with a render node.
            let mut devices = vec![guest.vgem()];
            if guest.in_qemu() {
                devices.push(guest.nth("virtio_gpu", 0));
            }
            for device in devices {
                Gbm::new(&device).unwrap().allocate(&request()).unwrap();
            }
        });
    }
    in_guest(|_| {
        let mut child = Child::start("gbm::mesa_is_not_asked_for_what_it_complains_of", &[]);
        let ending = child.wait(PATIENCE);
        let output = child.output();
        assert!(output.contains("1 passed"), "{ending}\n{output}");
        let is_libtests = |line: &&str| {
            line.is_empty() || line.starts_with("running 1 test") || line.starts_with("test ")
        };
        let complaints: Vec<_> = output.lines().filter(|line| !is_libtests(line)).collect();
        assert_eq!(complaints, [""; 0]);
    });
}
