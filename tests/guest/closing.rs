//! Things are dropped in every order: those that are left work, and every handle is closed once.

use std::os::fd::{AsFd, OwnedFd};

use primeshare::buffer::BufferId;
use primeshare::device::DumbMapping;
use primeshare::gem::Object;
use primeshare::import::Imported;
use primeshare::sync::{Access, Mapping};
use primeshare::{Device, DmaBuf};

use crate::support::{
    PATIENCE, buffer_on, in_guest, kernel_dma_bufs, next_handle, of_two_dma_bufs,
};

/// Something that is dropped at its time.
enum Thing {
    Device(Device),
    Buffer(DmaBuf),
    Imported(Imported),
    Object(Object, BufferId),
    Fd(OwnedFd, BufferId),
    DeviceMapping(DumbMapping),
    Mapping(Mapping),
}

impl Thing {
    /// Checks that it still works.
    fn check(&mut self) {
        match self {
            Self::Device(device) => assert_eq!(device.stats().failed_closes, 0),
            Self::Buffer(buffer) => {
                for object in buffer.objects() {
                    assert_eq!(BufferId::of(object), Ok(object.id()));
                }
            }
            Self::Imported(imported) => {
                for (object, _) in imported.objects() {
                    object.export().unwrap();
                }
            }
            Self::Object(object, id) => assert_eq!(object.export().unwrap().1, *id),
            Self::Fd(fd, id) => assert_eq!(BufferId::of(fd), Ok(*id)),
            Self::DeviceMapping(mapping) => mapping.read(0, &mut [0; 4]).unwrap(),
            Self::Mapping(mapping) => {
                let access = mapping.begin_wait(Access::Read, PATIENCE).unwrap();
                access.read(0, &mut [0; 4]).unwrap();
            }
        }
    }
}

/// All orders of the numbers below `count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![vec![]];
    };
    let insert = |order: Vec<usize>| {
        (0..count).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    orders(last).into_iter().flat_map(insert).collect()
}

/// Drops the things that `make` makes in every order. Each order gets a new `Device` on each of the same two
/// file descriptions. After each drop the things that are left are checked. At the end neither file
/// description may have a handle, and the kernel no dma-buf.
fn in_every_order<const N: usize>(make: impl Fn(Device, Device) -> [Thing; N]) {
    in_guest(|guest| {
        let files =
            [guest.vgem(), guest.vkms()].map(|device| device.as_fd().try_clone_to_owned().unwrap());
        let dma_bufs = kernel_dma_bufs();
        let orders = orders(N);
        println!("{} orders", orders.len());
        for order in orders {
            // The devices of the last round are gone, and their tables with them.
            let [vgem, vkms] = files
                .each_ref()
                .map(|file| Device::from_fd(file.try_clone().unwrap()).unwrap());
            assert_eq!((vgem.stats().closes, vkms.stats().closes), (0, 0));
            let mut things = make(vgem, vkms).map(Some);
            for thing in order.iter() {
                things[*thing] = None;
                things.iter_mut().flatten().for_each(Thing::check);
            }
            assert_eq!(files.each_ref().map(next_handle), [1, 1], "{order:?}");
            assert_eq!(kernel_dma_bufs(), dma_bufs, "{order:?}");
        }
    });
}

#[test]
fn a_shared_buffer_may_go_in_any_order() {
    in_every_order(|vgem, vkms| {
        let buffer = buffer_on(&vgem);
        let id = buffer.id();
        let foreign = vkms.import(&buffer).unwrap();
        let object = foreign.object().clone();
        let (fd, _) = object.export().unwrap();
        [
            Thing::Object(vgem.import_fd(&fd).unwrap().0, id),
            Thing::Device(vgem),
            Thing::Device(vkms),
            Thing::Buffer(buffer),
            Thing::Imported(foreign),
            Thing::Fd(fd, id),
        ]
    });
}

#[test]
fn clones_and_mappings_may_go_in_any_order() {
    in_every_order(|vgem, vkms| {
        let buffer = buffer_on(&vgem);
        let own = vgem.import(&buffer).unwrap().object().clone();
        let page = 4096.try_into().unwrap();
        drop(vkms);
        [
            Thing::DeviceMapping(vgem.map_dumb(&own, page).unwrap()),
            Thing::Mapping(Mapping::new(&buffer.objects()[0]).unwrap()),
            Thing::Object(own.clone(), buffer.id()),
            Thing::Object(own, buffer.id()),
            Thing::Buffer(buffer.clone()),
            Thing::Buffer(buffer),
        ]
    });
}

#[test]
fn planes_in_two_dma_bufs_may_go_in_any_order() {
    in_every_order(|vgem, vkms| {
        let (luma, chroma) = (buffer_on(&vgem), buffer_on(&vgem));
        let both = of_two_dma_bufs(&luma, &chroma);
        let imported = vkms.import(&both).unwrap();
        let plane = |plane| imported.plane(plane).unwrap().clone();
        [
            Thing::Object(plane(0), luma.id()),
            Thing::Object(plane(1), chroma.id()),
            Thing::Imported(vgem.import(&both).unwrap()),
            Thing::Imported(imported),
            Thing::Buffer(luma),
            Thing::Buffer(both),
        ]
    });
}

#[test]
fn names_and_adopted_handles_may_go_in_any_order() {
    in_every_order(|vgem, vkms| {
        let buffer = buffer_on(&vgem);
        let id = buffer.id();
        let own = vgem.import(&buffer).unwrap().object().clone();
        let name = crate::kernel::flink(vgem.as_fd(), own.handle().raw());
        let opened = vgem.open_name(name).unwrap();
        let adopted = crate::kernel::Gem(vkms.as_fd())
            .import(buffer.plane_fd(0).unwrap())
            .unwrap();
        [
            Thing::Object(vkms.adopt(adopted).unwrap(), id),
            Thing::Object(own, id),
            Thing::Object(opened, id),
            Thing::Imported(vkms.import(&buffer).unwrap()),
            Thing::Buffer(buffer),
            Thing::Device(vkms),
        ]
    });
}
