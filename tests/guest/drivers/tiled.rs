//! Tiled modifiers, as RADV has them for GPUs that are not there: the guest `compat` has the last
//! Mesa that can be asked (`RADV_FORCE_FAMILY`). Only asked: there is nothing to make an image of.

use std::time::Duration;

use primeshare::negotiate::Usage;
use primeshare::vk::ash::vk::DriverId;
use primeshare::vk::{Device, Feature, Instance, Select, Validation};
use primeshare::{Fourcc, Modifier};

use super::{RADV, environment};
use crate::child::{self, Child};
use crate::support::in_guest;

const PATIENCE: Duration = Duration::from_secs(300);

/// What a process prints of each modifier that a GPU has for XR24.
const MODIFIER: &str = "@modifier\t";
/// And of a feature that it lacks.
const LACKS: &str = "@lacks\t";

/// What another process has found of a GPU of some generation.
struct Gpu {
    modifiers: Vec<Modifier>,
    lacks: Vec<String>,
}

/// Asks RADV of a GPU of this family, in another process, which is this test again.
fn ask(test: &str, family: &str) -> Gpu {
    let mut environment = environment("radv", &[RADV]);
    environment.push(("RADV_FORCE_FAMILY", family.to_owned()));
    let mut child = Child::start(test, &environment);
    let mut gpu = Gpu {
        modifiers: Vec::new(),
        lacks: Vec::new(),
    };
    while let Ok(line) = child.next_line(PATIENCE) {
        if let Some(modifier) = line.strip_prefix(MODIFIER) {
            gpu.modifiers.push(Modifier(modifier.parse().unwrap()));
        } else if let Some(lacks) = line.strip_prefix(LACKS) {
            gpu.lacks.push(lacks.to_owned());
        }
    }
    child.assert_success(PATIENCE);
    gpu
}

/// In the other process.
fn tell() {
    let instance = Instance::new(Validation::Off).unwrap();
    let radv = instance
        .select(&Select::Driver(DriverId::MESA_RADV))
        .unwrap();
    assert!(!radv.is_software());
    for feature in Feature::ALL {
        for lacks in radv.capabilities().missing(feature) {
            println!("{LACKS}{lacks}");
        }
    }
    let device = Device::new(&radv).unwrap();
    let endpoint = device.endpoint(Usage::RENDER | Usage::SAMPLE).unwrap();
    for entry in endpoint.formats.iter() {
        println!("@entry {entry:?}");
        if entry.fourcc == Fourcc::XRGB8888 {
            println!("{MODIFIER}{}", entry.modifier.0);
        }
    }
}

#[test]
fn probe() {
    if child::is_here() {
        return tell();
    }
    in_guest(|guest| {
        if !guest.is_compat() {
            return;
        }
        for family in [
            "NAVI31",
            "NAVI21",
            "NAVI14",
            "RENOIR",
            "VEGA10",
            "GFX1200",
            "POLARIS10",
        ] {
            let gpu = ask("drivers::tiled::probe", family);
            println!("{family}: {:x?} lacks {:?}", gpu.modifiers, gpu.lacks);
        }
    });
}
