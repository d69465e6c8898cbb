//! Devices taken out of their slot while they are in use: a real hot unplug, after which the
//! kernel answers ENODEV to every ioctl on files that are still open (`drm_dev_unplug`).
//!
//! The devices of the QEMU guest are on a PCI bus, and three of their drivers are made for it.
//! (qxl is not: its interrupt handler runs on without its registers, Linux 6.12.)

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use primeshare::alloc::{self, Dumb};
use primeshare::device::{self, BusId, Node, NodeKind};
use primeshare::gbm::Gbm;
use primeshare::gem::{self, ImportOrigin};
use primeshare::sync::{Access, Mapping};
use primeshare::{Allocator, Device, DmaBuf, Errno, Fourcc, Request, export};

use crate::support::{Guest, PATIENCE, buffer_on, can_run, in_guest, kernel_dma_bufs, scale};

const DRIVERS: [&str; 3] = ["virtio_gpu", "bochs-drm", "cirrus"];

/// A place on the PCI bus. Whatever happens, it is not left empty.
pub(crate) struct Slot {
    bus: BusId,
}

impl Slot {
    /// The slots of [`DRIVERS`]. Where the guest has no PCI bus there are none, and the test is left out.
    pub(crate) fn all(guest: &Guest) -> Vec<Self> {
        if !can_run(guest.in_qemu(), "devices in PCI slots, as in QEMU") {
            return Vec::new();
        }
        let mut nodes = device::enumerate().unwrap();
        nodes.retain(|node| node.kind == NodeKind::Primary);
        // Not by `guest`, which would want to look at the files at the end of the test.
        let driver_of = |node: &Node| Device::open(&node.path).unwrap().driver().to_owned();
        let is_ours = |node: &Node| DRIVERS.contains(&driver_of(node).as_str());
        nodes.retain(is_ours);
        assert_eq!(nodes.len(), DRIVERS.len());
        let buses = nodes.into_iter().map(|node| node.bus.unwrap());
        buses.map(|bus| Self { bus }).collect()
    }

    pub(crate) fn remove(&self) {
        self.wait_until_quiet();
        let device = self.directory();
        fs::write(format!("{device}/remove"), "1").unwrap();
    }

    fn directory(&self) -> String {
        format!("/sys/bus/pci/devices/{}", self.bus.name)
    }

    /// Waits until the host has answered all that a virtio device was told.
    ///
    /// The kernel's virtio-gpu looks for answers once more when it goes, and resets the device after
    /// that (`virtio_gpu_deinit`, Linux 6.12). An answer that comes in between is looked for in
    /// memory that is gone: seen as a panic in `virtqueue_get_buf_ctx_split`.
    fn wait_until_quiet(&self) {
        let parts = fs::read_dir(self.directory()).unwrap();
        let names = parts.map(|part| part.unwrap().file_name().into_string().unwrap());
        let Some(virtio) = { names }.find(|name| name.starts_with("virtio")) else {
            return;
        };
        let interrupts = || {
            let all = fs::read_to_string("/proc/interrupts").unwrap();
            let own = all
                .lines()
                .filter(|line| line.contains(&format!("{virtio}-")));
            own.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut before = Vec::new();
        for now in std::iter::repeat_with(interrupts) {
            if now == before {
                return;
            }
            before = now;
            thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn rescan(&self) {
        fs::write("/sys/bus/pci/rescan", "1").unwrap();
    }

    /// The primary node of what is in it.
    fn node(&self) -> Option<Node> {
        let mut nodes = device::enumerate().unwrap().into_iter();
        nodes.find(|node| node.kind == NodeKind::Primary && node.bus.as_ref() == Some(&self.bus))
    }

    /// A file description that the support's checks do not look at: it may end before its device
    /// comes back.
    pub(crate) fn open(&self) -> Device {
        Device::open(self.node().expect("it is plugged in").path).unwrap()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.node().is_none() {
            self.rescan();
        }
    }
}

fn lost(device: &Device) -> gem::Error {
    let device = device.to_string();
    gem::Error::Lost { device }
}

fn request() -> Request {
    Request::new(64, 64, Fourcc::XRGB8888)
}

#[test]
fn everything_that_asks_a_lost_device_says_that_it_is_lost() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        for slot in Slot::all(guest) {
            let device = slot.open();
            let buffer = buffer_on(&device);
            let object = device.import(&buffer).unwrap().object().clone();
            let unknown = buffer_on(&vgem);
            let path = device.node().path.clone();
            let gbm = Gbm::new(&device).unwrap();
            slot.remove();

            let lost = lost(&device);
            let page = 4096.try_into().unwrap();
            let fd = unknown.plane_fd(0).unwrap();
            assert_eq!(device.import(&unknown).unwrap_err().cause, lost);
            assert_eq!(device.import_fd(fd).unwrap_err(), lost);
            assert_eq!(object.export().unwrap_err(), lost);
            assert_eq!(
                device.map_dumb(&object, page).unwrap_err(),
                device::Error::Gem(lost.clone())
            );
            assert_eq!(device.open_name(1).unwrap_err(), lost);
            assert_eq!(device.adopt(object.handle().raw()).unwrap_err(), lost);
            assert_eq!(
                Dumb::new(&device).allocate(&request()).unwrap_err(),
                alloc::Error::Gem(lost.clone())
            );
            let error = gbm.allocate(&request()).unwrap_err();
            let alloc::Error::Gem(gem::Error::Lost { .. }) = error else {
                panic!("{error}");
            };
            assert_eq!(
                device.capabilities().unwrap_err(),
                device::Error::Gem(lost.clone())
            );

            // And it is not found any more.
            assert_eq!(slot.node(), None);
            let gone = device::Error::Open {
                path,
                errno: Errno::ENOENT,
            };
            assert_eq!(device.reopen().unwrap_err(), gone);
            assert_eq!(Gbm::new(&device).err(), Some(alloc::Error::Device(gone)));
        }
    });
}

