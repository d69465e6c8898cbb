//! Messages with fds over Unix sockets: `sendmsg(2)`, `recvmsg(2)` and `unix(7)`.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};

/// The most fds of a message.
pub(crate) const MAX_FDS: usize = 4;

/// A message that came.
pub(crate) struct Received {
    /// Bytes that were sent; 0 where the peer has closed the socket. More than were asked for were
    /// cut off.
    pub(crate) length: usize,
    /// Close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// More fds were sent, for which there was no room; the kernel has closed them.
    pub(crate) fds_lost: bool,
}

/// Whether the socket is connected and keeps messages apart (SOCK_SEQPACKET).
pub(crate) fn is_seqpacket(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = sockopt::socket_type(socket).map_err(errno)?;
    Ok(kind == SocketType::SEQPACKET)
}

/// Sends bytes and dups of at most [`MAX_FDS`] fds as one message: whole, or not at all. EAGAIN
/// where it would have to wait.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::EINVAL);
    }
    let bytes = [IoSlice::new(bytes)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    super::uninterrupted(|| sendmsg(socket, &bytes, &mut control, flags).map_err(errno)).map(drop)
}

/// Takes the next message. EAGAIN where there is none.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<Received, Errno> {
    // The kernel puts the sender's credentials before the fds where the socket asks for them.
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
    let message = super::uninterrupted(|| {
        recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags).map_err(errno)
    })?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            fds.extend(some);
        }
    }
    Ok(Received {
        length: message.bytes,
        fds,
        fds_lost: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
