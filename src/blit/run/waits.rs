//! What a copy waits for: the fds given with it, and the fences in its dma-bufs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use nix::poll::PollFlags;

use crate::blit::copy::copier;
use crate::blit::copy::frame::Frame;
use crate::buffer::MAX_PLANES;
use crate::sync::{Access, SyncFile, implicit};
use crate::sys::poll::are_ready;

/// The most fds that can be given with one copy.
pub(in crate::blit) const MAX_WAITS: usize = 4;

/// Dups of the fds given with a copy.
pub(in crate::blit) type Waits = ArrayVec<OwnedFd, MAX_WAITS>;

/// The most fds that one copy waits for.
pub(super) const MOST: usize = MAX_WAITS + 2 * MAX_PLANES;

/// Fences for a GPU to wait for.
pub(in crate::blit) type Fences = ArrayVec<OwnedFd, MOST>;

/// The implicit fences that a copy waits for: of the source's writers, and of the destination's writers
/// and readers.
fn of_dma_bufs(frame: &Frame) -> impl Iterator<Item = (BorrowedFd<'_>, Access)> {
    let read = frame.source.objects().iter();
    let written = frame.destination.objects().iter();
    read.map(|object| (object.as_fd(), Access::Read))
        .chain(written.map(|object| (object.as_fd(), Access::Write)))
}

fn event(access: Access) -> PollFlags {
    match access {
        Access::Read => PollFlags::POLLIN,
        Access::Write | Access::ReadWrite => PollFlags::POLLOUT,
    }
}

/// The fds that a copy waits for, and the events to poll for.
pub(in crate::blit) fn polled<'a>(
    frame: &'a Frame,
    given: &'a [OwnedFd],
) -> ArrayVec<(BorrowedFd<'a>, PollFlags), MOST> {
    let given = given.iter().map(|fd| (fd.as_fd(), PollFlags::POLLIN));
    let dma_bufs = of_dma_bufs(frame).map(|(fd, access)| (fd, event(access)));
    given.chain(dma_bufs).collect()
}

/// What the steps of a copy wait for, as sync files.
pub(in crate::blit) type Inputs = copier::Waits<Fences>;

/// The fences that are pending, for each step. `None` if an fd is not a fence of the kernel's (a pipe, for
/// example), or if a fence cannot be had as a sync file.
pub(in crate::blit) fn as_sync_files(
    frame: &Frame,
    given: &[OwnedFd],
    two_steps: bool,
) -> Option<Inputs> {
    let mut inputs = Inputs::default();
    let is_ready = |fd, flags| are_ready(&ArrayVec::from([(fd, flags)])).ok();
    for fd in given {
        if !is_ready(fd.as_fd(), PollFlags::POLLIN)? {
            let file = SyncFile::new(fd.try_clone().ok()?).ok()?;
            if two_steps {
                inputs.second.push(file.as_fd().try_clone_to_owned().ok()?);
            }
            inputs.first.push(file.into());
        }
    }
    for (dma_buf, access) in of_dma_bufs(frame) {
        if !is_ready(dma_buf, event(access))? {
            let file = implicit::export_sync_file_fd(dma_buf, access).ok()?.into();
            match access {
                Access::Write | Access::ReadWrite if two_steps => inputs.second.push(file),
                _ => inputs.first.push(file),
            }
        }
    }
    Some(inputs)
}
