//! The kernel's error numbers, as a type that belongs to no other crate.
//!
//! The library's errors carry it, so it must not change when a dependency does.

use std::{fmt, io};

/// An error number of the kernel (`errno(3)`).
///
/// A value that compares and matches by its number: `Errno::ENODEV` can stand in a pattern. The library's errors carry
/// it, and say what was tried. Alone it is the error of [`BufferId::of`](crate::buffer::BufferId::of) only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(i32);

impl Errno {
    /// From the number, such as [`libc`](https://docs.rs/libc)'s constants.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number: positive, as in `errno.h`.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The number that an I/O error carries, also one that was made of an error of this library. Errors
    /// that the standard library makes itself carry none.
    pub fn of(error: &io::Error) -> Option<Self> {
        let number = error.raw_os_error().map(Self);
        number.or_else(|| crate::kind::errno_inside(error))
    }
}

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "` of `errno.h`.")]
                pub const $name: Self = Self(libc::$name);
            )*

            /// The name in `errno.h`, for the numbers that have a constant here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENODATA ETIME EPROTO EBADMSG EOVERFLOW EBADFD EILSEQ
    ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EREMOTEIO EDQUOT ECANCELED
    EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE EHWPOISON
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The C library's words, to which the standard library adds the number.
        let said = io::Error::from(*self).to_string();
        let words = said
            .split_once(" (os error")
            .map_or(&*said, |(words, _)| words);
        write!(f, "{self:?}: {words}")
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(feature = "nix_0_31")]
impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as i32)
    }
}

#[cfg(feature = "nix_0_31")]
impl From<Errno> for nix::errno::Errno {
    fn from(errno: Errno) -> Self {
        Self::from_raw(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_says_its_name_and_what_it_means() {
        assert_eq!(Errno::EINVAL.to_string(), "EINVAL: Invalid argument");
        assert_eq!(format!("{:?}", Errno::ENODEV), "ENODEV");
        assert_eq!(format!("{:?}", Errno::from_raw(4095)), "errno 4095");
        assert_eq!(Errno::from_raw(libc::EWOULDBLOCK), Errno::EAGAIN);
        assert_eq!(Errno::from_raw(libc::ENOTSUP), Errno::EOPNOTSUPP);
    }

    #[test]
    fn an_errno_goes_through_an_io_error_unchanged() {
        let error = io::Error::from(Errno::EMFILE);
        assert_eq!(Errno::of(&error), Some(Errno::EMFILE));
        assert_eq!(Errno::of(&io::Error::other("said by nobody")), None);
    }
}
