//! vgem's fences, by buffer.

use primeshare::sync::Access;
use primeshare::{Device, DmaBuf};

use crate::kernel::fence;

/// A fence on a buffer of vgem, which signals it by itself after ten seconds.
pub(crate) struct Fence {
    vgem: Device,
    number: u32,
}

impl Fence {
    /// As if something used the buffer, until [`signal`](Self::signal).
    pub(crate) fn attach(vgem: &Device, buffer: &DmaBuf, access: Access) -> Self {
        let imported = vgem.import(buffer).unwrap();
        let handle = imported.object().handle().raw();
        let number = match access {
            Access::Read => fence::attach_reader(vgem, handle),
            Access::Write | Access::ReadWrite => fence::attach(vgem, handle),
        };
        let vgem = vgem.clone();
        Self { vgem, number }
    }

    pub(crate) fn signal(self) {
        fence::signal(&self.vgem, self.number);
    }
}
