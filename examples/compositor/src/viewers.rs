//! Frames for other processes: a viewer is sent a frame's buffer, and says when it has read it.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use primeshare::DmaBuf;
use primeshare::sync::{Access, SyncFile, implicit};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long is waited where a kernel cannot leave a fence in a buffer.
const MOMENT: Duration = Duration::from_millis(20);

/// The socket, and those who have connected to it.
pub(crate) struct Viewers {
    socket: OwnedFd,
    connected: Vec<Viewer>,
}

struct Viewer {
    socket: OwnedFd,
    /// What it reads: neither the compositor nor the client draws into it meanwhile.
    reads: Option<Box<dyn Any>>,
}

impl Viewers {
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        // Messages are kept apart.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        net::bind(&socket, &SocketAddrUnix::new(path)?).with_context(|| path.display().to_string())?;
        net::listen(&socket, 8)?;
        Ok(Self { socket, connected: Vec::new() })
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let viewers = self.connected.iter().map(|viewer| viewer.socket.as_fd());
        std::iter::once(self.socket.as_fd()).chain(viewers)
    }

    /// Meets new viewers, and hears of frames that have been read.
    pub(crate) fn dispatch(&mut self) {
        while let Ok(socket) = net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.connected.push(Viewer { socket, reads: None });
        }
        self.connected.retain_mut(|viewer| match rustix::io::read(&viewer.socket, &mut [0; 16]) {
            Ok(0) => false,
            Ok(_) => {
                viewer.reads = None;
                true
            }
            Err(error) => error == rustix::io::Errno::AGAIN,
        });
    }

    /// Sends a frame to everybody who has read the one before. `keep` is what has to stay as it is while it is read.
    pub(crate) fn send<K: Any + Clone>(&mut self, frame: &DmaBuf, fence: Option<&SyncFile>, keep: &K) {
        let mut idle = self.connected.iter_mut().filter(|viewer| viewer.reads.is_none()).peekable();
        if idle.peek().is_none() {
            return;
        }
        // The fence of the drawing travels in the buffer: whoever reads it waits for its writers.
        let left = fence.map(|fence| implicit::import_or_wait(frame, fence, Access::Write, MOMENT));
        if let Some(Err(error)) = left {
            log::warn!("{error}");
            return;
        }
        for viewer in idle {
            match frame.send(&viewer.socket) {
                Ok(()) => viewer.reads = Some(Box::new(keep.clone())),
                // Who is gone is noticed when its socket is read.
                Err(error) => log::info!("a viewer: {error}"),
            }
        }
    }
}
