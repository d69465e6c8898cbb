//! From the library's errors to a number, and to what a thread can ask afterwards.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, CString, c_int};

use primeshare::buffer::LinuxDmabufAnswer;
use primeshare::{Errno, ErrorKind};

/// Why a call failed.
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) errno: Errno,
    pub(crate) message: String,
    pub(crate) answer: Option<LinuxDmabufAnswer>,
}

impl Failure {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, Errno::EINVAL, message)
    }

    pub(crate) fn new(kind: ErrorKind, errno: Errno, message: impl Into<String>) -> Self {
        Self {
            kind,
            errno,
            message: message.into(),
            answer: None,
        }
    }

    pub(crate) fn of(kind: ErrorKind, errno: Option<Errno>, error: &dyn Error) -> Self {
        Self::new(kind, errno.unwrap_or(errno_of(kind)), words(error))
    }
}

/// The error and its causes, as far as an error's words do not have its cause's.
fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}

/// The number for errors that no system call gave one.
fn errno_of(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::Lost => Errno::ENODEV,
        ErrorKind::Refused | ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::Transient => Errno::EAGAIN,
        ErrorKind::Invalid => Errno::EINVAL,
        ErrorKind::Busy => Errno::EBUSY,
        ErrorKind::TimedOut => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

macro_rules! failures {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for $crate::failure::Failure {
            fn from(error: $error) -> Self {
                Self::of(error.kind(), error.errno(), &error)
            }
        }
    )*};
}

failures! {
    primeshare::alloc::Error,
    primeshare::export::Error,
    primeshare::export::SendError,
    primeshare::gem::Error,
    primeshare::import::Error,
    primeshare::negotiate::Error,
    primeshare::sync::Error,
}

impl From<primeshare::buffer::Error> for Failure {
    fn from(error: primeshare::buffer::Error) -> Self {
        Self {
            answer: Some(error.linux_dmabuf_answer()),
            ..Self::of(error.kind(), error.errno(), &error)
        }
    }
}

impl From<primeshare::device::Error> for Failure {
    fn from(error: primeshare::device::Error) -> Self {
        let errno = match error {
            primeshare::device::Error::NoNode(_) => Some(Errno::ENOENT),
            _ => error.errno(),
        };
        Self::of(error.kind(), errno, &error)
    }
}

impl From<primeshare::import::ReceiveError> for Failure {
    fn from(error: primeshare::import::ReceiveError) -> Self {
        let errno = match error {
            // Not -ENODEV, which would say that a device is gone.
            primeshare::import::ReceiveError::Closed => Some(Errno::ECONNRESET),
            _ => error.errno(),
        };
        Self::of(error.kind(), errno, &error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::new(ErrorKind::of(errno), errno, errno.to_string())
    }
}

/// The last failure of a thread.
pub(crate) struct Last {
    pub(crate) kind: ErrorKind,
    pub(crate) operation: &'static CStr,
    pub(crate) message: CString,
    pub(crate) answer: Option<LinuxDmabufAnswer>,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Asks about the last failure of this thread.
pub(crate) fn last<T>(ask: impl FnOnce(&Last) -> T) -> Option<T> {
    let of_thread = |last: &RefCell<Option<Last>>| last.borrow().as_ref().map(ask);
    // A thread that ends asks for nothing.
    LAST.try_with(of_thread).ok().flatten()
}

/// What a function returns: 0, or the negative number of a failure, which is remembered.
pub(crate) fn call(operation: &'static CStr, body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    value(operation, || body().map(|()| 0))
}

/// The same for a function that returns a number of its own, which is not negative.
pub(crate) fn value(
    operation: &'static CStr,
    body: impl FnOnce() -> Result<c_int, Failure>,
) -> c_int {
    match body() {
        Ok(value) => value,
        Err(failure) => remember(operation, failure),
    }
}

#[cold]
fn remember(operation: &'static CStr, failure: Failure) -> c_int {
    let Failure {
        kind,
        errno,
        message,
        answer,
    } = failure;
    let bytes: Vec<u8> = message
        .into_bytes()
        .into_iter()
        .filter(|b| *b != 0)
        .collect();
    let last = Last {
        kind,
        operation,
        // Zeros were taken out.
        message: CString::new(bytes).unwrap_or_default(),
        answer,
    };
    let _ = LAST.try_with(|of_thread| *of_thread.borrow_mut() = Some(last));
    -errno.raw()
}
