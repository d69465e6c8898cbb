//! Copies by default options between every two devices, in both directions, and within each device. Some of
//! their drivers take each other's memory, and some do not.

use primeshare::blit::{BlitDevice, Blitter, Options, Outcome, Strategy, Verdict, WhyNot};
use primeshare::{Device, gem, vk};

use super::{EACH_WAY, settle};
use crate::refusals::{devices, refusal};
use crate::support::{Guest, buffer_on, in_guest};

/// Copies between every two devices until it is settled how, looks at every picture, and hands
/// each verdict to `check`.
fn between_all(guest: &Guest, vulkan: [Option<vk::PhysicalDevice>; 2], check: impl Fn(&Verdict)) {
    let devices = devices(guest);
    let mut refused = 0;
    for source in &devices {
        for destination in &devices {
            let sides = [
                BlitDevice::new(source, vulkan[0].as_ref()),
                BlitDevice::new(destination, vulkan[1].as_ref()),
            ];
            let (from, to) = (buffer_on(source), buffer_on(destination));
            // Software Vulkan does not care whose memory it is, and takes its time where the processor
            // is emulated: one strategy of each way will do there.
            let options = match guest.in_qemu() && vulkan[0].is_some() {
                true => Options::default().strategies(EACH_WAY.iter().copied()),
                false => Options::default(),
            };
            let blitter = blitter(sides, &options);
            let mut verdict = settle(&blitter, &from, &to);
            verdict.imports = blitter.ask_drivers(&from, &to);
            println!("{verdict}");
            assert_imports([source, destination], &verdict);
            refused += usize::from(matches!(verdict.imports[0], Some(Err(_))));
            check(&verdict);
        }
    }
    // virtio-gpu, bochs and qxl refuse all others' memory, vgem and cirrus bochs' and qxl's.
    let expected = if guest.has_gpu() {
        2 * 3 + 2
    } else if guest.in_qemu() {
        3 * 4 + 2 * 2
    } else {
        0
    };
    assert_eq!(refused, expected, "of {} devices", devices.len());
}

fn blitter([source, destination]: [BlitDevice; 2], options: &Options) -> Blitter {
    Blitter::new(source, destination, options).unwrap()
}

/// What the drivers answer is in the verdict, by its type and by its name.
fn assert_imports([source, destination]: [&Device; 2], verdict: &Verdict) {
    let asked = [(source, destination), (destination, source)];
    for ((exporter, importer), answer) in asked.into_iter().zip(&verdict.imports) {
        let expected = match refusal(exporter.driver(), importer.driver()) {
            None => Ok(()),
            Some(errno) => Err(gem::Error::Import {
                device: importer.to_string(),
                errno,
            }),
        };
        if let Err(gem::Error::Import { errno, .. }) = &expected {
            let text = verdict.to_string();
            assert!(text.contains(&format!("{errno:?}")), "{text}");
        }
        assert_eq!(*answer, Some(expected), "{verdict}");
    }
}

#[test]
fn with_vulkan_every_strategy_works_between_every_two_devices() {
    in_guest(|guest| {
        let vulkan = [guest.physical(), guest.physical()].map(Some);
        between_all(guest, vulkan, |verdict| {
            let chosen = verdict.chosen.unwrap();
            assert!(!chosen.is_push(), "where others work: {verdict}");
            // Software Vulkan maps whatever memory it is, so that no driver can refuse.
            for attempt in &verdict.attempts {
                let works = matches!(
                    attempt.outcome,
                    Outcome::Works {
                        verified: true,
                        bytes_per_second: Some(rate),
                    } if rate > 0.0
                );
                let one_gpu = matches!(attempt.outcome, Outcome::NotOffered(WhyNot::OneGpu));
                let within = verdict.source == verdict.destination;
                let is_left_out = guest.in_qemu() && !EACH_WAY.contains(&attempt.strategy);
                assert!(works || (within && one_gpu) || is_left_out, "{verdict}");
            }
        });
    });
}

#[test]
fn without_vulkan_the_processor_copies_between_every_two_devices() {
    in_guest(|guest| {
        between_all(guest, [None, None], |verdict| {
            assert_eq!(verdict.chosen, Some(Strategy::Cpu), "{verdict}");
            for &strategy in Strategy::ALL {
                let outcome = verdict.outcome(strategy).unwrap();
                match strategy {
                    Strategy::Cpu => {
                        assert!(matches!(outcome, Outcome::Works { verified: true, .. }));
                    }
                    _ => assert!(
                        matches!(outcome, Outcome::NotOffered(WhyNot::NoVulkan(_))),
                        "{verdict}"
                    ),
                }
            }
        });
    });
}

#[test]
fn a_side_without_a_drm_device_answers_nothing() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let without = || {
            let mut side = BlitDevice::new(&vgem, None);
            side.drm = None;
            side
        };
        let (from, to) = (buffer_on(&vgem), buffer_on(&vkms));
        let default = Options::default();
        let half = blitter([without(), BlitDevice::new(&vkms, None)], &default);
        settle(&half, &from, &to);
        assert_eq!(half.ask_drivers(&from, &to), [Some(Ok(())), None]);
        let none = blitter([without(), without()], &default);
        assert_eq!(none.ask_drivers(&from, &to), [None, None]);
        let none = settle(&none, &from, &to);
        assert_eq!(none.chosen, Some(Strategy::Cpu));
    });
}
