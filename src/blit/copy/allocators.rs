//! The gbm allocator, which the library may have been built without.

use crate::alloc::{self, Allocator};
use crate::device::Device;

/// The gbm allocator of a device. Without the feature `gbm`, an error that says so.
#[cfg(feature = "gbm")]
pub(super) fn gbm(device: &Device) -> Result<Box<dyn Allocator>, alloc::Error> {
    Ok(Box::new(crate::gbm::Gbm::new(device)?))
}

/// The gbm allocator of a device. Without the feature `gbm`, an error that says so.
#[cfg(not(feature = "gbm"))]
pub(super) fn gbm(_: &Device) -> Result<Box<dyn Allocator>, alloc::Error> {
    /// The error.
    #[derive(Debug, thiserror::Error)]
    #[error("built without the feature \"gbm\"")]
    struct NotBuilt;
    let unsupported = crate::ErrorKind::Unsupported;
    Err(alloc::Error::of_allocator(
        "gbm",
        unsupported,
        None,
        NotBuilt,
    ))
}
