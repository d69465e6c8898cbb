//! # Errors
//!
//! Functions that can fail return 0 or a negative errno, and a function that returns an fd or a number returns the
//! errno in its place. Results are written on success only. What a thread's last failed call was is kept until the
//! next one fails, and a call that succeeds does not clear it.

use std::ffi::{c_char, c_int};

use primeshare::ErrorKind;
use primeshare::buffer::LinuxDmabufAnswer;

use crate::failure::last;

/// What a program can do about an error.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum primeshare_error_kind {
    /// No call of this thread has failed.
    PRIMESHARE_ERROR_NONE = 0,
    /// The device is gone: unplugged, or its Vulkan device was lost. Drop what was made on it.
    PRIMESHARE_ERROR_LOST = 1,
    /// A driver or the kernel refuses this, and will refuse it again: try another way.
    PRIMESHARE_ERROR_REFUSED = 2,
    /// Memory, fds or room in a queue are missing at the moment: the same call may succeed later.
    PRIMESHARE_ERROR_TRANSIENT = 3,
    /// An argument is wrong.
    PRIMESHARE_ERROR_INVALID = 4,
    /// The kernel, the driver, the device or this build of the library lacks the feature.
    PRIMESHARE_ERROR_UNSUPPORTED = 5,
    /// What is needed is in use: wait for it and try again.
    PRIMESHARE_ERROR_BUSY = 6,
    /// The deadline passed first.
    PRIMESHARE_ERROR_TIMED_OUT = 7,
    /// None of these.
    PRIMESHARE_ERROR_OTHER = 8,
}

impl From<ErrorKind> for primeshare_error_kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Lost => Self::PRIMESHARE_ERROR_LOST,
            ErrorKind::Refused => Self::PRIMESHARE_ERROR_REFUSED,
            ErrorKind::Transient => Self::PRIMESHARE_ERROR_TRANSIENT,
            ErrorKind::Invalid => Self::PRIMESHARE_ERROR_INVALID,
            ErrorKind::Unsupported => Self::PRIMESHARE_ERROR_UNSUPPORTED,
            ErrorKind::Busy => Self::PRIMESHARE_ERROR_BUSY,
            ErrorKind::TimedOut => Self::PRIMESHARE_ERROR_TIMED_OUT,
            _ => Self::PRIMESHARE_ERROR_OTHER,
        }
    }
}

/// What can be done about this thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_last_error_kind() -> primeshare_error_kind {
    last(|last| last.kind.into()).unwrap_or(primeshare_error_kind::PRIMESHARE_ERROR_NONE)
}

/// The function whose failure was this thread's last error; "" before there is one. Static.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_last_error_operation() -> *const c_char {
    last(|last| last.operation).unwrap_or(c"").as_ptr()
}

/// What failed, on which device, and why, in English; "" before an error. Valid until a call of this thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_last_error_message() -> *const c_char {
    last(|last| last.message.as_ptr()).unwrap_or(c"".as_ptr())
}

/// What a Wayland server answers to a client whose buffer was the reason for this thread's last error: the code of
/// zwp_linux_buffer_params_v1's protocol error, or -1 for its event `failed`.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_last_error_linux_dmabuf() -> c_int {
    match last(|last| last.answer).flatten() {
        Some(LinuxDmabufAnswer::ProtocolError(code)) => c_int::try_from(code).unwrap_or(-1),
        _ => -1,
    }
}
