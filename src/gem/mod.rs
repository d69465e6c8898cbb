//! GEM handles of one open file description, held once and closed once.
//!
//! This is the only place that calls PRIME_FD_TO_HANDLE, PRIME_HANDLE_TO_FD and GEM_CLOSE. The
//! kernel does not count handles: importing a dma-buf that a file description already knows
//! returns the *same* handle, and one GEM_CLOSE ends it for every user of that file description
//! (`drm_gem_prime_fd_to_handle`, `drm_gem_handle_delete`). So the counting is done here.

mod error;
mod index;
mod kernel;
#[cfg(test)]
mod model;
#[cfg(all(test, loom))]
mod models;
mod object;
mod quirks;
mod registry;
mod released;
mod shared;
#[cfg(all(test, not(loom)))]
mod stress;
mod table;

pub use error::Error;
pub use object::{Handle, Object};
pub use released::Released;
pub use table::{ImportOrigin, Stats};

pub(crate) use kernel::is_lost;
pub(crate) use object::Handles;
pub(crate) use registry::{handles_of, handles_of_new};

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::Errno;
use crate::sys;

/// Exports a handle that somebody else owns on a file description of their own, as Mesa does
/// behind gbm. `name` is the device's, for the error.
///
/// The handle must stay open for the call; it is neither counted nor closed here.
pub(crate) fn export_unowned(
    device: BorrowedFd<'_>,
    name: &str,
    handle: u32,
) -> Result<OwnedFd, Error> {
    sys::drm::handle_to_fd(device, handle).map_err(|errno| {
        let name = name.to_owned();
        match errno {
            Errno::ENODEV if is_lost(device) => Error::Lost { device: name },
            _ => Error::Export {
                device: name,
                handle,
                errno,
            },
        }
    })
}
