//! # Devices
//!
//! A device is one open file description of a DRM node, with one table of GEM handles.

use std::ffi::{CString, OsStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use primeshare::Device;
use primeshare::buffer::WeakPerBuffer;
use primeshare::device::{self, NodeKind};

use crate::arguments::{Growing, dup, fd, fill, out, room, text};
use crate::failure::{Failure, call};
use crate::object::{Object, give, of, reference, unreference};
use crate::table::primeshare_import;

/// An open DRM device. All calls are thread-safe.
pub struct primeshare_device {
    pub(crate) device: Device,
    driver: CString,
    path: CString,
    /// What is imported here, so that the same import is one object.
    pub(crate) imports: WeakPerBuffer<primeshare_import, Failure>,
}

impl Object for primeshare_device {
    const NAME: &'static str = "primeshare_device";
}

impl From<Device> for primeshare_device {
    fn from(device: Device) -> Self {
        let driver = CString::new(device.driver()).unwrap_or_default();
        let path = device.node().path.as_os_str().as_bytes();
        let path = CString::new(path).unwrap_or_default();
        Self {
            driver,
            path,
            device,
            imports: WeakPerBuffer::new(),
        }
    }
}

fn give_device(device: Device) -> *mut primeshare_device {
    give(Arc::new(primeshare_device::from(device)))
}

/// Opens a DRM node, "/dev/dri/card0" or "/dev/dri/renderD128": a file description of the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_open(
    path: *const c_char,
    device: Option<&mut MaybeUninit<*mut primeshare_device>>,
) -> c_int {
    call(c"primeshare_device_open", || {
        // SAFETY: as the header asks.
        let path = unsafe { text(path, "path") }?;
        let device = out(device, "device")?;
        device.write(give_device(Device::open(OsStr::from_bytes(
            path.to_bytes(),
        ))?));
        Ok(())
    })
}

/// The device of an fd of the program's, on the same file description: handles of the library are valid there, and
/// the program and the library share one table. All devices of one file description share it, too.
///
/// Only for programs whose GEM handles all go through the library. Beside other code that imports, exports or closes
/// handles on that file description (gbm, EGL, a Vulkan driver, the program's own ioctls), use
/// primeshare_device_private_copy_of. Borrows the fd and keeps a dup.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_from_fd(
    drm_fd: c_int,
    device: Option<&mut MaybeUninit<*mut primeshare_device>>,
) -> c_int {
    call(c"primeshare_device_from_fd", || {
        let drm_fd = fd(drm_fd, "drm_fd")?;
        let device = out(device, "device")?;
        device.write(give_device(Device::from_fd(dup(drm_fd)?)?));
        Ok(())
    })
}

/// The device of an fd of the program's, on a new file description, beside whatever works on the program's. Borrows
/// the fd.
///
/// The kernel's rights (DRM master, authentication) stay with the program's file description; framebuffers that the
/// library makes on its own can be shown by the program's commits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_private_copy_of(
    drm_fd: c_int,
    device: Option<&mut MaybeUninit<*mut primeshare_device>>,
) -> c_int {
    call(c"primeshare_device_private_copy_of", || {
        let drm_fd = fd(drm_fd, "drm_fd")?;
        let device = out(device, "device")?;
        device.write(give_device(Device::private_copy_of(drm_fd)?));
        Ok(())
    })
}

/// Opens the device with this number (dev_t), such as a linux-dmabuf feedback names. -ENOENT if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_find(
    device_number: u64,
    device: Option<&mut MaybeUninit<*mut primeshare_device>>,
) -> c_int {
    call(c"primeshare_device_find", || {
        let device = out(device, "device")?;
        device.write(give_device(Device::find(device_number)?));
        Ok(())
    })
}

/// Opens all DRM nodes of the system that can be opened, and writes as many as there is room for. Sets `count` to the
/// number of devices that were opened, which may be more: those are closed again. Nodes that cannot be opened are
/// logged and left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_open_all(
    devices: *mut *mut primeshare_device,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    call(c"primeshare_device_open_all", || {
        // SAFETY: as the header asks.
        let devices = unsafe { room(devices, capacity, "devices") }?;
        let count = out(count, "count")?;
        let (opened, errors) = device::open_all()?;
        for error in errors {
            log::info!("left out: {error}");
        }
        count.write(opened.len());
        for (place, device) in devices.iter_mut().zip(opened) {
            place.write(give_device(device));
        }
        Ok(())
    })
}

/// Adds a reference, and returns the device. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_ref(
    device: *const primeshare_device,
) -> *mut primeshare_device {
    // SAFETY: as the header asks.
    unsafe { reference(device) }
}

/// Takes a reference back. The device is closed with the last one, and with the last buffer, import or other object
/// that was made on it. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_unref(device: *mut primeshare_device) {
    // SAFETY: as the header asks.
    unsafe { unreference(device) }
}

