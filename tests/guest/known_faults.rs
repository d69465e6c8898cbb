//! Faults that are known and to be mended. A test here fails today; it says so when it does not any
//! more, and then belongs to the others.

use std::path::Path;
use std::time::Duration;

use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::blit::{Blitter, Options, Side};
use primeshare::gbm::Gbm;
use primeshare::sync::{Access, Mapping, implicit};
use primeshare::vk::ash::vk::DriverId;
use primeshare::vk::{Device, Instance, Select, Use, Validation};
use primeshare::{DmaBuf, Fourcc};

use crate::child::{self, Child};
use crate::drivers::vtest::Server;
use crate::drivers::{Environment, LAVAPIPE, VENUS, environment, swiftshader};
use crate::gl::Gl;
use crate::kernel::virtgpu;
use crate::support::{Guest, in_guest, without_checks};

const PATIENCE: Duration = Duration::from_secs(300);
const SIZE: u32 = 512;
const RED: [f32; 3] = [1.0, 0.0, 0.0];
/// Blue, green and red of XR24, as it lies in memory.
const RED_PIXEL: [u8; 3] = [0, 0, 255];

/// A test that fails today, in this guest: in another process, with this in what it says.
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
        assert!(said.contains(expected), "fails in another way: {said}");
    });
}

/// A picture that the GPU of the guest `gpu` can draw.
fn picture(gpu: &primeshare::Device) -> DmaBuf {
    let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
    Gbm::new(gpu).unwrap().allocate(&request).unwrap()
}

/// What draws on it.
fn gl(gpu: &primeshare::Device) -> Gl {
    let nodes = primeshare::device::enumerate().unwrap();
    let render = nodes
        .iter()
        .find(|node| node.bus == gpu.node().bus && node.path != gpu.node().path);
    Gl::on(render.map_or(Path::new(""), |node| &node.path))
}

fn is_red(buffer: &DmaBuf) -> bool {
    let mut mapping = Mapping::read_only(&buffer.objects()[0]).unwrap();
    let access = mapping.begin_wait(Access::Read).unwrap();
    let mut row = vec![0; 4 * SIZE as usize];
    (0..SIZE).all(|y| {
        let offset = (y * buffer.planes()[0].stride) as usize;
        access.read(offset, &mut row).unwrap();
        row.chunks(4).all(|pixel| pixel[..3] == RED_PIXEL)
    })
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

/// A classic resource of virtio-gpu has its picture on the host; its memory in the guest, which is
/// what mappings show, is filled by TRANSFER_FROM_HOST only. SYNC does not do that.
#[test]
fn a_mapping_shows_what_the_gpu_drew() {
    let name = "a_mapping_shows_what_the_gpu_drew";
    fails_today(name, "gpu", by_lavapipe, "the mapping is stale", |guest| {
        let gpu = guest.nth("virtio_gpu", 0);
        let (buffer, gl) = (picture(&gpu), gl(&gpu));
        gl.fill(&buffer, RED, 1);
        gl.finish();
        let at_first = is_red(&buffer);
        virtgpu::fetch(&gpu, &buffer);
        assert!(is_red(&buffer), "not drawn at all");
        assert!(at_first, "the mapping is stale");
    });
}

/// The same, through the whole library: the copy is black, and said to be verified.
#[test]
fn a_copy_of_what_the_gpu_drew_arrives() {
    let name = "a_copy_of_what_the_gpu_drew_arrives";
    fails_today(name, "gpu", by_lavapipe, "the copy is wrong", |guest| {
        let (gpu, display) = (guest.nth("virtio_gpu", 0), guest.vkms());
        let (source, gl) = (picture(&gpu), gl(&gpu));
        let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
        let destination = Dumb::new(&display).allocate(&request).unwrap();
        let lavapipe = vulkan(DriverId::MESA_LLVMPIPE);
        let sides = [&gpu, &display].map(|device| Side::new(device, Some(&lavapipe)));
        let [from, to] = sides;
        let blitter = Blitter::new(from, to, &Options::default()).unwrap();
        gl.fill(&source, RED, 1);
        let fence = blitter.blit(&source, &destination, &[], &[]).unwrap();
        fence.wait(PATIENCE).unwrap();
        assert!(is_red(&destination), "the copy is wrong");
    });
}

/// Mesa's venus ends the program where it is given a resource that has no blob memory.
#[test]
fn venus_refuses_a_classic_resource() {
    let name = "venus_refuses_a_classic_resource";
    fails_today(name, "gpu", by_venus, "killed by SIGABRT", |guest| {
        let buffer = picture(&guest.nth("virtio_gpu", 0));
        let refused = vulkan(DriverId::MESA_VENUS).import_image(&buffer, Use::Source);
        assert!(refused.is_err());
    });
}

/// The blitter's trials import on the host program's device, whatever that does to the program.
#[test]
fn a_trial_does_not_end_the_program() {
    let name = "a_trial_does_not_end_the_program";
    fails_today(name, "gpu", by_venus, "killed by SIGABRT", |guest| {
        let (gpu, display) = (guest.nth("virtio_gpu", 0), guest.vkms());
        let request = Request::new(SIZE, SIZE, Fourcc::XRGB8888);
        let allocate = |device| Dumb::new(device).allocate(&request).unwrap();
        let (source, destination) = (allocate(&gpu), allocate(&display));
        let venus = vulkan(DriverId::MESA_VENUS);
        let from = Side::new(&gpu, Some(&venus));
        let blitter = Blitter::new(from, Side::new(&display, None), &Options::default()).unwrap();
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

/// A sync file that is pending is to be handed on to the GPU. venus waits for it on import, up to
/// the fence's end, so that the library's caller waits as well.
#[test]
fn a_pending_sync_file_is_taken_without_waiting() {
    let name = "a_pending_sync_file_is_taken_without_waiting";
    fails_today(name, "gpu", by_venus, "waited for it", |guest| {
        let (gpu, vgem) = (vulkan(DriverId::MESA_VENUS), guest.vgem());
        let buffer = crate::support::buffer_on(&vgem);
        let _fence = crate::fences::vgem::Fence::attach(&vgem, &buffer, Access::Write);
        let pending = implicit::export(&buffer, Access::Read).unwrap();
        let given = pending.try_clone().unwrap();
        let semaphore = primeshare::vk::Semaphore::from_sync_file(&gpu, Some(given.into()));
        semaphore.unwrap();
        assert!(!pending.is_signalled().unwrap(), "waited for it");
    });
}
