//! # Buffers
//!
//! A buffer is one dma-buf or several, and what is in them. It says who it is: compare ids, never fds.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use primeshare::buffer::{BufferFlags, BufferId, PlaneRef};
use primeshare::{BufferDesc, DmaBuf, Fourcc, Modifier};

use crate::arguments::{Growing, array, fd, fill, out, required};
use crate::failure::{Failure, call};
use crate::object::{Object, give, of, reference, unreference};

/// The most planes that a buffer has.
pub const PRIMESHARE_MAX_PLANES: usize = 4;

/// The identity of a dma-buf: what fstat says of it. Equal for all fds of a dma-buf in all processes, as long as one
/// of them is open.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_buffer_id {
    /// st_dev
    pub device: u64,
    /// st_ino
    pub inode: u64,
}

impl From<BufferId> for primeshare_buffer_id {
    fn from(id: BufferId) -> Self {
        Self {
            device: id.dev_t(),
            inode: id.inode(),
        }
    }
}

/// Where a plane is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_plane {
    /// The dma-buf that it is in. Planes may share one.
    pub fd: c_int,
    /// Where it begins, in bytes.
    pub offset: u32,
    /// From row to row, in bytes.
    pub stride: u32,
}

/// What a buffer is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct primeshare_buffer_info {
    /// sizeof(struct primeshare_buffer_info)
    pub size: usize,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// DRM_FORMAT_* of drm_fourcc.h.
    pub format: u32,
    /// The bits of zwp_linux_buffer_params_v1.flags: y-inverted 1, interlaced 2, bottom field first 4.
    pub flags: u32,
    /// DRM_FORMAT_MOD_*. DRM_FORMAT_MOD_INVALID is a layout that only the driver that made it knows.
    pub modifier: u64,
    /// From 1 to 4.
    pub plane_count: u32,
    /// As many as that.
    pub planes: [primeshare_plane; PRIMESHARE_MAX_PLANES],
}

// SAFETY: repr(C), the size first, numbers only.
unsafe impl Growing for primeshare_buffer_info {
    const NAME: &'static str = "primeshare_buffer_info";
}

/// A buffer. All calls are thread-safe.
pub struct primeshare_buffer(pub(crate) DmaBuf);

impl Object for primeshare_buffer {
    const NAME: &'static str = "primeshare_buffer";
}

pub(crate) fn give_buffer(buffer: DmaBuf) -> *mut primeshare_buffer {
    give(Arc::new(primeshare_buffer(buffer)))
}

/// Makes a buffer of dma-bufs that came from outside. Trusts nothing: checks fds, sizes, offsets, strides and the
/// plane count. Borrows the fds and keeps a dup of each dma-buf.
///
/// If it fails, primeshare_last_error_linux_dmabuf says what a Wayland server answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_create(
    info: *const primeshare_buffer_info,
    buffer: Option<&mut MaybeUninit<*mut primeshare_buffer>>,
) -> c_int {
    call(c"primeshare_buffer_create", || {
        // SAFETY: as the header asks.
        let info = unsafe { required(info, "info") }?;
        let buffer = out(buffer, "buffer")?;
        let count = info.plane_count as usize;
        let planes = info.planes.get(..count);
        let planes = planes.ok_or(primeshare::buffer::Error::PlaneCount(count))?;
        let plane = |plane: &primeshare_plane| {
            Ok(PlaneRef {
                fd: fd(plane.fd, "fd of a plane")?,
                offset: plane.offset,
                stride: plane.stride,
            })
        };
        let planes: Vec<_> = planes.iter().map(plane).collect::<Result<_, Failure>>()?;
        let desc = BufferDesc::new(
            info.width,
            info.height,
            Fourcc(info.format),
            Modifier(info.modifier),
        );
        let desc = desc.with_flags(BufferFlags::from_bits_retain(info.flags));
        buffer.write(give_buffer(DmaBuf::from_borrowed(desc, planes)?));
        Ok(())
    })
}

/// Adds a reference, and returns the buffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_ref(
    buffer: *const primeshare_buffer,
) -> *mut primeshare_buffer {
    // SAFETY: as the header asks.
    unsafe { reference(buffer) }
}

/// Takes a reference back. The buffer's fds are closed with the last one. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_unref(buffer: *mut primeshare_buffer) {
    // SAFETY: as the header asks.
    unsafe { unreference(buffer) }
}

/// Fills in what a buffer is. Its fds stay the buffer's, and are open as long as it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_get_info(
    buffer: Option<&primeshare_buffer>,
    info: *mut primeshare_buffer_info,
) -> c_int {
    call(c"primeshare_buffer_get_info", || {
        let buffer = &of(buffer, "buffer")?.0;
        let none = primeshare_plane {
            fd: -1,
            offset: 0,
            stride: 0,
        };
        let mut planes = [none; PRIMESHARE_MAX_PLANES];
        for (index, (place, plane)) in planes.iter_mut().zip(buffer.planes()).enumerate() {
            *place = primeshare_plane {
                fd: buffer.plane_fd(index).map_or(-1, |fd| fd.as_raw_fd()),
                offset: plane.offset,
                stride: plane.stride,
            };
        }
        let value = primeshare_buffer_info {
            size: 0,
            width: buffer.width(),
            height: buffer.height(),
            format: buffer.fourcc().0,
            flags: buffer.flags().bits(),
            modifier: buffer.modifier().0,
            plane_count: buffer.planes().len() as u32,
            planes,
        };
        // SAFETY: as the header asks.
        unsafe { fill(info, "info", value) }
    })
}

/// Writes the identity of a buffer's first dma-buf. Costs no system call.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_buffer_get_id(
    buffer: Option<&primeshare_buffer>,
    id: Option<&mut MaybeUninit<primeshare_buffer_id>>,
) -> c_int {
    call(c"primeshare_buffer_get_id", || {
        let buffer = of(buffer, "buffer")?;
        out(id, "id")?.write(buffer.0.id().into());
        Ok(())
    })
}

/// Sends a buffer to another process, over a Unix socket of the kind SOCK_SEQPACKET. Borrows the socket.
#[unsafe(no_mangle)]
pub extern "C" fn primeshare_buffer_send(
    buffer: Option<&primeshare_buffer>,
    socket: c_int,
) -> c_int {
    call(c"primeshare_buffer_send", || {
        Ok(of(buffer, "buffer")?.0.send(fd(socket, "socket")?)?)
    })
}

/// Receives a buffer that primeshare_buffer_send sent, and checks it as primeshare_buffer_create does. Borrows the
/// socket, and waits for a message if the socket does. -ECONNRESET: the other process has closed its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_receive_wait(
    socket: c_int,
    buffer: Option<&mut MaybeUninit<*mut primeshare_buffer>>,
) -> c_int {
    call(c"primeshare_buffer_receive_wait", || {
        let buffer = out(buffer, "buffer")?;
        buffer.write(give_buffer(DmaBuf::receive(fd(socket, "socket")?)?));
        Ok(())
    })
}

/// Modifiers that a program lists.
pub(crate) unsafe fn modifiers(
    modifiers: *const u64,
    count: usize,
) -> Result<impl Iterator<Item = Modifier>, Failure> {
    // SAFETY: as the caller promises.
    let modifiers = unsafe { array(modifiers, count, "modifiers") }?;
    Ok(modifiers.iter().map(|modifier| Modifier(*modifier)))
}
