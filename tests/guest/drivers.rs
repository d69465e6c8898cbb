//! Vulkan drivers: which one the tests use.

use std::collections::BTreeMap;

use primeshare::vk::ash::vk::DriverId;

/// The environment variable that names the driver for tests of Vulkan and of copies.
const VARIABLE: &str = "PRIMESHARE_TEST_VULKAN";

/// Names of drivers, as their own `driverName` has them.
const DRIVERS: [(&str, DriverId); 4] = [
    ("llvmpipe", DriverId::MESA_LLVMPIPE),
    ("venus", DriverId::MESA_VENUS),
    ("SwiftShader driver", DriverId::GOOGLE_SWIFTSHADER),
    ("radv", DriverId::MESA_RADV),
];

/// The driver that tests are to use: lavapipe, unless they are told otherwise.
pub(crate) fn chosen() -> DriverId {
    let name = std::env::var(VARIABLE).unwrap_or_else(|_| "llvmpipe".to_owned());
    let found = DRIVERS.into_iter().find(|(known, _)| *known == name);
    match found {
        Some((_, id)) => id,
        None => panic!("{VARIABLE} names no driver that is known here: {name}"),
    }
}

/// venus leaves a sync file open for each instance (Mesa 26.1.6).
pub(crate) fn forget_what_venus_leaves(
    left: &mut BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
) {
    left.retain(|number, what| before.contains_key(number) || what != "anon_inode:sync_file");
}
