//! Screens and devices that are plugged in and out are told.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use primeshare::device::{Node, NodeId};
use primeshare::kms::{Card, Change, Error, Hotplug, Status};
use primeshare::{Device, ErrorKind};

use super::Program;
use crate::kernel::seccomp::forbid_netlink;
use crate::support::{PATIENCE, in_guest};
use crate::unplug::Slot;
use crate::vkms::{Vkms, can_be_plugged};

/// Whether the fd becomes readable.
fn is_readable(hotplug: &Hotplug, time: Duration) -> bool {
    let mut fds = [PollFd::new(hotplug.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(time).unwrap()).unwrap() > 0
}

/// The changes until there is one like this.
fn wait_for(hotplug: &mut Hotplug, is_it: impl Fn(&Change) -> bool) -> Vec<Change> {
    let end = Instant::now() + PATIENCE;
    let mut changes = Vec::new();
    while !changes.iter().any(&is_it) {
        assert!(Instant::now() < end, "it was not told; {changes:?}");
        assert!(is_readable(hotplug, PATIENCE), "nothing came; {changes:?}");
        changes.extend(hotplug.changes().unwrap());
    }
    changes
}

fn is_of_screens(of: NodeId) -> impl Fn(&Change) -> bool {
    move |change| matches!(change, Change::Screens { device, .. } if *device == of)
}

fn status(card: &Card) -> Status {
    let screens = card.screens(true).unwrap();
    let mut connectors = screens.connectors.iter();
    connectors.find(|c| !c.is_writeback).unwrap().status
}

#[test]
fn a_screen_and_a_device_that_are_plugged_in_and_out_are_told_by_the_kernel() {
    in_guest(|_| {
        if !can_be_plugged() {
            return;
        }
        let mut hotplug = Hotplug::new().unwrap();
        assert!(!is_readable(&hotplug, Duration::ZERO));
        assert_eq!(hotplug.changes().unwrap(), []);
        let slot = Vkms::new("hotplug");
        slot.plug();
        let Node { id, path, .. } = slot.node();
        wait_for(&mut hotplug, |change| *change == Change::DeviceAdded(id));
        {
            let program = Program::on(&Device::open(path).unwrap());
            assert_eq!(status(&program.card), Status::Connected);
            for wanted in [Status::Disconnected, Status::Connected] {
                slot.set_connected(wanted == Status::Connected);
                let changes = wait_for(&mut hotplug, is_of_screens(id));
                assert!(changes.iter().all(|change| change.concerns(&program.card)));
                assert_eq!(status(&program.card), wanted);
            }
        }
        slot.unplug();
        wait_for(&mut hotplug, |change| *change == Change::DeviceRemoved(id));
        assert_eq!(hotplug.changes().unwrap(), []);
    });
}

#[test]
fn a_device_that_leaves_its_pci_slot_and_comes_back_is_told_with_its_number() {
    in_guest(|guest| {
        let mut hotplug = Hotplug::new().unwrap();
        for slot in Slot::all(guest) {
            let before = slot.open();
            let id = before.node().id;
            slot.remove();
            wait_for(&mut hotplug, |change| *change == Change::DeviceRemoved(id));
            slot.rescan();
            // By another number while the old one is in use.
            let is_new = |change: &Change| matches!(change, Change::DeviceAdded(new) if *new != id);
            let changes = wait_for(&mut hotplug, is_new);
            let after = slot.open();
            let added = Change::DeviceAdded(after.node().id);
            assert!(changes.contains(&added), "{changes:?}");
            // It can be asked, and has a screen.
            let program = Program::on(&after);
            assert_eq!(status(&program.card), Status::Connected);
            assert!(added.concerns(&program.card));
            assert!(!Change::DeviceRemoved(id).concerns(&program.card));
        }
    });
}

#[test]
fn a_screen_that_is_plugged_in_and_out_is_found_by_asking() {
    in_guest(|_| {
        if !can_be_plugged() {
            return;
        }
        let slot = Vkms::new("polled");
        slot.plug();
        let node = slot.node();
        let program = Program::on(&Device::open(&node.path).unwrap());
        let interval = Duration::from_millis(10);
        let mut asking = Hotplug::by_polling(&program.card, interval, true).unwrap();
        // vkms notices nothing by itself: the kernel knows what it was told last.
        let mut waiting = Hotplug::by_polling(&program.card, interval, false).unwrap();
        for connected in [false, true] {
            assert!(is_readable(&asking, PATIENCE));
            assert_eq!(asking.changes().unwrap(), []);
            slot.set_connected(connected);
            std::thread::sleep(interval);
            assert_eq!(waiting.changes().unwrap(), []);
            let changes = wait_for(&mut asking, is_of_screens(node.id));
            let connector = program.connector_id();
            let expected = Change::Screens {
                device: node.id,
                connector: Some(connector),
                property: None,
            };
            assert!(
                matches!(&changes[..], [change] if *change == expected),
                "{changes:?}"
            );
            wait_for(&mut waiting, |change| *change == expected);
        }
    });
}

#[test]
fn lost_messages_are_told_as_a_change_of_anything() {
    in_guest(|guest| {
        let mut hotplug = Hotplug::new().unwrap();
        let minor = guest.vkms().node().id.minor;
        let uevent = format!("/sys/dev/char/226:{minor}/uevent");
        for _ in 0..1000 {
            fs::write(&uevent, "change").unwrap();
        }
        assert_eq!(hotplug.changes().unwrap(), [Change::Unknown]);
        assert_eq!(hotplug.changes().unwrap(), []);
        // What somebody writes there is no change of screens.
        fs::write(&uevent, "add").unwrap();
        assert_eq!(hotplug.changes().unwrap(), []);
    });
}

#[test]
fn without_netlink_sockets_there_is_a_typed_error() {
    in_guest(|_| {
        // The prohibition ends with its thread.
        let refused = std::thread::spawn(|| {
            forbid_netlink();
            Hotplug::new().unwrap_err()
        });
        let refused = refused.join().unwrap();
        assert!(matches!(refused, Error::Uevents { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    });
}
