//! Which device a node of Smithay's belongs to, and which node a buffer of the library's has.
//!
//! One device has several nodes, and Smithay tells devices apart by them. A [`Dmabuf`] carries the node of the device that
//! is to import it (`Dmabuf::node`), by which Smithay's renderer for several GPUs chooses.

use std::io;

use ::smithay::backend::allocator::dmabuf::Dmabuf;
use ::smithay::backend::drm::{CreateDrmNodeError, DrmNode};
use primeshare::device::key_of;
use primeshare::negotiate::DeviceKey;
use primeshare::{Device, DmaBuf, device};

use crate::to_smithay;

/// As [`to_smithay`], with the device's render node, else its primary node, as the node of the `Dmabuf`.
pub fn to_smithay_of(buffer: &DmaBuf, device: &Device) -> io::Result<Dmabuf> {
    let render = device.node().render_node()?;
    let number = render.map_or(device.node().id, |node| node.id).dev_t();
    let node = DrmNode::from_dev_id(number).map_err(into_io)?;
    let dmabuf = to_smithay(buffer)?;
    dmabuf.set_node(node);
    Ok(dmabuf)
}

fn into_io(error: CreateDrmNodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// The devices of a compositor, found by any node of Smithay's.
#[derive(Clone, Debug, Default)]
pub struct Devices(Vec<(DeviceKey, Device)>);

impl Devices {
    /// These devices; of two nodes of one device, the first is kept.
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Result<Self, device::Error> {
        let mut known: Vec<(DeviceKey, Device)> = Vec::new();
        for device in devices {
            let key = device.key()?;
            if known.iter().all(|(other, _)| *other != key) {
                known.push((key, device));
            }
        }
        Ok(Self(known))
    }

    /// The device that has this node, whichever of its nodes that is.
    pub fn of(&self, node: DrmNode) -> Option<&Device> {
        let key = key_of(node.dev_id()).ok()?;
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map(|(_, device)| device)
    }

    /// The device that a `Dmabuf` says it is for, if it says one.
    pub fn of_buffer(&self, dmabuf: &Dmabuf) -> Option<&Device> {
        self.of(dmabuf.node()?)
    }

    /// Each device once.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Device> {
        self.0.iter().map(|(_, device)| device)
    }
}
