//! The operations, and what is true of what they give.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::buffer::BufferId;
use primeshare::device;
use primeshare::gbm::Gbm;
use primeshare::gem::{ImportOrigin, Object};
use primeshare::sync::{Access, BufferMapping, Mapping, Polled, SyncFile, implicit};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request, export};

use super::operation::{Needs, Operation};
use super::world::{World, dup, plane};
use crate::peer::pair;
use crate::support::{PATIENCE, buffer_on};

impl World {
    /// All of them.
    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        let mut all = self.device();
        all.extend(self.allocation());
        all.extend(self.gbm());
        all.extend(self.sharing());
        all.extend(self.transfer());
        all.extend(self.access());
        all.extend(self.fences());
        all
    }

    fn device(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let (vgem, path) = (&self.vgem, &self.vgem.node().path);
        let right = move |device: &Device| {
            device.node() == vgem.node() && device.driver() == "vgem" && device.stats().handles == 0
        };
        vec![
            Operation::new("Device::open", Both, move || Device::open(path), right),
            Operation::with(
                "Device::from_fd of a new file description",
                Memory,
                move || OwnedFd::from(File::options().read(true).write(true).open(path).unwrap()),
                Device::from_fd,
                right,
            ),
            Operation::with(
                "Device::from_fd of a dup",
                Memory,
                move || dup(vgem),
                Device::from_fd,
                move |device| device.node() == vgem.node() && device.shares_handles_with(vgem),
            ),
            Operation::new("Device::reopen", Both, move || vgem.reopen(), right),
            Operation::new("device::enumerate", Both, device::enumerate, move |nodes| {
                *nodes == self.nodes
            }),
            Operation::new(
                "Device::capabilities",
                Both,
                move || self.vkms.capabilities(),
                move |can| *can == self.capabilities,
            ),
        ]
    }

    fn allocation(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let vkms = &self.vkms;
        let rgb = move || Request::new(64, 64, Fourcc::XRGB8888);
        let nv12 = move || Request::new(64, 64, Fourcc::NV12);
        let dumb = move |request: &Request| Dumb::new(vkms).allocate(request);
        vec![
            Operation::new("Dumb::allocate", Both, move || dumb(&rgb()), is_new),
            Operation::new(
                "Dumb::allocate of two planes",
                Both,
                move || dumb(&nv12()),
                is_new,
            ),
            Operation::new(
                "Dumb::allocate, and free",
                Both,
                move || dumb(&rgb()).map(drop),
                move |()| true,
            ),
            Operation::new("Udmabuf::open", Both, Udmabuf::open, move |udmabuf| {
                udmabuf.allocate(&rgb()).is_ok()
            }),
            Operation::new(
                "Udmabuf::allocate",
                Both,
                move || self.udmabuf.allocate(&rgb()),
                is_new,
            ),
            Operation::new("DmaHeap::system", Both, DmaHeap::system, move |heap| {
                heap.allocate(&rgb()).is_ok()
            }),
            Operation::new(
                "DmaHeap::allocate",
                Both,
                move || self.heap.allocate(&rgb()),
                is_new,
            ),
        ]
    }

    fn gbm(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let (vkms, path) = (&self.vkms, &self.vkms.node().path);
        let works = move |gbm: &Gbm| {
            gbm.allocate(&Request::new(64, 64, Fourcc::XRGB8888))
                .is_ok()
        };
        let allocate = move || {
            let request = Request::new(64, 64, Fourcc::XRGB8888);
            self.gbm.allocate(&request)
        };
        vec![
            // `Gbm::open` is the second half of it: vkms has no render node.
            Operation::new("Gbm::new", Both, move || Gbm::new(vkms), works)
                .without_reason()
                .starting_mesa(),
            Operation::with(
                "Gbm::from_fd",
                Both,
                move || OwnedFd::from(File::options().read(true).write(true).open(path).unwrap()),
                Gbm::from_fd,
                works,
            )
            .without_reason()
            .starting_mesa(),
            Operation::new("Gbm::allocate", Both, allocate, is_new).without_reason(),
        ]
    }

    fn sharing(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let (vgem, vkms) = (&self.vgem, &self.vkms);
        let met = move |wanted| move |(_, found): &(Object, ImportOrigin)| *found == wanted;
        let import = move |device: &Device, buffer| {
            let imported = device.import(buffer);
            imported.map(move |imported| (imported.object().clone(), imported.origin()))
        };
        vec![
            Operation::new(
                // The first time, which makes the dma-buf, is a part of `Dumb::allocate`.
                "Object::export",
                Fds,
                move || self.own_object.export(),
                move |(fd, id)| BufferId::of(fd) == Ok(*id),
            ),
            Operation::new(
                "Object::export of an import",
                Fds,
                move || self.known_object.export(),
                move |(_, id)| *id == self.known.id(),
            ),
            Operation::new(
                "export::export",
                Fds,
                move || {
                    let plane = self.known.planes()[0];
                    let places = [(plane.offset, plane.stride)];
                    export::export(&self.known_object, *self.known.desc(), places)
                },
                move |buffer| *buffer == self.known,
            ),
            Operation::new(
                "Device::import of a new buffer",
                Memory,
                move || import(vkms, &self.foreign),
                met(ImportOrigin::New),
            ),
            Operation::new(
                "Device::import of a new buffer, and drop",
                Memory,
                move || vkms.import(&self.foreign).map(drop),
                move |()| true,
            ),
            Operation::new(
                "Device::import of a known buffer",
                Nothing,
                move || import(vkms, &self.known),
                met(ImportOrigin::AlreadyImported),
            ),
            Operation::new(
                "Device::import at home",
                Nothing,
                move || import(vgem, &self.foreign),
                met(ImportOrigin::SelfImport),
            ),
            Operation::new(
                "Device::import of two dma-bufs",
                Memory,
                move || vkms.import(&self.both),
                move |imported| imported.plane(0) != imported.plane(1),
            ),
            Operation::new(
                "Device::import_fd of a new buffer",
                Memory,
                move || vkms.import_fd(self.foreign.plane_fd(0).unwrap()),
                met(ImportOrigin::New),
            ),
            Operation::new(
                "Device::import_fd of a known buffer",
                Nothing,
                move || vkms.import_fd(self.known.plane_fd(0).unwrap()),
                met(ImportOrigin::AlreadyImported),
            ),
            Operation::new(
                "Device::import_fd at home",
                Nothing,
                move || vgem.import_fd(self.foreign.plane_fd(0).unwrap()),
                met(ImportOrigin::SelfImport),
            ),
            Operation::new(
                "Device::private_copy",
                Both,
                move || vkms.private_copy(),
                move |copy| copy.is_same_device(vkms),
            ),
            Operation::new(
                "Device::open_name",
                Nothing,
                move || vkms.open_name(self.name),
                move |object| *object != self.own_object,
            ),
            Operation::with(
                "Device::adopt, and Object::release",
                Both,
                move || {
                    let dumb = drm_ffi::mode::dumbbuffer::create(vkms.as_fd(), 64, 64, 32, 0);
                    dumb.unwrap().handle
                },
                move |handle| {
                    let adopted = vkms.adopt(handle);
                    if adopted.is_err() {
                        // Still ours.
                        drm_ffi::gem::close(vkms.as_fd(), handle).unwrap();
                    }
                    adopted.map(Object::release)
                },
                move |released| {
                    released
                        .clone()
                        .is_some_and(|handle| handle.close().is_ok())
                },
            ),
            Operation::with(
                "DmaBuf::new",
                Nothing,
                move || [dup(&self.luma.objects()[0]), dup(&self.chroma.objects()[0])],
                move |fds| DmaBuf::new(*self.both.desc(), fds.map(plane)),
                move |buffer| *buffer == self.both,
            ),
        ]
    }

    /// To another process and back.
    fn transfer(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        vec![
            Operation::with(
                "DmaBuf::send",
                Memory,
                pair,
                move |(ours, theirs)| self.both.send(&ours).map(|()| theirs),
                move |theirs| DmaBuf::receive(theirs).is_ok_and(|buffer| buffer == self.both),
            ),
            // The kernel says that fds were lost, and not why.
            Operation::with(
                "DmaBuf::receive",
                Fds,
                move || {
                    let (ours, theirs) = pair();
                    self.both.send(&ours).unwrap();
                    theirs
                },
                move |theirs| DmaBuf::receive(&theirs),
                move |buffer| *buffer == self.both,
            )
            .without_reason(),
        ]
    }

    fn access(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let map = move || Mapping::new(&self.foreign.objects()[0]);
        let readable = move |mapping: &Mapping| mapping.size() >= 64 * 64 * 4;
        vec![
            Operation::new(
                "Device::map_dumb",
                Both,
                move || {
                    self.vkms
                        .map_dumb(&self.own_object, 4096.try_into().unwrap())
                },
                move |mapping| mapping.read(4092, &mut [0; 4]).is_some(),
            ),
            Operation::new("Mapping::new", Both, map, readable),
            Operation::new(
                "Mapping::new, and unmap",
                Both,
                move || map().map(drop),
                move |()| true,
            ),
            Operation::with(
                "Mapping::begin_wait",
                Nothing,
                move || map().unwrap(),
                move |mut mapping: Mapping| {
                    drop(mapping.begin_wait(Access::Write, PATIENCE)?);
                    Ok::<_, primeshare::sync::Error>(mapping)
                },
                readable,
            ),
            Operation::new(
                "BufferMapping::new of two dma-bufs",
                Both,
                move || BufferMapping::new(&self.both),
                move |mapping| mapping.planes() == 2,
            ),
        ]
    }

    fn fences(&self) -> Vec<Operation<'_>> {
        use Needs::*;
        let signalled = move |fence: &SyncFile| fence.is_signalled() == Ok(true);
        let export = move |access| implicit::export_sync_file(&self.both, access);
        vec![
            Operation::new("SyncFile::signalled", Both, SyncFile::signalled, signalled),
            Operation::with(
                "SyncFile::merge",
                Both,
                move || SyncFile::signalled().unwrap(),
                move |fence: SyncFile| fence.merge(&fence),
                signalled,
            ),
            Operation::with(
                "SyncFile::try_clone",
                Fds,
                move || SyncFile::signalled().unwrap(),
                move |fence: SyncFile| fence.try_clone(),
                signalled,
            ),
            Operation::with(
                "SyncFile::wait",
                Nothing,
                move || SyncFile::signalled().unwrap(),
                move |fence: SyncFile| fence.wait(Duration::ZERO),
                move |()| true,
            ),
            Operation::new(
                "implicit::export_sync_file of two dma-bufs",
                Both,
                move || export(Access::Write),
                signalled,
            ),
            Operation::with(
                "implicit::import_sync_file into a new buffer",
                Memory,
                move || (buffer_on(&self.vgem), SyncFile::signalled().unwrap()),
                move |(buffer, fence)| implicit::import_sync_file(&buffer, &fence, Access::Write),
                move |()| true,
            ),
            Operation::new(
                "Polled::new",
                Both,
                move || Polled::new(&self.both, Access::Write),
                move |polled| polled.is_signalled() == Ok(true),
            ),
        ]
    }
}

fn is_new(buffer: &DmaBuf) -> bool {
    buffer.width() == 64 && Mapping::new(&buffer.objects()[0]).is_ok()
}
