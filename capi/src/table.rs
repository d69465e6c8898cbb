//! # Handle table
//!
//! A GEM object has one handle on a file description, however often it is imported, and the handle is closed when the
//! last user of the object goes. Programs must not close a handle of the library with GEM_CLOSE.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;

use primeshare::buffer::Refusal;
use primeshare::gem::{self, ImportOrigin};
use primeshare::import::Imported;

use crate::arguments::{fd, out, room, write};
use crate::buffer::{primeshare_buffer, primeshare_buffer_id};
use crate::device::primeshare_device;
use crate::failure::{Failure, call};
use crate::object::{Object, give, of, reference, unreference};

/// What an import met.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum primeshare_import_origin {
    /// The object is new on this file description.
    PRIMESHARE_IMPORT_NEW = 0,
    /// The same dma-buf is imported there already.
    PRIMESHARE_IMPORT_ALREADY_IMPORTED = 1,
    /// The library allocated the object there: it has come back. Of adopted objects it does not know where they are
    /// from, and says PRIMESHARE_IMPORT_ALREADY_IMPORTED.
    PRIMESHARE_IMPORT_SELF = 2,
}

impl From<ImportOrigin> for primeshare_import_origin {
    fn from(origin: ImportOrigin) -> Self {
        match origin {
            ImportOrigin::New => Self::PRIMESHARE_IMPORT_NEW,
            ImportOrigin::AlreadyImported => Self::PRIMESHARE_IMPORT_ALREADY_IMPORTED,
            ImportOrigin::SelfImport => Self::PRIMESHARE_IMPORT_SELF,
        }
    }
}

/// A GEM object on a device. Its handle is valid on the file description of the device, as long as the object lives.
/// All calls are thread-safe.
pub struct primeshare_object(gem::Object);

impl Object for primeshare_object {
    const NAME: &'static str = "primeshare_object";
}

/// Imports a dma-buf about which nothing else is known (PRIME_FD_TO_HANDLE). Borrows the fd. `origin` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_import_fd(
    device: Option<&primeshare_device>,
    dma_buf: c_int,
    object: Option<&mut MaybeUninit<*mut primeshare_object>>,
    origin: Option<&mut MaybeUninit<primeshare_import_origin>>,
) -> c_int {
    call(c"primeshare_device_import_fd", || {
        let device = of(device, "device")?;
        let object = out(object, "object")?;
        let (imported, met) = device.device.import_fd(fd(dma_buf, "dma_buf")?)?;
        object.write(give(Arc::new(primeshare_object(imported))));
        write(origin, met.into());
        Ok(())
    })
}

/// Makes the library the owner of a handle that the program got by itself, from a driver's ioctl for example: from
/// now on only the library closes it. After an error it is still the program's.
///
/// The handle must be open, and nobody else may close it. The handle is exported, once, to learn which dma-buf it is
/// of. Do not import a dma-buf by an ioctl to adopt its handle: use primeshare_device_import_fd.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_adopt(
    device: Option<&primeshare_device>,
    handle: u32,
    object: Option<&mut MaybeUninit<*mut primeshare_object>>,
) -> c_int {
    call(c"primeshare_device_adopt", || {
        let device = of(device, "device")?;
        let object = out(object, "object")?;
        object.write(give(Arc::new(primeshare_object(
            device.device.adopt(handle)?,
        ))));
        Ok(())
    })
}

/// Adds a reference, and returns the object. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_object_ref(
    object: *const primeshare_object,
) -> *mut primeshare_object {
    // SAFETY: as the header asks.
    unsafe { reference(object) }
}

/// Takes a reference back. The handle is closed with the last user of the object. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_object_unref(object: *mut primeshare_object) {
    // SAFETY: as the header asks.
    unsafe { unreference(object) }
}

/// The handle; 0, which is none, if `object` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_object_handle(object: Option<&primeshare_object>) -> u32 {
    of(object, "object").map_or(0, |object| object.0.handle().raw())
}

/// Exports an object as a dma-buf, readable and writable: `dma_buf` is a new fd, close-on-exec, and the program's.
/// An imported object gives its own dma-buf again. `id` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_object_export(
    object: Option<&primeshare_object>,
    dma_buf: Option<&mut MaybeUninit<c_int>>,
    id: Option<&mut MaybeUninit<primeshare_buffer_id>>,
) -> c_int {
    call(c"primeshare_object_export", || {
        let object = of(object, "object")?;
        let dma_buf = out(dma_buf, "dma_buf")?;
        let (exported, identity) = object.0.export()?;
        dma_buf.write(crate::arguments::give_fd(Some(exported)));
        write(id, identity.into());
        Ok(())
    })
}

/// A buffer on a device: a GEM handle for each plane, valid as long as the import lives. All calls are thread-safe.
pub struct primeshare_import(Imported);

impl Object for primeshare_import {
    const NAME: &'static str = "primeshare_import";
}

/// Imports a buffer. If the program has an import of the buffer on this device, this is the same one with one more
/// reference, and costs no system call and no allocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_import(
    device: Option<&primeshare_device>,
    buffer: Option<&primeshare_buffer>,
    import: Option<&mut MaybeUninit<*mut primeshare_import>>,
) -> c_int {
    call(c"primeshare_device_import", || {
        let device = of(device, "device")?;
        let buffer = &of(buffer, "buffer")?.0;
        let import = out(import, "import")?;
        let imported = device.imports.get_or_make(buffer, || {
            let imported = device.device.import(buffer);
            // Nothing is remembered of a failure: the kernel may change its mind.
            let imported = imported.map_err(|error| Refusal::Transient(error.into()))?;
            Ok(primeshare_import(imported))
        });
        let imported = imported.map_err(|failure| match Arc::try_unwrap(failure) {
            Ok(failure) => failure,
            // Another thread asked at the same time, and has the same failure.
            Err(shared) => Failure::new(shared.kind, shared.errno, shared.message.clone()),
        })?;
        import.write(give(imported));
        Ok(())
    })
}

/// Adds a reference, and returns the import. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_import_ref(
    import: *const primeshare_import,
) -> *mut primeshare_import {
    // SAFETY: as the header asks.
    unsafe { reference(import) }
}

/// Takes a reference back. The handles are closed with the last user of their objects. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_import_unref(import: *mut primeshare_import) {
    // SAFETY: as the header asks.
    unsafe { unreference(import) }
}

/// Writes the handle of each plane, and 0 past the last: as DRM_IOCTL_MODE_ADDFB2 takes them. Planes in one dma-buf
/// have one handle. `handles` has room for four. `origin`, which may be NULL, is what the import met of the
/// first plane's object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_import_get_handles(
    import: Option<&primeshare_import>,
    handles: *mut u32,
    origin: Option<&mut MaybeUninit<primeshare_import_origin>>,
) -> c_int {
    call(c"primeshare_import_get_handles", || {
        let import = &of(import, "import")?.0;
        // SAFETY: as the header asks.
        let room = unsafe { room(handles, 4, "handles") }?;
        for (place, handle) in room.iter_mut().zip(import.handles()) {
            place.write(handle.map_or(0, |handle| handle.raw()));
        }
        write(origin, import.origin().into());
        Ok(())
    })
}
