//! GEM handles of one open file description, held once and closed once.
//!
//! This is the only place that calls PRIME_FD_TO_HANDLE, PRIME_HANDLE_TO_FD and GEM_CLOSE. The
//! kernel does not count handles: importing a dma-buf that a file description already knows
//! returns the *same* handle, and one GEM_CLOSE ends it for every user of that file description
//! (`drm_gem_prime_fd_to_handle`, `drm_gem_handle_delete`). So the counting is done here.

mod error;
mod object;
mod registry;
mod table;

pub use error::Error;
pub use object::{Handle, Object};
pub use table::{Found, Stats};

pub(crate) use registry::{table_of, table_of_new};
pub(crate) use table::Table;

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use crate::sys;

/// Exports always ask for both: the first export of an object fixes its dma-buf's access mode
/// for good, and without `DRM_RDWR` nobody can ever map it for writing.
const EXPORT_FLAGS: u32 = (libc::O_CLOEXEC | libc::O_RDWR) as u32;

/// Exports a handle that somebody else owns on a file description of their own, as Mesa does
/// behind gbm.
///
/// The handle must stay open for the call; it is neither counted nor closed here.
pub(crate) fn export_unowned(device: BorrowedFd<'_>, handle: u32) -> Result<OwnedFd, Error> {
    let prime =
        sys::retry(|| drm_ffi::gem::handle_to_fd(device, handle, EXPORT_FLAGS).map_err(sys::errno))
            .map_err(|errno| Error::Export { handle, errno })?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
}
