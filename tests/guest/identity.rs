//! Which buffer is which: identity, re-export, access modes.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use primeshare::buffer::{BufferId, PlaneFd};
use primeshare::gem::ImportOrigin;
use primeshare::sync::{Access, Mapping, SyncFile, implicit};
use primeshare::{BufferDesc, DmaBuf, Errno, Fourcc, Modifier};

use crate::peer::pair;
use crate::support::{PATIENCE, buffer_on, in_guest};

/// Answers with the first fd once, and with the second one after that.
struct InTurn<'a> {
    first: BorrowedFd<'a>,
    second: BorrowedFd<'a>,
    asked: Cell<u32>,
}

impl<'a> InTurn<'a> {
    fn new(first: &'a impl AsFd, second: &'a impl AsFd) -> Self {
        Self {
            first: first.as_fd(),
            second: second.as_fd(),
            asked: Cell::new(0),
        }
    }
}

impl AsFd for InTurn<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.asked.replace(self.asked.get() + 1) {
            0 => self.first,
            _ => self.second,
        }
    }
}

#[test]
fn an_fd_that_changes_is_taken_for_its_first_answer() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffer = buffer_on(&vgem);
        let dma_buf = &buffer.objects()[0];
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let in_turn = InTurn::new(&file, dma_buf);
        assert_eq!(BufferId::of(&in_turn), Err(Errno::EINVAL));
        // And of the file system of the one nothing of the other is remembered.
        assert_eq!(BufferId::of(&file), Err(Errno::EINVAL));
        assert_eq!(BufferId::of(dma_buf), Ok(buffer.id()));

        let (ours, theirs) = pair();
        let fence = SyncFile::signalled().unwrap();
        type Use<'a> = &'a dyn Fn(&InTurn<'_>) -> bool;
        let uses: [(&str, Use<'_>); 6] = [
            ("BufferId::of", &|fd| BufferId::of(fd).is_ok()),
            ("Mapping::new", &|fd| Mapping::new(fd).is_ok()),
            ("Mapping::read_only", &|fd| Mapping::read_only(fd).is_ok()),
            ("Device::import_fd", &|fd| vgem.import_fd(fd).is_ok()),
            ("implicit::export_sync_file_fd", &|fd| {
                implicit::export_sync_file_fd(fd, Access::Read).is_ok()
            }),
            ("implicit::import_sync_file_fd", &|fd| {
                implicit::import_sync_file_fd(fd, &fence, Access::Read).is_ok()
            }),
        ];
        for (name, use_it) in uses {
            let in_turn = InTurn::new(dma_buf, &file);
            assert!(use_it(&in_turn), "{name}");
            assert_eq!(in_turn.asked.get(), 1, "{name}");
        }
        let in_turn = InTurn::new(&ours, &file);
        buffer.send(&in_turn).unwrap();
        assert_eq!(in_turn.asked.get(), 1, "send");
        let in_turn = InTurn::new(&theirs, &file);
        assert_eq!(DmaBuf::receive(&in_turn).unwrap(), buffer);
        assert_eq!(in_turn.asked.get(), 1, "receive");
    });
}

#[test]
fn re_export_of_an_import_is_the_original() {
    in_guest(|guest| {
        let (vgem, vkms, third) = (guest.vgem(), guest.vkms(), guest.third());
        let buffer = buffer_on(&vgem);
        let imported = vkms.import(&buffer).unwrap();
        let (fd, id) = imported.object().export().unwrap();
        assert_eq!(id, buffer.id());
        // Also through a further device, from the re-exported fd.
        let (object, found) = third.import_fd(&fd).unwrap();
        assert_eq!(found, ImportOrigin::New);
        assert_eq!(object.export().unwrap().1, buffer.id());
        // And back home it is the object it always was.
        assert_eq!(vgem.import_fd(&fd).unwrap().1, ImportOrigin::SelfImport);
    });
}

#[test]
fn export_twice_is_one_dma_buf() {
    in_guest(|guest| {
        let vkms = guest.vkms();
        let buffer = buffer_on(&vkms);
        let object = vkms.import(&buffer).unwrap().object().clone();
        let id = buffer.id();
        drop(buffer);
        assert_eq!(object.export().unwrap().1, id);
        assert_eq!(object.export().unwrap().1, id);
    });
}

