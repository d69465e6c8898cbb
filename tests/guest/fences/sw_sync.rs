//! Timelines that a program moves on: `drivers/dma-buf/sw_sync.c`.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use primeshare::sync::SyncFile;

use crate::support::can_run;

const PATH: &str = "/sys/kernel/debug/sync/sw_sync";

#[repr(C)]
struct CreateFence {
    value: u32,
    name: [u8; 32],
    fence: i32,
}

nix::ioctl_readwrite!(ioctl_create_fence, b'W', 0, CreateFence);
nix::ioctl_write_ptr!(ioctl_increment, b'W', 1, u32);

/// A timeline that begins at zero. Its drop signals the fences that are left, with ENOENT.
pub(crate) struct Timeline(File);

impl Timeline {
    pub(crate) fn new() -> Self {
        Self::if_there().unwrap()
    }

    /// `None` if the kernel has no timelines.
    pub(crate) fn if_there() -> Option<Self> {
        let file = File::options().read(true).write(true).open(PATH);
        file.ok().map(Self)
    }

    /// A fence that is signalled once the timeline is at `value`.
    pub(crate) fn fence(&self, value: u32) -> SyncFile {
        let mut create = CreateFence {
            value,
            name: [0; 32],
            fence: -1,
        };
        create.name[..4].copy_from_slice(b"test");
        // SAFETY: the fd is open, and the structure, which is the ioctl's, outlives the call.
        unsafe { ioctl_create_fence(self.0.as_raw_fd(), &mut create) }.unwrap();
        // SAFETY: a new fd that nobody else knows.
        SyncFile::new(unsafe { OwnedFd::from_raw_fd(create.fence) }).unwrap()
    }

    /// Moves the timeline on.
    pub(crate) fn advance(&self, by: u32) {
        // SAFETY: as in `fence`.
        unsafe { ioctl_increment(self.0.as_raw_fd(), &by) }.unwrap();
    }

    /// Ends the timeline.
    pub(crate) fn end(self) {}
}

/// Whether the kernel has timelines, which Debian's own has not. A test that needs them is left out there.
pub(crate) fn is_there() -> bool {
    let in_qemu = std::env::var_os("PRIMESHARE_GUEST").is_some_and(|machine| machine == "qemu");
    can_run(!in_qemu, "sw_sync, which Debian's own kernel lacks")
}
