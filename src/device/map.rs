//! A device's own view of its dumb buffers. Tests compare it with what the dma-buf shows.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;

use nix::sys::mman::ProtFlags;

use super::{Device, Error};
use crate::Errno;
use crate::gem::{self, Object};
use crate::sys::map::Map;

/// A dumb buffer's memory, mapped for reading through its own device (MODE_MAP_DUMB and `mmap` of
/// the device fd).
///
/// This is the device's own view of its memory, independent of any dma-buf. For buffers of other
/// devices, and for CPU access that is ordered with devices, map the dma-buf:
/// [`sync::Mapping`](crate::sync::Mapping).
#[derive(Debug)]
pub struct DumbMapping {
    map: Map,
    /// The kernel allows the mapping by the handle, so the handle outlives it.
    _object: Object,
}

impl Device {
    /// Maps the first `length` bytes of a dumb buffer of this device.
    ///
    /// EINVAL for objects that were imported from another driver.
    pub fn map_dumb(&self, object: &Object, length: NonZeroUsize) -> Result<DumbMapping, Error> {
        if !object.handles().is(self.handles()) {
            return Err(Error::WrongDevice {
                device: self.to_string(),
            });
        }
        let failed = |errno| match errno {
            Errno::ENODEV if gem::is_lost(self.as_fd()) => Error::Gem(gem::Error::Lost {
                device: self.to_string(),
            }),
            _ => Error::Map {
                device: self.to_string(),
                handle: object.handle().raw(),
                length: length.get(),
                errno,
            },
        };
        let offset = object.map_offset()?;
        let map = Map::new(self.as_fd(), offset, length, ProtFlags::PROT_READ).map_err(failed)?;
        Ok(DumbMapping {
            map,
            _object: object.clone(),
        })
    }
}

impl DumbMapping {
    /// Copies bytes out, from `offset` on. `None` if they reach past the end of the mapping: nothing is copied
    /// then.
    #[must_use]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        self.map.read(offset, into)
    }
}
