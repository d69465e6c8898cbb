//! A buffer that is in use, as if by a device, for as long as the test wants.

use primeshare::sync::{Access, implicit};
use primeshare::{Device, DmaBuf};

use super::sw_sync::Timeline;
use super::vgem;

/// The use of a buffer: a fence in it, by sw_sync where the kernel has that. vgem's ends by itself
/// after ten seconds, and on a busy machine what a test does meanwhile may take longer.
pub(crate) enum Busy {
    Timeline(Timeline),
    Vgem(vgem::Fence),
}

impl Busy {
    /// Begins to use the buffer, until [`end`](Self::end).
    pub(crate) fn new(vgem: &Device, buffer: &DmaBuf, access: Access) -> Self {
        match Timeline::if_there() {
            Some(timeline) => {
                implicit::import_sync_file(buffer, &timeline.fence(1), access).unwrap();
                Self::Timeline(timeline)
            }
            None => Self::Vgem(vgem::Fence::attach(vgem, buffer, access)),
        }
    }

    pub(crate) fn end(self) {
        match self {
            Self::Timeline(timeline) => timeline.advance(1),
            Self::Vgem(fence) => fence.signal(),
        }
    }
}