#[test]
fn a_recycled_fd_number_is_another_buffer() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let old = buffer_on(&vgem);
        let number = old.plane_fd(0).unwrap().as_raw_fd();
        let old_id = old.id();
        // The import outlives the fd, so the table still knows the old buffer.
        let old_import = vkms.import(&old).unwrap();
        drop(old);
        let new = buffer_on(&vgem);
        assert_eq!(new.plane_fd(0).unwrap().as_raw_fd(), number, "not recycled");
        assert_ne!(new.id(), old_id);
        let new_import = vkms.import(&new).unwrap();
        assert_eq!(new_import.origin(), ImportOrigin::New);
        assert_ne!(new_import.object(), old_import.object());
        let (by_number, found) = vkms.import_fd(new.plane_fd(0).unwrap()).unwrap();
        assert_eq!(found, ImportOrigin::AlreadyImported);
        assert_eq!(&by_number, new_import.object());
    });
}

#[test]
fn every_way_to_a_buffer_has_one_identity() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (one, other) = (buffer_on(&vgem), buffer_on(&vgem));
        let dup = one.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
        assert_eq!(BufferId::of(&dup).unwrap(), one.id());
        assert_ne!(one.id(), other.id());
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
        let first = vkms.import(&one).unwrap();
        let (by_dup, found) = vkms.import_fd(&dup).unwrap();
        assert_eq!(found, ImportOrigin::AlreadyImported);
        assert_eq!(&by_dup, first.object());
    });
}

#[test]
fn the_first_export_decides_the_access_mode() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        // As we export: writable.
        let ours = buffer_on(&vgem);
        let mut mapping = Mapping::new(&ours.objects()[0]).unwrap();
        let mut access = mapping.begin_wait(Access::Write, PATIENCE).unwrap();
        access.write(0, b"written").unwrap();
        drop(access);

        // As others do: exported without DRM_RDWR first, and read-only for good.
        let file = vgem.as_fd();
        let dumb = drm_ffi::mode::dumbbuffer::create(file, 64, 64, 32, 0).unwrap();
        let read_only = crate::kernel::export(file, dumb.handle, libc::O_CLOEXEC);
        let later = crate::kernel::export(file, dumb.handle, libc::O_CLOEXEC | libc::O_RDWR);
        drm_ffi::gem::close(file, dumb.handle).unwrap();
        for fd in [&read_only, &later] {
            // It can be read, if it is asked for no more.
            assert!(Mapping::read_only(fd).is_ok());
            let refused = Mapping::new(fd).unwrap_err();
            assert_eq!(
                refused,
                primeshare::sync::Error::Map {
                    size: 64 * 64 * 4,
                    errno: Errno::EACCES
                }
            );
        }
        // Our asking for RDWR on a re-export does not cure it.
        let vkms = guest.vkms();
        let (object, _) = vkms.import_fd(&later).unwrap();
        let (again, _) = object.export().unwrap();
        assert!(Mapping::new(&again).is_err());
    });
}

#[test]
fn bytes_written_on_one_device_are_read_on_another() {
    in_guest(|guest| {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let buffer = buffer_on(&vgem);
        let imported = vkms.import(&buffer).unwrap();
        let (fd, _) = imported.object().export().unwrap();
        let mut through_vkms = Mapping::new(&fd).unwrap();
        let sent: Vec<u8> = (0..64 * 64 * 4).map(|n| (n % 251) as u8).collect();
        let mut write = through_vkms.begin_wait(Access::Write, PATIENCE).unwrap();
        write.write(0, &sent).unwrap();
        let size = buffer.objects()[0].size() as usize;
        let past = size - sent.len() + 1;
        assert!(write.write(past, &sent).is_err(), "past the end");
        drop(write);
        // Read by vgem's own mapping of its own object.
        let own = vgem.import(&buffer).unwrap();
        let own = vgem
            .map_dumb(own.object(), sent.len().try_into().unwrap())
            .unwrap();
        let mut read = vec![0; sent.len()];
        own.read(0, &mut read).unwrap();
        assert_eq!(read, sent);
        assert_eq!(buffer.fourcc(), Fourcc::XRGB8888);
    });
}

