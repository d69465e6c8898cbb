//! As `removal`, for devices that are lost with all their ioctls: those on the QEMU guest's PCI bus.

use primeshare::Device;
use primeshare::blit::{BlitDevice, Blitter, Options};

use super::removal::copy_while;
use super::{assert_shows, blit, write};
use crate::support::{Held, buffer_on, in_guest, scale};
use crate::unplug::Slot;

/// Drivers that survive this. (virtio-gpu does not always, Linux 6.12: see `crate::unplug`.)
const DRIVERS: [&str; 2] = ["bochs-drm", "cirrus"];

fn by_processor(source: &Device, destination: &Device) -> Blitter {
    let sides = (
        BlitDevice::new(source, None),
        BlitDevice::new(destination, None),
    );
    Blitter::new(sides.0, sides.1, &Options::default()).unwrap()
}

#[test]
fn a_destination_taken_out_of_its_slot_in_mid_traffic_costs_nothing_but_its_frames() {
    in_guest(|guest| {
        let mut slots = Slot::all(guest);
        slots.retain(|slot| DRIVERS.contains(&slot.open().driver()));
        let vgem = guest.vgem();
        let source = buffer_on(&vgem);
        let before = Held::settled();
        let rounds = slots.len() * scale(3, 50);
        for (round, slot) in slots.iter().cycle().take(rounds).enumerate() {
            let device = slot.open();
            // bochs has its memory in the device.
            let in_system_memory = device.driver() == "cirrus";
            let blitter = by_processor(&vgem, &device);
            let frames_before = 1 + round % 5;
            let outcomes = copy_while(
                &blitter,
                &source,
                &device,
                frames_before,
                in_system_memory,
                || slot.remove(),
            );
            println!("{device}: {outcomes:?}");
            drop(blitter);
            let stats = device.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0), "{device}");
            drop(device);

            slot.rescan();
            let device = slot.open();
            let blitter = by_processor(&vgem, &device);
            let destination = buffer_on(&device);
            for seed in 100..105 {
                write(&source, seed);
                blit(&blitter, &source, &destination, &[], &[]).unwrap();
                assert_shows(&destination, seed, "on the device put back");
            }
            drop((blitter, destination, device));
            before.assert_no_more("after an unplug");
        }
    });
}
