//! A buffer that is in use, as if by a device, for as long as the test wants.

use primeshare::sync::{Access, implicit};
use primeshare::{Device, DmaBuf};

use super::sw_sync::Timeline;
use super::vgem;

/// The use of a buffer, by a pending fence in it. It is one of sw_sync's if the kernel has these: vgem's
/// fence ends by itself after ten seconds, and a test may take longer on a busy machine.
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
