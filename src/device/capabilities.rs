//! What a device can do, found by trying. A lack of memory or of fds is an error here and never an answer.

use std::os::fd::{AsFd, OwnedFd};

use super::{Device, Error};
use crate::Errno;
use crate::buffer::BufferId;
use crate::gem;
use crate::sys::{self, udmabuf};

/// What a device can do, by trying it. `DRM_CAP_PRIME` and `DRM_CAP_DUMB_BUFFER` are not
/// asked: drivers answer them wrongly in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Dumb buffers can be made on this node.
    pub dumb: bool,
    /// Its objects can be exported. `None` if there was no object to try with.
    pub export: Option<bool>,
    /// It imports memory that belongs to no device (from udmabuf). `None` if the machine has no such memory.
    pub import: Option<bool>,
    /// It imports memory whose pages do not follow each other, as that of most GPUs. Display controllers without an
    /// IOMMU do not. `None` if it imports nothing, or the machine has no such memory to offer.
    pub import_scattered: Option<bool>,
}

pub(super) fn probe(device: &Device) -> Result<Capabilities, Error> {
    let handles = device.handles();
    let dumb = answer(handles.create_dumb(64, 64, 32))?;
    let export = match &dumb {
        Some((object, _)) => Some(answer(object.export())?.is_some()),
        None => None,
    };
    let imports = |memory: Result<(OwnedFd, BufferId), Errno>| match memory {
        Ok((fd, id)) => Ok(Some(answer(handles.import(fd.as_fd(), id))?.is_some())),
        Err(errno) if sys::is_transient(errno) => Err(Error::Probe {
            device: device.to_string(),
            errno,
        }),
        Err(_) => Ok(None),
    };
    let import = imports(system_memory())?;
    let import_scattered = match import {
        // Whichever order the two pages have in memory, one of the buffers is not contiguous.
        Some(true) => match [imports(two_pages([0, 1]))?, imports(two_pages([1, 0]))?] {
            [Some(one), Some(other)] => Some(one && other),
            _ => None,
        },
        _ => None,
    };
    Ok(Capabilities {
        dumb: dumb.is_some(),
        export,
        import,
        import_scattered,
    })
}

/// What an attempt says of the device. An error if it says nothing.
fn answer<T>(attempt: Result<T, gem::Error>) -> Result<Option<T>, gem::Error> {
    use gem::Error::{CreateDumb, Export, Import};
    match attempt {
        Ok(done) => Ok(Some(done)),
        Err(CreateDumb { errno, .. } | Export { errno, .. } | Import { errno, .. })
            if !sys::is_transient(errno) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A small dma-buf that belongs to no device.
fn system_memory() -> Result<(OwnedFd, BufferId), Errno> {
    let size = udmabuf::page_size();
    let memory = udmabuf::memory(size)?;
    let fd = udmabuf::create(udmabuf::open()?.as_fd(), memory.as_fd(), 0, size)?;
    let id = BufferId::of(&fd)?;
    Ok((fd, id))
}

/// A dma-buf of two pages of one memory, in this order.
fn two_pages(pages: [u64; 2]) -> Result<(OwnedFd, BufferId), Errno> {
    let memory = udmabuf::memory(2 * udmabuf::page_size())?;
    let fd = udmabuf::create_of_pages(udmabuf::open()?.as_fd(), memory.as_fd(), pages)?;
    let id = BufferId::of(&fd)?;
    Ok((fd, id))
}
