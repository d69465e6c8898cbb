//! Receives a buffer from another process, which is not trusted. Every way out closes every fd that came.

use std::os::fd::AsFd;

use crate::buffer::message::{self, Malformed};
use crate::buffer::{self, DmaBuf, PlaneFd};
use crate::kind::into_io_error;
use crate::sys::socket;
use crate::{Errno, ErrorKind};

/// Why no buffer was received. Every fd that came has been closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The socket does not keep messages apart.
    #[error("buffers are received from SOCK_SEQPACKET sockets only")]
    SocketType,
    /// Nothing has come yet: poll for POLLIN.
    #[error("no message has come")]
    Empty,
    /// The peer has closed the socket, or sent a message of no bytes.
    #[error("the peer has closed the socket")]
    Closed,
    /// `getsockopt` or `recvmsg` failed.
    #[error("recvmsg: {errno}")]
    Receive {
        /// ECONNRESET: the peer is gone and had not read all. ENOTSOCK, ENOTCONN …
        errno: Errno,
    },
    /// The message is not of a buffer. It has been taken from the socket.
    #[error("the message is not of a buffer: {0}")]
    Malformed(Malformed),
    /// Fds of the message were lost: too many were sent, or this process may not open so many
    /// (RLIMIT_NOFILE), of which the kernel says no more (MSG_CTRUNC).
    #[error("fds were lost: too many were sent, or there is no room for them here")]
    FdsLost,
    /// There is an fd for every plane.
    #[error("{found} fds came with a buffer of {expected} planes")]
    FdCount {
        /// Planes.
        expected: usize,
        /// Fds that came.
        found: usize,
    },
    /// The description does not fit the dma-bufs, or the fds are no dma-bufs.
    #[error(transparent)]
    Buffer(#[from] buffer::Error),
}

// Its words are in the message: it is no source, so that nothing is printed twice.
impl From<Malformed> for ReceiveError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl ReceiveError {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::FdsLost => ErrorKind::Transient,
            Self::Closed
            | Self::Receive {
                errno: Errno::ECONNRESET,
            } => ErrorKind::Lost,
            Self::Receive { errno } => ErrorKind::of(*errno),
            Self::Buffer(error) => error.kind(),
            Self::SocketType | Self::Malformed(_) | Self::FdCount { .. } => ErrorKind::Invalid,
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Receive { errno } => Some(*errno),
            Self::Buffer(error) => error.errno(),
            _ => None,
        }
    }
}

into_io_error!(ReceiveError);

impl DmaBuf {
    /// Receives a buffer from another process that called [`DmaBuf::send`].
    ///
    /// Nothing that comes is trusted: message and fds are checked as [`DmaBuf::new`] does, and the
    /// message is refused if anything is missing, left over or wrong. One message is taken with every
    /// call that does not answer [`ReceiveError::Empty`]. The fds are the buffer's, and close-on-exec.
    /// Never waits for the socket, whatever its mode. Thread-safe.
    ///
    /// The peer chooses what the fds are, and can so make this call wait: `fstat` and `close` of a file on
    /// FUSE (or on a network) are answered by the program that serves the file system. Call this for peers
    /// that are not trusted so far on a thread that may wait.
    ///
    /// Fds that the kernel adds because the socket asks for them (SO_PASSPIDFD) are closed.
    ///
    /// What is not checked, since it cannot be, is what the peer does with the memory: it may go on
    /// writing to it.
    pub fn receive(socket: impl AsFd) -> Result<Self, ReceiveError> {
        let failed = |errno| match errno {
            Errno::EAGAIN => ReceiveError::Empty,
            errno => ReceiveError::Receive { errno },
        };
        let socket = socket.as_fd();
        if !socket::is_seqpacket(socket).map_err(failed)? {
            return Err(ReceiveError::SocketType);
        }
        let mut bytes = [0; message::LENGTH];
        let received = socket::receive(socket, &mut bytes).map_err(failed)?;
        match received.length {
            0 => return Err(ReceiveError::Closed),
            message::LENGTH => {}
            other => return Err(Malformed::Length(other).into()),
        }
        let (layout, places) = message::decode(&bytes)?;
        if received.fds_lost {
            return Err(ReceiveError::FdsLost);
        }
        if received.fds.len() != places.len() {
            return Err(ReceiveError::FdCount {
                expected: places.len(),
                found: received.fds.len(),
            });
        }
        let plane = |(fd, (offset, stride))| PlaneFd { fd, offset, stride };
        let planes = received.fds.into_iter().zip(places).map(plane);
        Ok(Self::new(layout, planes)?)
    }
}
