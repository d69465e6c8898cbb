//! From a GEM object to a dma-buf that can be given away, and to another process.

mod send;

pub use send::SendError;

use crate::buffer::{self, BufferDesc, DmaBuf};
use crate::gem::{self, Object};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a GEM object could not be exported as a [`DmaBuf`]. Nothing was leaked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Gem(#[from] gem::Error),
    /// The planes do not fit the dma-buf.
    #[error(transparent)]
    Layout(#[from] buffer::Error),
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Gem(error) => error.kind(),
            Self::Layout(error) => error.kind(),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Gem(error) => error.errno(),
            Self::Layout(error) => error.errno(),
        }
    }
}

into_io_error!(Error);

/// Exports a GEM object that holds all planes of a picture; each plane is its offset and stride
/// in bytes.
///
/// The buffer keeps the object, so that an import on the same file description finds it
/// ([`gem::ImportOrigin::SelfImport`]) without a system call.
pub fn export(
    object: &Object,
    layout: BufferDesc,
    planes: impl IntoIterator<Item = (u32, u32)>,
) -> Result<DmaBuf, Error> {
    let (fd, _) = object.export()?;
    let keep = Box::new(object.clone());
    Ok(DmaBuf::of_one(layout, fd, planes, Some(keep))?)
}
