//! Messages with fds over Unix sockets: `sendmsg(2)`, `recvmsg(2)` and `unix(7)`.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg, sockopt,
};

use super::errno;
use crate::Errno;

/// The most fds of a message.
pub(crate) const MAX_FDS: usize = 4;

/// A message that came.
pub(crate) struct Received {
    /// How many bytes were sent, even if some were cut off. 0 if the peer has closed the socket.
    pub(crate) length: usize,
    /// Close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether fds were sent for which there was no room here or in the process. The kernel has closed them.
    pub(crate) fds_lost: bool,
}

/// Whether the socket is connected and keeps messages apart (SOCK_SEQPACKET).
pub(crate) fn is_seqpacket(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = sockopt::socket_type(socket).map_err(errno)?;
    Ok(kind == SocketType::SEQPACKET)
}

/// Sends bytes and dups of at most [`MAX_FDS`] fds as one message: whole, or not at all. EAGAIN if it would have
/// to wait.
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

/// The largest security label that a message may have (SO_PASSSEC). The kernel sets no limit; labels of SELinux
/// and AppArmor have some ten to hundred bytes. It is not larger, since the kernel opens fds as long as there is
/// room.
const LABEL: usize = 256;

/// Room for the control messages of one message, in their order (`scm_recv_unix` of
/// `include/net/scm.h`): the sender's credentials, its security label, the fds and a pidfd of the
/// sender, of which the socket's owner may have asked for any. If one has no room, those after it are lost, too.
#[repr(C, align(8))]
struct Control([u8; control_space(LABEL)]);

const fn control_space(label: usize) -> usize {
    let sizes = [
        size_of::<libc::ucred>(),
        label,
        MAX_FDS * size_of::<RawFd>(),
        size_of::<RawFd>(),
    ];
    let (mut all, mut index) = (0, 0);
    while index < sizes.len() {
        // SAFETY: computes a number.
        all += unsafe { libc::CMSG_SPACE(sizes[index] as u32) } as usize;
        index += 1;
    }
    all
}

/// Takes the next message. EAGAIN if there is none.
///
/// Fds of other kinds that the kernel adds to it, such as a pidfd of the sender, are closed.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<Received, Errno> {
    let mut control = Control([0; control_space(LABEL)]);
    let mut bytes = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // SAFETY: all zeroes is a message without anything; musl has padding between the fields.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
    let length = super::uninterrupted(|| {
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the message points to buffers of these sizes, which outlive the call.
        super::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) })
    })?;
    // SAFETY: the kernel has just filled the message in, and nobody else has seen its fds.
    let fds = unsafe { take_fds(&message) };
    Ok(Received {
        length: length as usize,
        fds,
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// The fds that the sender gave. Those that the kernel has added are closed.
///
/// # Safety
/// The kernel has filled the message in, and nobody else has taken its fds.
unsafe fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    /// `SCM_PIDFD` of `include/linux/socket.h`, Linux 6.5.
    const PIDFD: libc::c_int = 4;
    let mut fds = Vec::new();
    // SAFETY: the message is the kernel's, so each header and what it says of its length are good.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            // Of another type on musl.
            let whole: usize = control.cmsg_len as _;
            let length = whole.saturating_sub(libc::CMSG_LEN(0) as usize);
            let kind = (control.cmsg_level, control.cmsg_type);
            let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
            for index in 0..length / size_of::<RawFd>() {
                // A pidfd that could not be made is a negative errno.
                match (kind, numbers.add(index).read_unaligned()) {
                    ((libc::SOL_SOCKET, libc::SCM_RIGHTS), fd) if fd >= 0 => {
                        fds.push(OwnedFd::from_raw_fd(fd));
                    }
                    ((libc::SOL_SOCKET, PIDFD), fd) if fd >= 0 => {
                        drop(OwnedFd::from_raw_fd(fd));
                    }
                    _ => {}
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}
