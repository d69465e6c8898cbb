//! What an error means to a program, whichever operation failed.

use std::io;

use crate::Errno;

/// What can be done about an error. Every error of the library says its kind with `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The device is gone: unplugged, or its Vulkan device was lost. Drop what was made on it, and make
    /// it anew if the device comes back. Of a socket: the process at the other end is gone.
    Lost,
    /// A driver or the kernel refuses this, and will refuse it again: try another way.
    Refused,
    /// Memory, fds or room in a queue are missing at the moment: the same call may succeed later.
    Transient,
    /// What was passed in is wrong: a description that does not fit its memory, an fd of something
    /// else, an object of another device. Nothing was asked of the kernel, or the kernel found it out.
    Invalid,
    /// The kernel, the driver or the device lacks the feature.
    Unsupported,
    /// What is needed is in use: wait for it and try again.
    Busy,
    /// The deadline passed first.
    TimedOut,
    /// None of these.
    Other,
}

impl ErrorKind {
    /// The kind of a failed system call whose arguments were checked before: EINVAL is then a driver that
    /// refuses. ENODEV is [`Self::Refused`], since drivers answer it to memory that they do not import. The
    /// library's errors say with a variant of their own that a device was unplugged.
    pub fn of(errno: Errno) -> Self {
        match errno {
            errno if crate::sys::is_transient(errno) => Self::Transient,
            Errno::ENOBUFS => Self::Transient,
            Errno::EBUSY => Self::Busy,
            Errno::ETIME | Errno::ETIMEDOUT => Self::TimedOut,
            Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOTTY => Self::Unsupported,
            Errno::EBADF | Errno::ENOTSOCK => Self::Invalid,
            Errno::EACCES
            | Errno::EPERM
            | Errno::EINVAL
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::ENOENT => Self::Refused,
            _ => Self::Other,
        }
    }

    /// The nearest kind of the standard library's.
    pub(crate) fn of_io(self) -> io::ErrorKind {
        match self {
            Self::Lost => io::ErrorKind::NotConnected,
            Self::Refused => io::ErrorKind::PermissionDenied,
            Self::Transient => io::ErrorKind::WouldBlock,
            Self::Invalid => io::ErrorKind::InvalidInput,
            Self::Unsupported => io::ErrorKind::Unsupported,
            Self::Busy => io::ErrorKind::ResourceBusy,
            Self::TimedOut => io::ErrorKind::TimedOut,
            Self::Other => io::ErrorKind::Other,
        }
    }
}

/// Lets an error with `kind` and `errno` go through interfaces of [`io::Error`], which carries it on
/// ([`io::Error::get_ref`]).
macro_rules! into_io_error {
    ($error:ty) => {
        impl From<$error> for std::io::Error {
            fn from(error: $error) -> Self {
                let kind = match error.errno() {
                    Some(errno) => std::io::Error::from(errno).kind(),
                    None => error.kind().of_io(),
                };
                std::io::Error::new(kind, error)
            }
        }
    };
}
pub(crate) use into_io_error;

/// The errno of the library's error that an I/O error was made of.
pub(crate) fn errno_inside(error: &io::Error) -> Option<Errno> {
    let inner = error.get_ref()?;
    macro_rules! find {
        ($($(#[$feature:meta])? $error:path;)*) => {$(
            $(#[$feature])?
            if let Some(error) = inner.downcast_ref::<$error>() {
                return error.errno();
            }
        )*};
    }
    find! {
        crate::alloc::Error;
        crate::buffer::Error;
        crate::device::Error;
        crate::export::Error;
        crate::export::SendError;
        crate::gem::Error;
        crate::import::Error;
        crate::import::ReceiveError;
        crate::sync::Error;
        #[cfg(feature = "gbm")]
        crate::gbm::Error;
        #[cfg(feature = "kms")]
        crate::kms::Error;
        #[cfg(feature = "vulkan")]
        crate::vk::Error;
        #[cfg(feature = "blit")]
        crate::blit::Error;
        #[cfg(feature = "blit")]
        crate::blit::Failure;
        #[cfg(feature = "wgpu")]
        crate::wgpu::Error;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buffer, gem, sync};

    #[test]
    fn an_unplugged_device_is_one_question() {
        let device = "card7".to_owned();
        let gone = gem::Error::Lost {
            device: device.clone(),
        };
        assert_eq!(gone.kind(), ErrorKind::Lost);
        assert_eq!(
            crate::export::Error::from(gone.clone()).kind(),
            ErrorKind::Lost
        );
        assert_eq!(
            crate::alloc::Error::from(gone.clone()).kind(),
            ErrorKind::Lost
        );
        assert_eq!(crate::device::Error::from(gone).kind(), ErrorKind::Lost);
        assert_eq!(sync::Error::Lost { device }.kind(), ErrorKind::Lost);
    }

    #[test]
    fn a_lack_of_fds_passes_and_a_refusal_does_not() {
        let import = |errno| gem::Error::Import {
            device: "card7".to_owned(),
            errno,
        };
        assert_eq!(import(Errno::EMFILE).kind(), ErrorKind::Transient);
        assert_eq!(import(Errno::EINVAL).kind(), ErrorKind::Refused);
        assert_eq!(import(Errno::ENODEV).kind(), ErrorKind::Refused);
        assert_eq!(import(Errno::ENOSYS).kind(), ErrorKind::Refused);
        assert_eq!(import(Errno::ENOSYS).errno(), Some(Errno::ENOSYS));
    }

    #[test]
    fn an_error_goes_through_an_io_error_with_its_words() {
        let error = buffer::Error::PlaneCount(9);
        let io = io::Error::from(error.clone());
        assert_eq!(io.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(io.to_string(), error.to_string());
        let inner = io.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(inner, Some(&error));
        let io = io::Error::from(sync::Error::Map {
            size: 1,
            errno: Errno::ENOMEM,
        });
        assert_eq!(io.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(Errno::of(&io), Some(Errno::ENOMEM));
    }
}
