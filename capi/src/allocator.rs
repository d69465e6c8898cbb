//! # Allocation

use std::ffi::{CString, OsStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use primeshare::alloc::{DmaHeap, Dumb, Udmabuf};
use primeshare::buffer::Usage;
use primeshare::{Allocator, Fourcc, Request};

use crate::arguments::{Growing, out, required, text};
use crate::buffer::{give_buffer, modifiers, primeshare_buffer};
use crate::device::primeshare_device;
use crate::failure::{Failure, call};
use crate::object::{Object, give, of, reference, unreference};

/// The buffer is drawn into.
pub const PRIMESHARE_USAGE_RENDER: u32 = 1;
/// It is sampled as a texture.
pub const PRIMESHARE_USAGE_SAMPLE: u32 = 2;
/// It is read and written in shaders.
pub const PRIMESHARE_USAGE_STORE: u32 = 4;
/// It is copied from.
pub const PRIMESHARE_USAGE_COPY_FROM: u32 = 8;
/// It is copied into.
pub const PRIMESHARE_USAGE_COPY_TO: u32 = 16;
/// It is shown on a screen.
pub const PRIMESHARE_USAGE_SCANOUT: u32 = 32;
/// The CPU reads or writes it.
pub const PRIMESHARE_USAGE_MAP: u32 = 64;

pub(crate) fn usage(bits: u32) -> Result<Usage, Failure> {
    let usage = Usage::from_bits(bits);
    usage.ok_or_else(|| {
        Failure::invalid(format!("there is a usage in {bits:#x} that has no meaning"))
    })
}

/// What to allocate.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_request {
    /// sizeof(struct primeshare_request)
    pub size: usize,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// DRM_FORMAT_* of drm_fourcc.h.
    pub format: u32,
    /// PRIMESHARE_USAGE_*
    pub usage: u32,
    /// The modifiers to choose from. DRM_FORMAT_MOD_INVALID among them leaves the layout to the driver. NULL: linear.
    pub modifiers: *const u64,
    /// How many.
    pub modifier_count: usize,
}

// SAFETY: repr(C), the size first, numbers and a pointer that may be NULL.
unsafe impl Growing for primeshare_request {
    const NAME: &'static str = "primeshare_request";
}

impl primeshare_request {
    /// # Safety
    /// Its modifiers are as many as it says.
    pub(crate) unsafe fn read(&self) -> Result<Request, Failure> {
        let request = Request::new(self.width, self.height, Fourcc(self.format));
        let request = request.usage(usage(self.usage)?);
        if self.modifier_count == 0 {
            return Ok(request);
        }
        // SAFETY: as the caller promises.
        let modifiers = unsafe { modifiers(self.modifiers, self.modifier_count) }?;
        Ok(request.modifiers(modifiers))
    }
}

/// What allocates buffers. All calls are thread-safe.
pub struct primeshare_allocator {
    pub(crate) allocator: Arc<dyn Allocator>,
    name: CString,
}

impl Object for primeshare_allocator {
    const NAME: &'static str = "primeshare_allocator";
}

pub(crate) fn give_allocator(allocator: impl Allocator + 'static) -> *mut primeshare_allocator {
    let name = CString::new(allocator.name()).unwrap_or_default();
    let allocator = Arc::new(allocator);
    give(Arc::new(primeshare_allocator { allocator, name }))
}

/// Allocates dumb buffers of a device: linear, for the CPU and the screen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_create_dumb(
    device: Option<&primeshare_device>,
    allocator: Option<&mut MaybeUninit<*mut primeshare_allocator>>,
) -> c_int {
    call(c"primeshare_allocator_create_dumb", || {
        let device = of(device, "device")?;
        out(allocator, "allocator")?.write(give_allocator(Dumb::new(&device.device)));
        Ok(())
    })
}

/// Allocates memory of the process as dma-bufs (/dev/udmabuf): linear, of no device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_create_udmabuf(
    allocator: Option<&mut MaybeUninit<*mut primeshare_allocator>>,
) -> c_int {
    call(c"primeshare_allocator_create_udmabuf", || {
        out(allocator, "allocator")?.write(give_allocator(Udmabuf::open()?));
        Ok(())
    })
}

/// Allocates from a dma-buf heap, "/dev/dma_heap/system"; NULL is that one. Linear, of no device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_create_dma_heap(
    path: *const c_char,
    allocator: Option<&mut MaybeUninit<*mut primeshare_allocator>>,
) -> c_int {
    call(c"primeshare_allocator_create_dma_heap", || {
        let allocator = out(allocator, "allocator")?;
        let heap = match path.is_null() {
            true => DmaHeap::system(),
            // SAFETY: as the header asks.
            false => DmaHeap::open(OsStr::from_bytes(unsafe { text(path, "path") }?.to_bytes())),
        };
        allocator.write(give_allocator(heap?));
        Ok(())
    })
}

/// Adds a reference, and returns the allocator. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_ref(
    allocator: *const primeshare_allocator,
) -> *mut primeshare_allocator {
    // SAFETY: as the header asks.
    unsafe { reference(allocator) }
}

/// Takes a reference back. Buffers outlive their allocator. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_unref(allocator: *mut primeshare_allocator) {
    // SAFETY: as the header asks.
    unsafe { unreference(allocator) }
}

/// Its name, for people; NULL if `allocator` is NULL. Lives as long as the allocator.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_allocator_name(
    allocator: Option<&primeshare_allocator>,
) -> *const c_char {
    let allocator = of(allocator, "allocator");
    allocator.map_or(std::ptr::null(), |allocator| allocator.name.as_ptr())
}

/// Allocates a buffer. Its memory is not defined, and its modifier is one of those that were asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_allocator_allocate(
    allocator: Option<&primeshare_allocator>,
    request: *const primeshare_request,
    buffer: Option<&mut MaybeUninit<*mut primeshare_buffer>>,
) -> c_int {
    call(c"primeshare_allocator_allocate", || {
        let allocator = of(allocator, "allocator")?;
        let buffer = out(buffer, "buffer")?;
        // SAFETY: as the header asks.
        let request = unsafe { required(request, "request")?.read() }?;
        buffer.write(give_buffer(allocator.allocator.allocate(&request)?));
        Ok(())
    })
}
