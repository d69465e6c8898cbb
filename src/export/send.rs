//! Sends a buffer to another process. The message's bytes are in `buffer::message`; changing them takes a new
//! version in the message's eighth byte.

use std::os::fd::AsFd;

use arrayvec::ArrayVec;

use crate::buffer::{DmaBuf, MAX_PLANES, message};
use crate::kind::into_io_error;
use crate::sys::socket;
use crate::{Errno, ErrorKind};

const _: () = assert!(MAX_PLANES <= socket::MAX_FDS);

/// Why a buffer was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket does not keep messages apart.
    #[error("buffers are sent over SOCK_SEQPACKET sockets only")]
    SocketType,
    /// `getsockopt` or `sendmsg` failed.
    #[error("sendmsg: {errno}")]
    Send {
        /// EAGAIN: the peer has too many messages to read; poll for POLLOUT. EPIPE, ECONNRESET: it
        /// is gone. ETOOMANYREFS: more fds are on their way than RLIMIT_NOFILE. ENOTSOCK, ENOBUFS …
        errno: Errno,
    },
}

impl SendError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SocketType => ErrorKind::Invalid,
            Self::Send {
                errno: Errno::EPIPE | Errno::ECONNRESET,
            } => ErrorKind::Lost,
            Self::Send { errno } => ErrorKind::of(*errno),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::SocketType => None,
            Self::Send { errno } => Some(*errno),
        }
    }
}

into_io_error!(SendError);

impl DmaBuf {
    /// Sends the buffer to another process: one message of its layout and a dup of the fd of each plane,
    /// for [`DmaBuf::receive`] at the other end.
    ///
    /// The socket is a connected Unix one of the SOCK_SEQPACKET kind, which keeps messages apart.
    /// Messages of other kinds may go over it as well, if both ends know which comes when. Never
    /// waits, whatever the socket's mode; what was not sent whole was not sent. The buffer may go as
    /// soon as this returns: the memory lives on in the message. Thread-safe.
    ///
    /// # The message
    /// 68 bytes, and beside them an fd for each plane (SCM_RIGHTS), in their order and also where
    /// planes share a dma-buf. Numbers are little-endian and of 4 bytes unless said otherwise.
    ///
    /// | byte | |
    /// | --- | --- |
    /// | 0 | `dma-buf`, and the format's version in an eighth byte: 2 |
    /// | 8 | width in pixels |
    /// | 12 | height in pixels |
    /// | 16 | format: a [`Fourcc`](crate::Fourcc) |
    /// | 20 | number of planes, 1 to 4 |
    /// | 24 | [`Modifier`](crate::Modifier), 8 bytes |
    /// | 32 | [`BufferFlags`](crate::buffer::BufferFlags) |
    /// | 36 | offset and stride in bytes of each plane; zeroes after the last one |
    pub fn send(&self, socket: impl AsFd) -> Result<(), SendError> {
        let failed = |errno| SendError::Send { errno };
        let socket = socket.as_fd();
        if !socket::is_seqpacket(socket).map_err(failed)? {
            return Err(SendError::SocketType);
        }
        let planes = self.planes();
        let places: ArrayVec<_, MAX_PLANES> = planes.iter().map(|p| (p.offset, p.stride)).collect();
        let fds: ArrayVec<_, MAX_PLANES> = planes
            .iter()
            .map(|plane| self.objects()[plane.object].as_fd())
            .collect();
        let bytes = message::encode(self.desc(), &places);
        socket::send(socket, &bytes, &fds).map_err(failed)
    }
}
