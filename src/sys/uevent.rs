//! The kernel's messages about devices: NETLINK_KOBJECT_UEVENT of `include/uapi/linux/netlink.h`, which
//! `lib/kobject_uevent.c` sends.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

use super::errno;
use crate::Errno;

/// The kernel's messages themselves. Group 2 has what udevd makes of them.
const OF_KERNEL: u32 = 1;

/// More than the kernel writes: `UEVENT_BUFFER_SIZE` is 2048, with a path before it.
pub(crate) const ROOM: usize = 8192;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A message of the kernel with so many bytes.
    Message(usize),
    /// A message of the kernel that was too long, or messages for which the socket had no room.
    Lost,
    /// A message of a process.
    Foreign,
    /// There is no more.
    Nothing,
}

/// A socket that receives them. Close-on-exec and non-blocking; needs no privilege.
pub(crate) fn listen() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        flags,
        Some(KOBJECT_UEVENT),
    );
    let socket = socket.map_err(errno)?;
    // The kernel chooses the number of the socket.
    bind(&socket, &SocketAddrNetlink::new(0, OF_KERNEL)).map_err(errno)?;
    Ok(socket)
}

/// Takes the next one.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8; ROOM]) -> Result<Received, Errno> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    let received = super::uninterrupted(|| recvfrom(socket, &mut into[..], flags).map_err(errno));
    let (_, length, sender) = match received {
        Ok(received) => received,
        Err(Errno::EAGAIN) => return Ok(Received::Nothing),
        Err(Errno::ENOBUFS) => return Ok(Received::Lost),
        Err(errno) => return Err(errno),
    };
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    Ok(match sender.map(|sender| sender.pid()) {
        Some(0) if length > ROOM => Received::Lost,
        Some(0) => Received::Message(length),
        _ => Received::Foreign,
    })
}
