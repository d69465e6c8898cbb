//! # Wayland
//!
//! Between a server's protocol library and buffers. Nothing here depends on libwayland: a server passes on what its
//! clients' requests say, and answers as primeshare_last_error_linux_dmabuf says.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;

use primeshare::alloc::Udmabuf;
use primeshare::buffer::PlaneFd;
use primeshare::wayland::{Params, ParamsError, sealed_table};
use primeshare::{BufferDesc, Errno, Fourcc, Modifier};

use crate::arguments::{array, fd, out};
use crate::buffer::{give_buffer, primeshare_buffer};
use crate::failure::{Failure, call, value};
use crate::negotiation::{primeshare_feedback, primeshare_format};
use crate::object::{Object, give_exclusive, of, of_mut, take_exclusive};

/// The planes that a client has sent with zwp_linux_buffer_params_v1, until it asks for a buffer. It belongs to one thread
/// at a time.
pub struct primeshare_params(Params);

impl Object for primeshare_params {
    const NAME: &'static str = "primeshare_params";
}

impl From<ParamsError> for Failure {
    fn from(error: ParamsError) -> Self {
        Self {
            answer: Some(error.answer()),
            ..Self::of(error.kind(), error.errno(), &error)
        }
    }
}

/// zwp_linux_dmabuf_v1.create_params
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_params_create(
    params: Option<&mut MaybeUninit<*mut primeshare_params>>,
) -> c_int {
    call(c"primeshare_params_create", || {
        out(params, "params")?.write(give_exclusive(primeshare_params(Params::new())));
        Ok(())
    })
}

/// zwp_linux_buffer_params_v1.destroy. Closes the fds of planes that are in no buffer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_params_destroy(params: *mut primeshare_params) {
    // SAFETY: as the header asks.
    drop(unsafe { take_exclusive(params) });
}

/// zwp_linux_buffer_params_v1.add: borrows the fd and keeps a dup. `modifier` is both halves of the request's.
///
/// If it fails, primeshare_last_error_linux_dmabuf has the protocol error to post. -1: it is not the client's fault (no fds
/// are left, for example); post no_memory (2) of wl_display.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_params_add(
    params: Option<&mut primeshare_params>,
    plane: u32,
    dma_buf: c_int,
    offset: u32,
    stride: u32,
    modifier: u64,
) -> c_int {
    call(c"primeshare_params_add", || {
        let params = of_mut(params, "params")?;
        let dup = fd(dma_buf, "dma_buf")?.try_clone_to_owned();
        let fd = dup.map_err(|error| Failure::from(Errno::of(&error).unwrap_or(Errno::EIO)))?;
        let place = PlaneFd { fd, offset, stride };
        Ok(params.0.add(plane, place, Modifier(modifier))?)
    })
}

/// zwp_linux_buffer_params_v1.create and create_immed, with the flags of the request. `offered` are all formats and
/// modifiers that the server's feedback has. Whether a GPU takes the buffer is asked afterwards, and is not the client's
/// fault.
///
/// If it fails, primeshare_last_error_linux_dmabuf has the protocol error to post, or is -1: then create is answered by the
/// event `failed`, and create_immed by that event or by the error invalid_wl_buffer (7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_params_create_buffer(
    params: Option<&mut primeshare_params>,
    width: i32,
    height: i32,
    format: u32,
    flags: u32,
    offered: *const primeshare_format,
    offered_count: usize,
    buffer: Option<&mut MaybeUninit<*mut primeshare_buffer>>,
) -> c_int {
    call(c"primeshare_params_create_buffer", || {
        let params = of_mut(params, "params")?;
        // SAFETY: as the header asks.
        let offered = unsafe { array(offered, offered_count, "offered") }?;
        let place = out(buffer, "buffer")?;
        let is_offered = |fourcc, modifier| {
            let mut pairs = offered.iter().map(|format| format.pair());
            pairs.any(|pair| pair == (fourcc, modifier))
        };
        let made = params
            .0
            .create((width, height), Fourcc(format), flags, is_offered)?;
        place.write(give_buffer(made));
        Ok(())
    })
}

/// An fd for zwp_linux_dmabuf_feedback_v1.format_table: a memfd with the table that nobody can change any more, so that all
/// clients can be sent the same. The fd is the caller's, and close-on-exec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_feedback_create_table_fd(
    feedback: Option<&primeshare_feedback>,
) -> c_int {
    value(c"primeshare_feedback_create_table_fd", || {
        let made = sealed_table(of(feedback, "feedback")?.table());
        let fd = made.map_err(|error| Failure::from(Errno::of(&error).unwrap_or(Errno::EIO)))?;
        Ok(fd.into_raw_fd())
    })
}

/// Makes a buffer of a client's memory (`wl_shm`) without a copy: linear rows, `stride` bytes apart, from `offset` on in a
/// memfd, which is borrowed. The memfd is sealed against shrinking if it is not yet. What the client writes later is in the
/// buffer as well, so the client's wl_buffer is released only when nobody reads this one any more.
///
/// Where devices do not see the CPU's caches, the server makes the memory visible after each commit: a
/// primeshare_mapping_begin_wait for writing and a primeshare_mapping_end.
///
/// Fails if the memory cannot be shared (no memfd, no seals, no /dev/udmabuf …): copy it then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn primeshare_buffer_create_from_memfd(
    memfd: c_int,
    width: u32,
    height: u32,
    format: u32,
    offset: u32,
    stride: u32,
    buffer: Option<&mut MaybeUninit<*mut primeshare_buffer>>,
) -> c_int {
    call(c"primeshare_buffer_create_from_memfd", || {
        let place = out(buffer, "buffer")?;
        let desc = BufferDesc::linear(width, height, Fourcc(format));
        let memory = fd(memfd, "memfd")?;
        let made = Udmabuf::open()?.from_memfd(memory, desc, [(offset, stride)])?;
        place.write(give_buffer(made));
        Ok(())
    })
}
