//! # Access by the CPU

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use primeshare::sync::{BufferAccess, BufferMapping};

use crate::arguments::{out, timeout};
use crate::buffer::primeshare_buffer;
use crate::failure::{Failure, call};
use crate::fence::access;
use crate::object::{Object, give_exclusive, of, of_mut, take_exclusive};

/// A buffer in the address space of the process. It belongs to one thread at a time.
pub struct primeshare_mapping {
    // Before the mapping, which it borrows.
    access: Option<BufferAccess<'static>>,
    mapping: Box<BufferMapping>,
    is_writable: bool,
}

impl Object for primeshare_mapping {
    const NAME: &'static str = "primeshare_mapping";
}

/// Where a plane is mapped.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_mapped_plane {
    /// Its first row. To be written only during an access that writes.
    pub data: *mut c_void,
    /// From row to row, in bytes.
    pub stride: usize,
    /// The bytes of a row that are pixels.
    pub row_bytes: usize,
    /// Its rows.
    pub rows: usize,
}

/// Maps a buffer, for reading only if `read_only`. Linear buffers only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_mapping_create(
    buffer: Option<&primeshare_buffer>,
    read_only: bool,
    mapping: Option<&mut MaybeUninit<*mut primeshare_mapping>>,
) -> c_int {
    call(c"primeshare_mapping_create", || {
        let buffer = of(buffer, "buffer")?;
        let place = out(mapping, "mapping")?;
        let mapping = match read_only {
            true => BufferMapping::read_only(&buffer.0)?,
            false => BufferMapping::new(&buffer.0)?,
        };
        place.write(give_exclusive(primeshare_mapping {
            access: None,
            mapping: Box::new(mapping),
            is_writable: false,
        }));
        Ok(())
    })
}

/// Ends an access that is under way, and unmaps the buffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_mapping_destroy(mapping: *mut primeshare_mapping) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(mapping) });
}

/// Begins an access (PRIMESHARE_ACCESS_*): waits for the GPUs that work on the buffer, at most `timeout_ns`
/// nanoseconds (negative: without end), and makes caches coherent (DMA_BUF_IOCTL_SYNC). -EBUSY: one is under way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_mapping_begin_wait(
    mapping: Option<&mut primeshare_mapping>,
    access_kind: u32,
    timeout_ns: i64,
) -> c_int {
    call(c"primeshare_mapping_begin_wait", || {
        let mapping = of_mut(mapping, "mapping")?;
        let kind = access(access_kind)?;
        if mapping.access.is_some() {
            let message = "an access to the mapping is under way";
            return Err(Failure::new(
                primeshare::ErrorKind::Busy,
                primeshare::Errno::EBUSY,
                message,
            ));
        }
        let begun = mapping.mapping.begin_wait(kind, timeout(timeout_ns))?;
        // SAFETY: the mapping is boxed, so it stays where it is, and outlives the access: nobody uses it while there
        // is one, and it is dropped later.
        let begun =
            unsafe { std::mem::transmute::<BufferAccess<'_>, BufferAccess<'static>>(begun) };
        mapping.access = Some(begun);
        mapping.is_writable = kind != primeshare::sync::Access::Read;
        Ok(())
    })
}

/// Writes where a plane is, during an access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_mapping_get_plane(
    mapping: Option<&mut primeshare_mapping>,
    plane: u32,
    mapped: Option<&mut MaybeUninit<primeshare_mapped_plane>>,
) -> c_int {
    call(c"primeshare_mapping_get_plane", || {
        let mapping = of_mut(mapping, "mapping")?;
        let mapped = out(mapped, "mapped")?;
        let is_writable = mapping.is_writable;
        let access = mapping.access.as_mut();
        let access =
            access.ok_or_else(|| Failure::invalid("no access to the mapping is under way"))?;
        let plane = plane as usize;
        let found = match is_writable {
            true => {
                let mut found = access.plane_mut(plane)?;
                let data = found.row(0).map(|mut row| row.as_mut_ptr());
                let shape = found.as_plane();
                (data, shape.stride(), shape.row_bytes(), shape.height())
            }
            false => {
                let found = access.plane(plane)?;
                let data = found.row(0).map(|row| row.as_ptr().cast_mut());
                (data, found.stride(), found.row_bytes(), found.height())
            }
        };
        mapped.write(primeshare_mapped_plane {
            data: found.0.map_or(std::ptr::null_mut(), |data| data.cast()),
            stride: found.1,
            row_bytes: found.2,
            rows: found.3,
        });
        Ok(())
    })
}

/// Ends the access: what was written can be seen by devices from now on. The pointers are not to be used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_mapping_end(mapping: Option<&mut primeshare_mapping>) -> c_int {
    call(c"primeshare_mapping_end", || {
        let access = of_mut(mapping, "mapping")?.access.take();
        let access =
            access.ok_or_else(|| Failure::invalid("no access to the mapping is under way"))?;
        Ok(access.end()?)
    })
}
