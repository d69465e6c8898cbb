//! What is wrong with lists of formats.

use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a list of formats from outside could not be read, or one of our own not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An IN_FORMATS blob of another version (1 is the only one so far).
    #[error("IN_FORMATS blob of version {0}")]
    BlobVersion(u32),
    /// A part of an IN_FORMATS blob is not all inside it.
    #[error("IN_FORMATS: {count} {part} at byte {offset} are not all in a blob of {size} bytes")]
    BlobBounds {
        /// `header`, `formats` or `modifiers`.
        part: &'static str,
        /// How many there should be.
        count: u32,
        /// Where they should begin.
        offset: u32,
        /// Bytes of the blob.
        size: usize,
    },
    /// A modifier of an IN_FORMATS blob is for a format that the blob does not have.
    #[error("IN_FORMATS: modifier {modifier} is for format {format} of {count}")]
    BlobFormat {
        /// Which modifier.
        modifier: usize,
        /// Which format.
        format: u64,
        /// How many there are.
        count: u32,
    },
    /// A dma-buf feedback format table whose size is not a number of entries of 16 bytes.
    #[error("a format table of {0} bytes, which is no multiple of 16")]
    TableSize(usize),
    /// More entries than indices of 16 bits can name.
    #[error("a format table of {0} entries, more than 65536")]
    TableTooLong(usize),
    /// Indices of a tranche of an odd number of bytes.
    #[error("tranche indices of {0} bytes, which is no multiple of 2")]
    IndicesSize(usize),
    /// Before version 6 of linux-dmabuf, clients need a main device.
    #[error("version {0} of linux-dmabuf needs a main device")]
    NoMainDevice(u32),
    /// From version 6 of linux-dmabuf on, every tranche has a flag.
    #[error("tranche {0} has no flag")]
    NoFlags(usize),
    /// From version 6 of linux-dmabuf on, one tranche at least is for sampling.
    #[error("no tranche is for sampling")]
    NoSampling,
    /// An index past the end of the format table.
    #[error("tranche index {index} into a format table of {entries} entries")]
    Index {
        /// The index.
        index: u16,
        /// Entries there are.
        entries: usize,
    },
    /// A device of another size than a `dev_t`.
    #[error("a device number of {0} bytes, not 8")]
    DeviceSize(usize),
}

impl Error {
    /// What can be done about it: they are all of what was passed in.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// None: no system call was made.
    pub fn errno(&self) -> Option<Errno> {
        None
    }
}

into_io_error!(Error);
