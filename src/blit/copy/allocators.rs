//! The allocator that the library may have been built without.

use crate::alloc::{self, Allocator};
use crate::device::Device;

/// gbm on the device; without the feature, an error that says so.
#[cfg(feature = "gbm")]
pub(super) fn gbm(device: &Device) -> Result<Box<dyn Allocator>, alloc::Error> {
    Ok(Box::new(crate::gbm::Gbm::new(device)?))
}

/// gbm on the device; without the feature, an error that says so.
#[cfg(not(feature = "gbm"))]
pub(super) fn gbm(_: &Device) -> Result<Box<dyn Allocator>, alloc::Error> {
    /// What is said instead.
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
