//! Which Vulkan device is selected if some share little or nothing.

use std::path::Path;
use std::time::Duration;

use primeshare::alloc::{Allocator, Dumb, Request};
use primeshare::sync::Mapping;
use primeshare::vk::ash::vk::{BufferUsageFlags, DriverId};
use primeshare::vk::{Device, Error, Feature, Instance, PhysicalDevice, Select, Use, Validation};
use primeshare::{Fourcc, Modifier};

use super::vtest::Server;
use super::{Environment, LAVAPIPE, VENUS, environment, radv, swiftshader};
use crate::child::{self, Child};
use crate::support::{Guest, buffer_on, can_run, in_guest, without_checks};
use crate::vulkan::bytes::Bytes;
use crate::vulkan::matrix::{As, there_and_back};

const PATIENCE: Duration = Duration::from_secs(300);

/// A test in a process that uses other drivers, in the guest of this kind.
fn with_drivers(
    name: &str,
    kind: &str,
    environment: impl FnOnce() -> Environment,
    test: impl FnOnce(&Guest),
) {
    if child::is_here() {
        return without_checks(test);
    }
    in_guest(|_| {
        let is_here = std::env::var("PRIMESHARE_GUEST_KIND").is_ok_and(|here| here == kind);
        if can_run(is_here, &format!("the guest {kind}")) {
            let name = format!("drivers::choice::{name}");
            Child::start(&name, &environment()).assert_success(PATIENCE);
        }
    });
}

fn select(select: &Select<'_>) -> PhysicalDevice {
    let instance = Instance::new(Validation::Off).unwrap();
    instance.select(select).unwrap()
}

/// Three devices that are the processor, of which one shares and comes last.
#[test]
fn of_software_devices_one_that_shares_is_selected() {
    let server = std::cell::OnceCell::new();
    let all = || {
        let server: &Server = server.get_or_init(Server::start);
        let mut all = environment("llvmpipe", &[&swiftshader(), VENUS, LAVAPIPE]);
        all.extend(server.environment());
        all
    };
    let name = "of_software_devices_one_that_shares_is_selected";
    with_drivers(name, "current", all, |_| {
        let instance = Instance::new(Validation::Off).unwrap();
        let all = instance.physical_devices().unwrap();
        assert_eq!(all.iter().filter(|device| device.is_software()).count(), 3);
        let selected = instance.select(&Select::Software).unwrap();
        assert_eq!(selected.driver_id(), Some(DriverId::MESA_LLVMPIPE));
    });
}

/// By its extensions venus over vtest shares; it imports nothing.
#[test]
fn a_device_that_only_exports_is_not_said_to_share() {
    let server = std::cell::OnceCell::new();
    let by_vtest = || {
        let server: &Server = server.get_or_init(Server::start);
        let mut environment = environment("venus", &[VENUS]);
        environment.extend(server.environment());
        environment
    };
    let name = "a_device_that_only_exports_is_not_said_to_share";
    with_drivers(name, "current", by_vtest, |_| {
        let venus = select(&Select::Driver(DriverId::MESA_VENUS));
        let device = Device::new(&venus).unwrap();
        let imported = device.importable_modifiers(Fourcc::XRGB8888, Use::Source);
        assert_eq!(imported.unwrap(), []);
        assert_eq!(venus.missing_extensions(), ["import of buffers and images"]);
        // It still exports.
        let linear = [Modifier::LINEAR];
        device
            .create_image(64, 64, Fourcc::XRGB8888, &linear, Use::Source)
            .unwrap();
    });
}

#[test]
fn a_gpu_without_modifiers_shares_bytes() {
    let old = || radv("POLARIS10");
    let name = "a_gpu_without_modifiers_shares_bytes";
    with_drivers(name, "compat", old, |_| {
        let radv = select(&Select::Driver(DriverId::MESA_RADV));
        assert!(!radv.capabilities().has(Feature::Modifiers));
        for feature in [Feature::DmaBuf, Feature::Import, Feature::Foreign] {
            assert!(radv.capabilities().has(feature), "{feature}");
        }
        Device::new(&radv).unwrap();
    });
}

/// SwiftShader shares nothing at all.
#[test]
fn a_device_that_shares_nothing_says_so_when_asked_to_share() {
    let only = || environment("swiftshader", &[&swiftshader()]);
    let name = "a_device_that_shares_nothing_says_so_when_asked_to_share";
    with_drivers(name, "current", only, |guest| {
        let device = Device::new(&select(&Select::Software)).unwrap();
        let buffer = buffer_on(&guest.vgem());
        let image = device.import_image(&buffer, Use::Source).unwrap_err();
        let usage = BufferUsageFlags::TRANSFER_SRC;
        let bytes = device.import_buffer(&buffer, usage).unwrap_err();
        let made = device.create_buffer(64, 64, Fourcc::XRGB8888, usage);
        for error in [image, bytes, made.unwrap_err()] {
            assert!(
                matches!(&error, Error::Missing { feature, .. } if *feature == Feature::DmaBuf),
                "{error}"
            );
        }
    });
}

/// lavapipe has modifiers only with `/dev/udmabuf`.
#[test]
fn without_udmabuf_lavapipe_shares_bytes() {
    if child::is_here() {
        return without_checks(|guest| {
            let vulkan = guest.vulkan();
            assert!(!vulkan.capabilities().has(Feature::Modifiers));
            let request = Request::new(64, 48, Fourcc::XRGB8888);
            let buffer = Dumb::new(&guest.vgem()).allocate(&request).unwrap();
            let refused = vulkan.import_image(&buffer, Use::Source).unwrap_err();
            assert!(matches!(refused, Error::Missing { .. }), "{refused}");
            let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
            let mut bytes = Bytes::new(&vulkan, buffer.objects()[0].size() as usize);
            let why = |error: Error| error.to_string();
            there_and_back(&vulkan, &buffer, &mut mapping, &mut bytes, As::Buffer, why).unwrap();
        });
    }
    in_guest(|_| {
        let _hidden = Hidden::new(Path::new("/dev/udmabuf"));
        let name = "drivers::choice::without_udmabuf_lavapipe_shares_bytes";
        let lavapipe = environment("llvmpipe", &[LAVAPIPE]);
        Child::start(name, &lavapipe).assert_success(PATIENCE);
    });
}

/// A file by another name, for a while.
struct Hidden<'a>(&'a Path);

impl<'a> Hidden<'a> {
    fn new(path: &'a Path) -> Self {
        std::fs::rename(path, path.with_extension("hidden")).unwrap();
        Self(path)
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = std::fs::rename(self.0.with_extension("hidden"), self.0);
    }
}