#[test]
fn what_is_left_of_a_lost_device_is_dropped_without_complaint() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        for slot in Slot::all(guest) {
            let dma_bufs = kernel_dma_bufs();
            let device = slot.open();
            let own = [buffer_on(&device), buffer_on(&device)];
            let foreign = buffer_on(&vgem);
            // bochs and virtio-gpu refuse it.
            let imported = device.import(&foreign).ok();
            let held = device.import(&own[0]).unwrap();
            slot.remove();

            // What the table knows needs no device.
            assert_eq!(
                device.import(&own[1]).unwrap().origin(),
                ImportOrigin::SelfImport
            );
            let clone = held.object().clone();
            drop((own, imported, held, foreign));
            assert_eq!(device.stats().handles, 1);
            drop(clone);
            let stats = device.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0), "{device}");
            // GEM_CLOSE is refused too: what had handles goes with the file description.
            assert!(kernel_dma_bufs() > dma_bufs);
            drop(device);
            assert_eq!(kernel_dma_bufs(), dma_bufs);
        }
    });
}

#[test]
fn memory_of_a_lost_device_stays_with_those_that_share_it() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        for slot in Slot::all(guest) {
            let device = slot.open();
            let buffer = buffer_on(&device);
            let bytes = [0x5a; 64 * 64 * 4];
            let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
            let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
            access.write(0, &bytes).unwrap();
            drop(access);
            let elsewhere = vgem.import(&buffer);
            slot.remove();
            drop(device);

            // A mapping can be read in any case; what is in it, where the memory was the device's
            // own (bochs), is not said.
            let mut read = [0; 64 * 64 * 4];
            let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
            access.read(0, &mut read).unwrap();
            drop(access);
            match elsewhere {
                Ok(elsewhere) => {
                    assert_eq!(read, bytes);
                    let (fd, id) = elsewhere.object().export().unwrap();
                    assert_eq!(id, buffer.id());
                    assert_eq!(vgem.import_fd(fd).unwrap().1, ImportOrigin::AlreadyImported);
                }
                Err(error) => {
                    let device = vgem.to_string();
                    let errno = Errno::ENOSYS;
                    assert_eq!(error.cause, gem::Error::Import { device, errno });
                }
            }
        }
    });
}

