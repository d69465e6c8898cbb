//! From a GEM object to a dma-buf that can be given away.

use std::os::fd::OwnedFd;

use arrayvec::ArrayVec;

use crate::buffer::{self, DmaBuf, Layout, MAX_PLANES, PlaneFd};
use crate::gem::{self, Object};

/// Why a GEM object could not be exported as a [`DmaBuf`]. Nothing was leaked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Gem(#[from] gem::Error),
    /// A second fd for a further plane could not be made.
    #[error("cannot duplicate the dma-buf fd: {0}")]
    Duplicate(nix::errno::Errno),
    /// The planes do not fit the dma-buf.
    #[error(transparent)]
    Layout(#[from] buffer::Error),
}

/// Exports a GEM object that holds all planes of a picture; each plane is its offset and stride
/// in bytes.
///
/// The buffer keeps the object, so that an import on the same file description finds it
/// ([`gem::Found::SelfImport`]) without a system call.
pub fn export(
    object: &Object,
    layout: Layout,
    planes: impl IntoIterator<Item = (u32, u32)>,
) -> Result<DmaBuf, Error> {
    let (fd, _) = object.export()?;
    describe(fd, layout, planes, Some(Box::new(object.clone())))
}

/// Describes one dma-buf that holds all planes of a picture.
pub(crate) fn describe(
    fd: OwnedFd,
    layout: Layout,
    planes: impl IntoIterator<Item = (u32, u32)>,
    keep: Option<Box<dyn std::any::Any + Send + Sync>>,
) -> Result<DmaBuf, Error> {
    let places: Vec<(u32, u32)> = planes.into_iter().collect();
    let mut fds = ArrayVec::<PlaneFd, MAX_PLANES>::new();
    let spares = places.len().saturating_sub(1).min(MAX_PLANES - 1);
    for &(offset, stride) in &places[..spares] {
        let fd = fd
            .try_clone()
            .map_err(|error| Error::Duplicate(crate::sys::errno(error)))?;
        fds.push(PlaneFd { fd, offset, stride });
    }
    if let Some(&(offset, stride)) = places.get(spares) {
        fds.push(PlaneFd { fd, offset, stride });
    }
    if fds.len() != places.len() {
        return Err(buffer::Error::PlaneCount(places.len()).into());
    }
    Ok(DmaBuf::with_keep(layout, fds, keep)?)
}
