//! A forked child has a copy of the library's values, but the kernel's handles are still one set.

use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use primeshare::alloc::Dumb;
use primeshare::blit::{BlitDevice, BlitInfo, Blitter, Options};
use primeshare::device::Device;
use primeshare::gbm::Gbm;
use primeshare::gem::{Error, ImportOrigin, Object, Stats};
use primeshare::import::Imported;
use primeshare::sync::{Syncobj, SyncobjSupport};
use primeshare::vk::{Commands, Semaphore, Staging, Use};
use primeshare::{Allocator, DmaBuf, Fourcc, Request};

use crate::kernel::Gem;
use crate::support::{Guest, PATIENCE, buffer_on, in_guest, left_out};

/// Runs `work` in a forked child, which exits right after it. Says how the child ended.
fn in_child(work: impl FnOnce()) -> WaitStatus {
    // SAFETY: tests run one at a time, so no other thread holds a lock that the child takes.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            let ended = catch_unwind(AssertUnwindSafe(work));
            // SAFETY: ends the process without running anything of it.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) }
        }
    }
}

fn request() -> Request {
    Request::new(64, 64, Fourcc::XRGB8888)
}

/// Hands a copy of `values` to a forked child, which has to end with this status. Gives back the parent's.
fn survives_with<T>(values: T, status: i32, work: impl FnOnce(T)) -> T {
    // The parent's own as well: only the child drops its copy.
    let mut values = ManuallyDrop::new(values);
    let ended = in_child(|| {
        // SAFETY: taken once in this process, and `_exit` drops nothing more.
        work(unsafe { ManuallyDrop::take(&mut values) });
    });
    assert!(
        matches!(ended, WaitStatus::Exited(_, code) if code == status),
        "{ended:?}"
    );
    ManuallyDrop::into_inner(values)
}

/// What a program has of two devices: an object that was made here, and one that was imported.
struct Values {
    vgem: Device,
    vkms: Device,
    buffer: DmaBuf,
    imported: Imported,
    exporter: Object,
    gbm: Gbm,
    by_gbm: DmaBuf,
}

impl Values {
    fn new(guest: &Guest) -> Self {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let imported = vkms.import(&buffer).unwrap();
        let exporter = vgem.import(&buffer).unwrap().object().clone();
        let gbm = Gbm::new(&vgem).unwrap();
        let by_gbm = gbm.allocate(&request()).unwrap();
        Self {
            vgem,
            vkms,
            buffer,
            imported,
            exporter,
            gbm,
            by_gbm,
        }
    }

    fn stats(&self) -> [Stats; 2] {
        [&self.vgem, &self.vkms].map(Device::stats)
    }
}

/// Forks while everything is in use. Afterwards the parent's values still work.
fn survives(status: i32, work: impl FnOnce(Values)) {
    in_guest(|guest| {
        let values = Values::new(guest);
        let (id, before) = (values.buffer.id(), values.stats());
        let values = survives_with(values, status, work);
        assert_eq!(values.stats(), before);
        for object in [values.imported.object(), &values.exporter] {
            assert_eq!(object.export().unwrap().1, id);
        }
        assert!(values.gbm.allocate(&request()).is_ok());
        assert!(values.vkms.import(&values.by_gbm).is_ok());
    });
}

#[test]
fn a_child_that_drops_everything_closes_nothing() {
    survives(0, drop);
}

#[test]
fn a_child_that_unwinds_closes_nothing() {
    survives(101, |values| {
        let _unwound = values;
        // Not `panic!`: its hook takes locks that another thread of the parent may have held at the fork.
        resume_unwind(Box::new("unwound"));
    });
}

#[test]
fn a_child_that_exits_closes_nothing() {
    survives(3, |values| {
        let _never_dropped = values;
        // SAFETY: runs what the C library has to run at the end of a process.
        unsafe { libc::exit(3) }
    });
}

#[test]
fn a_child_is_refused_what_would_change_the_parents_handles() {
    survives(0, |values| {
        let forked = |error: Error| matches!(error, Error::Forked { .. });
        // A file description that the child opens works.
        let own = values.vgem.reopen().unwrap();
        let foreign = buffer_on(&own);
        assert!(forked(values.vkms.import(&foreign).unwrap_err().cause));
        assert!(forked(values.exporter.export().unwrap_err()));
        assert!(forked(values.vgem.adopt(1).unwrap_err()));
        assert!(forked(values.vgem.open_name(1).unwrap_err()));
        assert!(values.exporter.clone().release().is_none());
        assert!(Dumb::new(&values.vgem).allocate(&request()).is_err());
        assert!(values.gbm.allocate(&request()).is_err());
        assert_eq!(
            own.import(&values.buffer).unwrap().origin(),
            ImportOrigin::New
        );
    });
}

#[test]
fn a_child_closes_what_it_has_opened_itself() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let ended = in_child(|| {
            let own = vgem.reopen().unwrap();
            drop(buffer_on(&own));
            assert_eq!((own.stats().closes, own.stats().failed_closes), (1, 0));
            let next = Gem(own.as_fd()).create().unwrap();
            assert_eq!(next, 1);
        });
        assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    });
}

#[test]
fn a_child_destroys_no_syncobj() {
    in_guest(|guest| {
        let gpu = match guest.in_qemu() {
            true => guest.nth("virtio_gpu", 0),
            false => guest.vgem(),
        };
        if Syncobj::support(&gpu).unwrap() == SyncobjSupport::None {
            assert!(!guest.in_qemu(), "virtio-gpu has syncobjs");
            return left_out("a device with syncobjs");
        }
        let syncobj = survives_with(Syncobj::new(&gpu).unwrap(), 0, drop);
        assert!(syncobj.export().is_ok());
    });
}

#[test]
fn a_child_that_drops_vulkan_and_a_blitter_ends_and_takes_nothing_away() {
    in_guest(|guest| {
        let (vgem, vkms, vulkan) = (guest.vgem(), guest.vkms(), guest.vulkan());
        let (source, destination) = (buffer_on(&vgem), buffer_on(&vkms));
        let sides = [&vgem, &vkms].map(|device| BlitDevice::new(device, Some(vulkan.physical())));
        let [from, to] = sides;
        let blitter = Blitter::new(from, to, &Options::default()).unwrap();
        let blit = |blitter: &Blitter| {
            let copy = blitter
                .blit(&source, &destination, &BlitInfo::default())
                .unwrap();
            copy.wait(PATIENCE).unwrap();
        };
        blit(&blitter);
        let image = vulkan.import_image(&source, Use::Source).unwrap();
        let staging = Staging::upload(&vulkan, 4096).unwrap();
        let commands = Commands::new(&vulkan).unwrap();
        let semaphore = Semaphore::new(&vulkan).unwrap();
        let values = (blitter, image, staging, commands, semaphore, vulkan);
        let values = survives_with(values, 0, drop);
        blit(&values.0);
        assert!(
            values
                .5
                .import_image(&destination, Use::Destination)
                .is_ok()
        );
    });
}