#[test]
fn a_device_put_back_is_another_device() {
    in_guest(|guest| {
        for slot in Slot::all(guest) {
            let before = slot.open();
            let old = buffer_on(&before);
            slot.remove();
            slot.rescan();

            // In the same place on the bus, by another number while the old one is in use.
            let after = slot.open();
            assert_eq!(after.driver(), before.driver());
            assert_eq!(after.node().bus, before.node().bus);
            assert_ne!(after.node().id, before.node().id);
            assert!(!after.shares_handles_with(&before));
            let new = buffer_on(&after);
            assert_eq!(
                after.import(&new).unwrap().origin(),
                ImportOrigin::SelfImport
            );
            assert_eq!(
                Dumb::new(&before).allocate(&request()).unwrap_err(),
                alloc::Error::Gem(lost(&before))
            );
            // What the old one made is foreign memory to the new one.
            if let Ok(imported) = after.import(&old) {
                assert_eq!(imported.origin(), ImportOrigin::New);
            }
            drop((before, old, new));
            let stats = after.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0));
        }
    });
}

#[test]
fn a_device_put_back_at_the_same_path_is_another_device() {
    in_guest(|guest| {
        for slot in Slot::all(guest) {
            // Now it has the lowest number that is free, and gets it again.
            slot.remove();
            slot.rescan();
            let before = slot.open();
            let path = before.node().path.clone();
            drop((buffer_on(&before), before));
            slot.remove();
            slot.rescan();
            let after = slot.open();
            assert_eq!(after.node().path, path);
            assert_eq!(after.stats(), gem::Stats::default());
            let buffer = buffer_on(&after);
            assert_eq!(
                after.import(&buffer).unwrap().origin(),
                ImportOrigin::SelfImport
            );
        }
    });
}

/// The device's part of what allocating said, if it was that the device is lost.
fn lost_or_made(made: Result<DmaBuf, alloc::Error>) -> Result<DmaBuf, gem::Error> {
    made.map_err(|error| match error {
        alloc::Error::Gem(error) | alloc::Error::Export(export::Error::Gem(error)) => error,
        other => panic!("{other}"),
    })
}

/// Exports, imports and maps on a device until it is lost, and makes and closes buffers; how often.
///
/// virtio-gpu makes and closes none: its driver rings the device's doorbell outside of what an
/// unplug waits for, and is killed by it now and then (`virtio_gpu_notify`, Linux 6.12).
fn work_until_lost(device: &Device, kept: &DmaBuf, started: &mpsc::Sender<()>) -> usize {
    let allocator = Dumb::new(device);
    let round = || {
        let buffer = match device.driver() {
            "virtio_gpu" => kept.clone(),
            _ => lost_or_made(allocator.allocate(&request()))?,
        };
        let (object, found) = device.import_fd(buffer.plane_fd(0).unwrap())?;
        assert_eq!(found, ImportOrigin::SelfImport);
        object.export()?;
        let page = 4096.try_into().unwrap();
        device
            .map_dumb(&object, page)
            .map_err(|error| match error {
                device::Error::Gem(error) => error,
                other => panic!("{other}"),
            })?;
        Ok(())
    };
    for rounds in 0.. {
        match round() {
            Ok(()) => started.send(()).unwrap(),
            Err(gem::Error::Lost { .. }) => return rounds,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a device that is removed is lost")
}

#[test]
fn devices_are_removed_in_mid_traffic() {
    in_guest(|guest| {
        let slots = Slot::all(guest);
        for slot in slots.iter().cycle().take(slots.len() * scale(8, 100)) {
            let device = slot.open();
            let kept = buffer_on(&device);
            let (started, has_started) = mpsc::channel();
            let rounds = thread::scope(|scope| {
                let work = || work_until_lost(&device, &kept, &started);
                let work = [(); 2].map(|()| scope.spawn(work));
                has_started.recv().unwrap();
                slot.remove();
                work.map(|work| work.join().unwrap())
            });
            drop(kept);
            let stats = device.stats();
            assert_eq!((stats.handles, stats.failed_closes), (0, 0), "{device}");
            assert!(rounds.iter().sum::<usize>() > 0);
            drop(device);
            slot.rescan();
            // The next one works.
            drop(buffer_on(&slot.open()));
        }
    });
}
