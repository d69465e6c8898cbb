//! Tiled modifiers, as RADV has them for GPUs that are not there: the guest `compat` has the last
//! Mesa that can be asked (`RADV_FORCE_FAMILY`). Only asked: there is nothing to make an image of.

use std::time::Duration;

use primeshare::negotiate::{
    Agreement, DeviceKey, Endpoint, FormatSet, Support, Usage, Wanted, negotiate,
};
use primeshare::vk::ash::vk::DriverId;
use primeshare::vk::{Device, Feature, Instance, Select, Validation};
use primeshare::{Fourcc, Modifier};

use super::radv;
use crate::child::{self, Child};
use crate::support::{can_run, in_guest, without_checks};

const PATIENCE: Duration = Duration::from_secs(300);
const USAGE: Usage = Usage::RENDER.union(Usage::SAMPLE);

/// GPUs of three generations, by how they tile: GFX9, GFX10.3 and GFX11.
const GFX9: &str = "RENOIR";
const GFX10: &str = "NAVI21";
const GFX11: &str = "NAVI31";

/// What a process prints of each modifier that a GPU has for XR24.
const MODIFIER: &str = "@modifier\t";

/// A test with the endpoints of GPUs of these families, which other processes have asked for: each
/// is this test again, of a family.
fn with_gpus<const N: usize>(name: &str, families: [&str; N], test: impl FnOnce([Endpoint; N])) {
    if child::is_here() {
        return without_checks(|_| tell());
    }
    in_guest(|guest| {
        if can_run(guest.is_compat(), "the guest compat") {
            let mut key = 0;
            test(families.map(|family| {
                key += 1;
                ask(&format!("drivers::tiled::{name}"), family, DeviceKey(key))
            }));
        }
    });
}

fn ask(test: &str, family: &str, key: DeviceKey) -> Endpoint {
    let mut child = Child::start(test, &radv(family));
    let mut formats = Vec::new();
    while let Ok(line) = child.next_line(PATIENCE) {
        if let Some(modifier) = line.strip_prefix(MODIFIER) {
            let modifier = Modifier(modifier.parse().unwrap());
            formats.push(Support {
                planes: Some(1),
                allocate: true,
                ..Support::new(Fourcc::XRGB8888, modifier)
            });
        }
    }
    child.assert_success(PATIENCE);
    Endpoint::vulkan(family, Some(key), USAGE, FormatSet::from_iter(formats))
}

/// In the other process.
fn tell() {
    let instance = Instance::new(Validation::Off).unwrap();
    let radv = instance.select(&Select::Driver(DriverId::MESA_RADV));
    let radv = radv.unwrap();
    assert!(!radv.is_software());
    assert!(radv.capabilities().has(Feature::AcquireUnmodified));
    let endpoint = Device::new(&radv).unwrap().endpoint(USAGE).unwrap();
    for entry in endpoint.formats.iter() {
        // What is compressed has planes more than the format.
        let is_plain = entry.planes == Some(1) && entry.allocate && entry.import;
        if entry.fourcc == Fourcc::XRGB8888 && is_plain {
            println!("{MODIFIER}{}", entry.modifier.0);
        }
    }
}

fn modifiers(endpoint: &Endpoint) -> Vec<Modifier> {
    endpoint
        .formats
        .iter()
        .map(|entry| entry.modifier)
        .collect()
}

fn between<'a>(endpoints: &[&'a Endpoint]) -> Agreement<'a> {
    negotiate(endpoints, &Wanted::new(1920, 1080))
}

#[test]
fn every_generation_has_tilings_of_its_own_and_linear() {
    let name = "every_generation_has_tilings_of_its_own_and_linear";
    with_gpus(name, [GFX9, GFX10, GFX11], |gpus| {
        for gpu in &gpus {
            let known = modifiers(gpu);
            assert!(known.contains(&Modifier::LINEAR), "{known:?}");
            let others = gpus.iter().filter(|other| other.name != gpu.name);
            let shared: Vec<_> = others.flat_map(modifiers).collect();
            let own = known.iter().filter(|modifier| !shared.contains(modifier));
            // The first eight bits are the vendor: AMD.
            assert!(own.clone().count() > 0, "{known:?}");
            assert!(
                own.clone().all(|modifier| modifier.0 >> 56 == 2),
                "{known:?}"
            );
        }
    });
}

#[test]
fn two_gpus_of_a_generation_share_tiled_buffers() {
    let name = "two_gpus_of_a_generation_share_tiled_buffers";
    with_gpus(name, [GFX11, GFX11], |[one, other]| {
        let agreement = between(&[&one, &other]);
        let best = agreement.best().unwrap();
        assert_eq!(best.fourcc, Fourcc::XRGB8888);
        assert!(best.modifiers.len() > 1, "{:?}", best.modifiers);
        assert!(!best.only_linear());
    });
}

#[test]
fn two_generations_share_the_tiling_that_both_know() {
    let name = "two_generations_share_the_tiling_that_both_know";
    with_gpus(name, [GFX9, GFX10], |[old, new]| {
        let agreement = between(&[&old, &new]);
        let best = agreement.best().unwrap();
        assert!(!best.only_linear());
        // 64 KiB standard swizzle is the same since GFX9 (`drm_fourcc.h`, `AMD_FMT_MOD_TILE_GFX9_64K_S`).
        assert!(best.modifiers.contains(&Modifier(0x0200_0000_0000_0901)));
        let known = [&old, &new].map(modifiers);
        let is_known = |modifier| known.iter().all(|known| known.contains(modifier));
        assert!(best.modifiers.iter().all(is_known), "{:?}", best.modifiers);
    });
}

#[test]
fn generations_without_a_common_tiling_and_plain_displays_share_linear_buffers() {
    let name = "generations_without_a_common_tiling_and_plain_displays_share_linear_buffers";
    with_gpus(name, [GFX9, GFX11], |[old, new]| {
        let agreement = between(&[&old, &new]);
        assert!(agreement.best().unwrap().only_linear());
        let linear = [(Fourcc::XRGB8888, Modifier::LINEAR)];
        let display = Endpoint::plane("display", DeviceKey(9), FormatSet::from_iter(linear));
        let agreement = between(&[&new, &display]);
        let best = agreement.best().unwrap();
        assert!(best.only_linear());
        assert_eq!(agreement.allocator(best).unwrap().name, GFX11);
    });
}
