//! What the operations work on, and what they could leak.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use primeshare::alloc::{DmaHeap, Udmabuf};
use primeshare::buffer::PlaneFd;
use primeshare::device::{self, Capabilities};
use primeshare::gbm::Gbm;
use primeshare::gem::Object;
use primeshare::{BufferDesc, Device, DmaBuf, Fourcc};

use crate::support::{Guest, buffer_on, kernel_dma_bufs};

/// What could leak.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    fds: u64,
    dma_bufs: usize,
    mappings: usize,
    handles: [usize; 2],
    failed_closes: u64,
}

/// Devices and buffers to operate on.
pub(super) struct World {
    pub(super) vgem: Device,
    pub(super) vkms: Device,
    /// Of vgem, unknown to vkms.
    pub(super) foreign: DmaBuf,
    /// The two planes of `both`, of vgem and unknown to vkms.
    pub(super) luma: DmaBuf,
    pub(super) chroma: DmaBuf,
    pub(super) both: DmaBuf,
    /// Of vgem, in use on vkms.
    pub(super) known: DmaBuf,
    pub(super) known_object: Object,
    /// A dumb buffer of vkms.
    pub(super) own_object: Object,
    /// Its flink name.
    pub(super) name: u32,
    pub(super) udmabuf: Udmabuf,
    pub(super) heap: DmaHeap,
    pub(super) gbm: Gbm,
    pub(super) nodes: Vec<device::Node>,
    pub(super) capabilities: Capabilities,
    /// Mesa 25.0's llvmpipe leaks an fd if it cannot start: in `llvmpipe_resource_alloc_udmabuf` an inner
    /// `mem_fd` hides the one that is closed.
    pub(super) mesa_leaks: bool,
}

impl World {
    pub(super) fn new(guest: &Guest) -> Self {
        let (vgem, vkms) = (guest.vgem(), guest.vkms());
        let (luma, chroma, known) = (buffer_on(&vgem), buffer_on(&vgem), buffer_on(&vgem));
        let own = buffer_on(&vkms);
        let own_object = vkms.import(&own).unwrap().object().clone();
        Self {
            foreign: buffer_on(&vgem),
            both: two_planes(&luma, &chroma).unwrap(),
            luma,
            chroma,
            known_object: vkms.import(&known).unwrap().object().clone(),
            known,
            name: crate::kernel::flink(vkms.as_fd(), own_object.handle().raw()),
            own_object,
            udmabuf: Udmabuf::open().unwrap(),
            heap: DmaHeap::system().unwrap(),
            gbm: Gbm::new(&vkms).unwrap(),
            nodes: device::enumerate().unwrap(),
            capabilities: vkms.capabilities().unwrap(),
            mesa_leaks: guest.has_old_mesa(),
            vgem,
            vkms,
        }
    }

    pub(super) fn held(&self) -> Held {
        let stats = [self.vgem.stats(), self.vkms.stats()];
        Held {
            // Since Linux 6.2 this is the number of fds.
            fds: fs::metadata("/proc/self/fd").unwrap().len(),
            dma_bufs: kernel_dma_bufs(),
            mappings: mappings(),
            handles: stats.map(|stats| stats.handles),
            failed_closes: stats.iter().map(|stats| stats.failed_closes).sum(),
        }
    }
}

pub(super) fn dup(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

pub(super) fn plane(fd: OwnedFd) -> PlaneFd {
    PlaneFd {
        fd,
        offset: 0,
        stride: 64,
    }
}

/// NV12 with a dma-buf for each plane.
fn two_planes(luma: &DmaBuf, chroma: &DmaBuf) -> Result<DmaBuf, primeshare::buffer::Error> {
    let layout = BufferDesc::linear(64, 64, Fourcc::NV12);
    let fds = [luma, chroma].map(|buffer| plane(dup(&buffer.objects()[0])));
    DmaBuf::new(layout, fds)
}

/// Mappings of dma-bufs and DRM nodes, which outlive handle and fd.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let shared = |line: &&str| line.contains("/dmabuf:") || line.contains("/dev/dri/");
    maps.lines().filter(shared).count()
}
