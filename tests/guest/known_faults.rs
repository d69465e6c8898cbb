//! Faults that are known and to be mended. A test here fails today; it says so when it does not any
//! more, and then belongs to the others.

use std::time::Duration;

use primeshare::Fourcc;
use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::blit::{Blit, Blitter, Options, Side};
use primeshare::sync::{Access, implicit};
use primeshare::vk::ash::vk::DriverId;
use primeshare::vk::{
    Commands, Device, Feature, Instance, Point, Select, Semaphore, Use, Validation,
};

use crate::child::{self, Child};
use crate::drivers::vtest::Server;
use crate::drivers::{self, Environment, LAVAPIPE, VENUS, environment, swiftshader};
use crate::fences::vgem::Fence as VgemFence;
use crate::gl::SIZE;
use crate::support::{Guest, buffer_on, in_guest, without_checks};

const PATIENCE: Duration = Duration::from_secs(300);
/// A test that fails today, in this guest: in another process, with this in what it says, or all of
/// what stands between " … ".
fn fails_today(
    name: &str,
    kind: &str,
    environment: impl FnOnce() -> Environment,
    expected: &str,
    test: impl FnOnce(&Guest),
) {
    if std::env::var("PRIMESHARE_GUEST_KIND").unwrap() != kind {
        return;
    }
    if child::is_here() {
        return without_checks(test);
    }
    in_guest(|_| {
        let mut child = Child::start(&format!("known_faults::{name}"), &environment());
        let ending = child.wait(PATIENCE);
        let said = format!("{ending}\n{}", child.output());
        assert!(
            !said.contains("1 passed"),
            "mended: this test is none of the known faults any more"
        );
        let as_expected = expected.split(" … ").all(|part| said.contains(part));
        assert!(as_expected, "fails in another way: {said}");
    });
}

/// With lavapipe alone, as where there is no better Vulkan driver.
fn by_lavapipe() -> Environment {
    environment("llvmpipe", &[LAVAPIPE])
}

fn by_venus() -> Environment {
    environment("venus", &[VENUS])
}

fn vulkan(id: DriverId) -> Device {
    let instance = Instance::new(Validation::Off).unwrap();
    Device::new(&instance.select(&Select::Driver(id)).unwrap()).unwrap()
}

/// The blitter's trials import on the host program's device, whatever that does to the program.
#[test]
fn a_trial_does_not_end_the_program() {
    let name = "a_trial_does_not_end_the_program";
    let expected = "now … killed by SIGABRT";
    fails_today(name, "gpu", by_venus, expected, |guest| {
        let (gpu, display) = (guest.nth("virtio_gpu", 0), guest.vkms());
        let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
        let allocate = |device| Dumb::new(device).allocate(&request).unwrap();
        let (source, destination) = (allocate(&gpu), allocate(&display));
        let venus = vulkan(DriverId::MESA_VENUS);
        let from = Side::new(&gpu, Some(&venus));
        let blitter = Blitter::new(from, Side::new(&display, None), &Options::default()).unwrap();
        println!("now it is tried");
        let fence = blitter.blit(&source, &destination, &[], &[]).unwrap();
        fence.wait(PATIENCE).unwrap();
    });
}

/// Three devices that are the processor, of which one shares: the first is taken.
#[test]
fn of_software_devices_one_that_shares_is_selected() {
    let name = "of_software_devices_one_that_shares_is_selected";
    let server = std::cell::OnceCell::new();
    let all = || {
        let server: &Server = server.get_or_init(Server::start);
        let mut all = environment("llvmpipe", &[&swiftshader(), VENUS, LAVAPIPE]);
        all.extend(server.environment());
        all
    };
    fails_today(name, "current", all, "the wrong device", |_| {
        let instance = Instance::new(Validation::Off).unwrap();
        let all = instance.physical_devices().unwrap();
        assert_eq!(all.iter().filter(|device| device.is_software()).count(), 3);
        let selected = instance.select(&Select::Software).unwrap();
        let driver = selected.driver_id();
        assert_eq!(driver, Some(DriverId::MESA_LLVMPIPE), "the wrong device");
    });
}

