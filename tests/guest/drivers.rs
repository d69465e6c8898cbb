//! Vulkan drivers: which one the tests use, and what each does and refuses.

mod choice;
mod suite;
mod table;
mod tiled;
mod venus;
mod virgl;
pub(crate) mod vtest;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Once;

use primeshare::vk::PhysicalDevice;
use primeshare::vk::ash::vk::DriverId;

/// The environment variable that names the driver for tests of Vulkan and of copies.
const VARIABLE: &str = "PRIMESHARE_TEST_VULKAN";

/// The files that describe drivers to the Vulkan loader.
pub(crate) const LAVAPIPE: &str = "/usr/share/vulkan/icd.d/lvp_icd.json";
pub(crate) const VENUS: &str = "/usr/share/vulkan/icd.d/virtio_icd.json";
const RADV: &str = "/usr/share/vulkan/icd.d/radeon_icd.json";

/// The variable by which the guest `current` tells where SwiftShader is.
const SWIFTSHADER: &str = "PRIMESHARE_SWIFTSHADER";

/// Names of drivers, and their ids.
const DRIVERS: [(&str, DriverId); 4] = [
    ("llvmpipe", DriverId::MESA_LLVMPIPE),
    ("venus", DriverId::MESA_VENUS),
    ("swiftshader", DriverId::GOOGLE_SWIFTSHADER),
    ("radv", DriverId::MESA_RADV),
];

/// Variables for a process that is to use some driver.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// The driver that tests are to use: lavapipe, unless they are told otherwise.
pub(crate) fn chosen() -> DriverId {
    let name = std::env::var(VARIABLE).unwrap_or_else(|_| "llvmpipe".to_owned());
    let found = DRIVERS.into_iter().find(|(known, _)| *known == name);
    match found {
        Some((_, id)) => id,
        None => panic!("{VARIABLE} names no driver that is known here: {name}"),
    }
}

/// Says, once in each process, which driver the tests use.
pub(crate) fn say(device: &PhysicalDevice) {
    static ONCE: Once = Once::new();
    // Past libtest, which keeps to itself what a test that passes prints.
    ONCE.call_once(|| {
        let name = device.name();
        let _ = writeln!(std::io::stderr(), "Vulkan by {name} ({:?})", chosen());
    });
}

/// The loader is told of these drivers only, and tests use the one of this name.
pub(crate) fn environment(name: &str, descriptions: &[&str]) -> Environment {
    let descriptions = descriptions.join(":");
    vec![
        (VARIABLE, name.to_owned()),
        ("VK_ICD_FILENAMES", descriptions.clone()),
        ("VK_DRIVER_FILES", descriptions),
    ]
}

/// For RADV on a GPU of this family that is not there.
pub(crate) fn radv(family: &str) -> Environment {
    let mut environment = environment("radv", &[RADV]);
    environment.push(("RADV_FORCE_FAMILY", family.to_owned()));
    environment
}

/// What the loader is told of SwiftShader.
pub(crate) fn swiftshader() -> String {
    std::env::var(SWIFTSHADER).expect("the guest `current` has SwiftShader")
}

/// Whether the loader knows venus, so that every instance loads it.
pub(crate) fn has_venus() -> bool {
    std::env::var("VK_DRIVER_FILES").is_ok_and(|files| files.contains(VENUS))
}

/// venus leaves a sync file open for each instance (Mesa 26.1.6).
pub(crate) fn forget_what_venus_leaves(
    left: &mut BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
) {
    left.retain(|number, what| before.contains_key(number) || what != "anon_inode:sync_file");
}