#[test]
fn a_mapping_begun_for_reading_refuses_writes() {
    in_guest(|guest| {
        let buffer = buffer_on(&guest.vgem());
        let mut mapping = Mapping::new(&buffer.objects()[0]).unwrap();
        let mut read = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
        let refused = read.write(0, &[1]).unwrap_err();
        assert_eq!(refused, primeshare::sync::Error::ReadOnly);
        drop(read);
        let mut mapping = Mapping::read_only(&buffer.objects()[0]).unwrap();
        let refused = mapping.begin_wait(Access::Write, PATIENCE).unwrap_err();
        assert_eq!(refused, primeshare::sync::Error::ReadOnly);
    });
}

#[test]
fn only_dma_bufs_are_mapped() {
    in_guest(|_| {
        // A file could shrink under the mapping.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let refused = Mapping::new(&file).unwrap_err();
        assert_eq!(refused, primeshare::sync::Error::NotADmaBuf);
    });
}

/// The same dma-bufs described in another way.
fn described(layout: BufferDesc, planes: &[(&DmaBuf, u32, u32)]) -> DmaBuf {
    let plane = |(buffer, offset, stride): &(&DmaBuf, u32, u32)| PlaneFd {
        fd: buffer.objects()[0].as_fd().try_clone_to_owned().unwrap(),
        offset: *offset,
        stride: *stride,
    };
    DmaBuf::new(layout, planes.iter().map(plane)).unwrap()
}

#[test]
// What is mutable in a buffer is no part of its identity.
#[expect(clippy::mutable_key_type)]
fn buffers_are_equal_by_memory_and_layout() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let (one, other) = (buffer_on(&vgem), buffer_on(&vgem));
        let tiled = BufferDesc::linear(32, 32, Fourcc::XRGB8888)
            .with_modifier(Modifier(0x0100_0000_0000_0001));
        let planes = [(&one, 0, 128), (&other, 64, 128)];
        let description = described(tiled, &planes);
        // Anything that is another makes another buffer ...
        let others = [
            described(tiled.with_size(31, tiled.height), &planes),
            described(tiled.with_size(tiled.width, 31), &planes),
            described(tiled.with_fourcc(Fourcc::ARGB8888), &planes),
            described(tiled.with_modifier(Modifier::INVALID), &planes),
            described(tiled, &[(&one, 0, 128), (&other, 65, 128)]),
            described(tiled, &[(&one, 0, 128), (&other, 64, 129)]),
            described(tiled, &[(&one, 0, 128), (&one, 64, 128)]),
            described(tiled, &[(&other, 0, 128), (&one, 64, 128)]),
            described(tiled, &[(&one, 0, 128)]),
            described(tiled, &[(&one, 0, 128), (&other, 64, 128), (&one, 0, 128)]),
        ];
        let mut known = HashSet::from([description.clone()]);
        for (number, another) in others.into_iter().enumerate() {
            assert_ne!(another, description, "number {number}");
            assert!(known.insert(another), "number {number}");
        }
        // ... and nothing else does: not the fds, not who described it.
        let again = described(tiled, &planes);
        assert_eq!(again, description);
        assert!(!known.insert(again));
    });
}

#[test]
fn an_identity_is_found_again_in_a_map() {
    in_guest(|guest| {
        let vgem = guest.vgem();
        let buffers: Vec<_> = (0..100).map(|_| buffer_on(&vgem)).collect();
        let by_id: HashMap<_, _> = (0..).zip(&buffers).map(|(n, b)| (b.id(), n)).collect();
        assert_eq!(by_id.len(), buffers.len());
        for (number, buffer) in buffers.iter().enumerate() {
            let dup = buffer.plane_fd(0).unwrap().try_clone_to_owned().unwrap();
            assert_eq!(by_id[&BufferId::of(&dup).unwrap()], number);
        }
    });
}