/// By its extensions venus over vtest shares; it imports nothing.
#[test]
fn a_device_that_only_exports_is_not_said_to_share() {
    let name = "a_device_that_only_exports_is_not_said_to_share";
    let server = std::cell::OnceCell::new();
    let by_vtest = || {
        let server: &Server = server.get_or_init(Server::start);
        let mut environment = by_venus();
        environment.extend(server.environment());
        environment
    };
    fails_today(name, "current", by_vtest, "said to share", |_| {
        let device = vulkan(DriverId::MESA_VENUS);
        let imported = device
            .importable_modifiers(Fourcc::XRGB8888, Use::Source)
            .unwrap();
        assert!(imported.is_empty(), "it imports after all");
        let lacks = device.physical().missing_extensions();
        assert!(!lacks.is_empty(), "said to share");
    });
}

/// A GPU waits for a pending sync file, and nobody else. venus waits itself, when it is to submit
/// what waits, so that the library's caller waits as well.
#[test]
fn work_that_waits_is_submitted_without_waiting() {
    let name = "work_that_waits_is_submitted_without_waiting";
    fails_today(name, "gpu", by_venus, "waited for it", |guest| {
        let (gpu, vgem) = (vulkan(DriverId::MESA_VENUS), guest.vgem());
        let buffer = crate::support::buffer_on(&vgem);
        let _fence = VgemFence::attach(&vgem, &buffer, Access::Write);
        let pending = implicit::export(&buffer, Access::Read).unwrap();
        let given = pending.try_clone().unwrap();
        let semaphore = Semaphore::from_sync_file(&gpu, Some(given.into())).unwrap();
        let mut commands = Commands::new(&gpu).unwrap();
        // SAFETY: nothing is recorded, and the semaphore is waited for once.
        unsafe {
            commands.record(|_, _| {}).unwrap();
            commands
                .submit_with(&[Point::Binary(semaphore)], &[])
                .unwrap();
        }
        assert!(!pending.is_signalled().unwrap(), "waited for it");
    });
}

/// A single copy by Vulkan does not look for the fences that the source carries.
#[test]
fn a_single_copy_waits_for_those_who_write_the_source() {
    let name = "a_single_copy_waits_for_those_who_write_the_source";
    fails_today(name, "current", by_lavapipe, "did not wait", |guest| {
        let (vgem, display) = (guest.vgem(), guest.vkms());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&display));
        let lavapipe = vulkan(DriverId::MESA_LLVMPIPE);
        let mut blit = Blit::new(&lavapipe, &source, &destination, 1).unwrap();
        // It is signalled by the kernel after ten seconds.
        let _writer = VgemFence::attach(&vgem, &source, Access::Write);
        let written = implicit::export(&source, Access::Read).unwrap();
        blit.submit().unwrap();
        blit.wait(PATIENCE).unwrap();
        assert!(written.is_signalled().unwrap(), "did not wait");
    });
}

/// A GPU without modifiers still shares memory that is bytes, by VkBuffer.
#[test]
fn a_gpu_without_modifiers_shares_bytes() {
    let name = "a_gpu_without_modifiers_shares_bytes";
    let old = || drivers::radv("POLARIS10");
    fails_today(name, "compat", old, "no images with modifiers", |_| {
        let instance = Instance::new(Validation::Off).unwrap();
        let radv = instance.select(&Select::Driver(DriverId::MESA_RADV));
        let radv = radv.unwrap();
        assert!(!radv.capabilities().has(Feature::Modifiers));
        assert!(radv.capabilities().has(Feature::DmaBuf));
        if let Err(error) = Device::new(&radv) {
            panic!("{error}");
        }
    });
}