/// The fd, which stays the library's: for ioctls with handles of the library. -EINVAL if `device` is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_device_fd(device: Option<&primeshare_device>) -> c_int {
    crate::failure::value(c"primeshare_device_fd", || {
        Ok(of(device, "device")?.device.as_fd().as_raw_fd())
    })
}

/// The name of the kernel's driver, "amdgpu"; NULL if `device` is NULL. Lives as long as the device.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_device_driver(device: Option<&primeshare_device>) -> *const c_char {
    let device = of(device, "device");
    device.map_or(std::ptr::null(), |device| device.driver.as_ptr())
}

/// The path of the node, "/dev/dri/card0"; NULL if `device` is NULL. Lives as long as the device.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_device_path(device: Option<&primeshare_device>) -> *const c_char {
    let device = of(device, "device");
    device.map_or(std::ptr::null(), |device| device.path.as_ptr())
}

/// What there is to know about a device.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_device_info {
    /// sizeof(struct primeshare_device_info)
    pub size: usize,
    /// The number of the node (dev_t). A GPU has two, one of its primary and one of its render node.
    pub device_number: u64,
    /// The same for all nodes of a device, and different for different devices.
    pub key: u64,
    /// 1 if it is a render node.
    pub is_render_node: i32,
    /// 1 if it makes dumb buffers.
    pub dumb: i32,
    /// Whether it exports dma-bufs: 1 or 0, or -1 if that could not be found out.
    pub exports: i32,
    /// Whether it imports dma-bufs: 1 or 0, or -1 if that could not be found out.
    pub imports: i32,
    /// Whether it imports memory that is not contiguous: 1 or 0, or -1 if that could not be found out.
    pub imports_scattered: i32,
}

// SAFETY: repr(C), the size first, numbers only.
unsafe impl Growing for primeshare_device_info {
    const NAME: &'static str = "primeshare_device_info";
}

fn number(answer: Option<bool>) -> i32 {
    answer.map_or(-1, i32::from)
}

/// Fills in what there is to know about a device. Finds it out by trying; the answer is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_get_info(
    device: Option<&primeshare_device>,
    info: *mut primeshare_device_info,
) -> c_int {
    call(c"primeshare_device_get_info", || {
        let device = &of(device, "device")?.device;
        let capabilities = device.capabilities()?;
        let value = primeshare_device_info {
            size: 0,
            device_number: device.node().id.dev_t(),
            key: device.key()?.0,
            is_render_node: i32::from(device.node().kind == NodeKind::Render),
            dumb: i32::from(capabilities.dumb),
            exports: number(capabilities.export),
            imports: number(capabilities.import),
            imports_scattered: number(capabilities.import_scattered),
        };
        // SAFETY: as the header asks.
        unsafe { fill(info, "info", value) }
    })
}

/// Whether two devices are one: nodes and file descriptions of the same hardware. `false` if one is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_device_is_same(
    device: Option<&primeshare_device>,
    other: Option<&primeshare_device>,
) -> bool {
    match (of(device, "device"), of(other, "other")) {
        (Ok(device), Ok(other)) => device.device.is_same_device(&other.device),
        _ => false,
    }
}

/// What the handle table of a device has done, since its file description is known to the library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_table_statistics {
    /// sizeof(struct primeshare_table_statistics)
    pub size: usize,
    /// Open handles.
    pub handles: u64,
    /// Imports of what was imported already, without a system call.
    pub hits: u64,
    /// Calls of PRIME_FD_TO_HANDLE.
    pub imports: u64,
    /// Calls of PRIME_HANDLE_TO_FD.
    pub exports: u64,
    /// Calls of GEM_CLOSE.
    pub closes: u64,
    /// Those that failed.
    pub failed_closes: u64,
    /// Imports that met a handle on its way to be closed, and kept it.
    pub resurrected: u64,
}

// SAFETY: repr(C), the size first, numbers only.
unsafe impl Growing for primeshare_table_statistics {
    const NAME: &'static str = "primeshare_table_statistics";
}

/// Fills in what the handle table has done: for tests and debugging.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_device_get_statistics(
    device: Option<&primeshare_device>,
    statistics: *mut primeshare_table_statistics,
) -> c_int {
    call(c"primeshare_device_get_statistics", || {
        let stats = of(device, "device")?.device.stats();
        let value = primeshare_table_statistics {
            size: 0,
            handles: stats.handles as u64,
            hits: stats.hits,
            imports: stats.imports,
            exports: stats.exports,
            closes: stats.closes,
            failed_closes: stats.failed_closes,
            resurrected: stats.resurrected,
        };
        // SAFETY: as the header asks.
        unsafe { fill(statistics, "statistics", value) }
    })
}

/// Writes the key of the device that a number (dev_t) is of: nodes of one device have equal keys. A number
/// of which nothing is known has a key of its own.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_device_key_of(
    device_number: u64,
    key: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(c"primeshare_device_key_of", || {
        out(key, "key")?.write(device::key_of(device_number)?.0);
        Ok(())
    })
}
