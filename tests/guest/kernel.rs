//! Raw kernel calls that the tests make behind the library's back.

pub(crate) mod dma_buf;
pub(crate) mod fence;
pub(crate) mod seccomp;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use primeshare::{Device, DmaBuf};

/// The errno of a bare call.
pub(crate) fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().expect("a system call's error"))
}

/// The bare ioctls of a file description, with numbers for handles, and errnos for errors.
#[derive(Clone, Copy)]
pub(crate) struct Gem<'a>(pub(crate) BorrowedFd<'a>);

impl Gem<'_> {
    /// MODE_CREATE_DUMB: a handle for 64 times 64 pixels of 4 bytes.
    pub(crate) fn create(self) -> Result<u32, Errno> {
        let dumb = drm_ffi::mode::dumbbuffer::create(self.0, 64, 64, 32, 0);
        dumb.map(|dumb| dumb.handle).map_err(errno)
    }

    /// MODE_MAP_DUMB.
    pub(crate) fn map_dumb(self, handle: u32) -> Result<u64, Errno> {
        let map = drm_ffi::mode::dumbbuffer::map(self.0, handle, 0, 0);
        map.map(|map| map.offset).map_err(errno)
    }

    /// PRIME_HANDLE_TO_FD.
    pub(crate) fn export(self, handle: u32, flags: i32) -> Result<OwnedFd, Errno> {
        let prime = drm_ffi::gem::handle_to_fd(self.0, handle, flags as u32).map_err(errno)?;
        // SAFETY: a new fd that nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
    }

    /// As the library exports.
    pub(crate) fn export_writable(self, handle: u32) -> Result<OwnedFd, Errno> {
        self.export(handle, libc::O_CLOEXEC | libc::O_RDWR)
    }

    /// PRIME_FD_TO_HANDLE of whatever number.
    pub(crate) fn import_number(self, fd: RawFd) -> Result<u32, Errno> {
        let mut prime = Prime {
            handle: 0,
            flags: 0,
            fd,
        };
        // SAFETY: the structure is the ioctl's (`include/uapi/drm/drm.h`) and outlives the call.
        unsafe { prime_fd_to_handle(self.0.as_raw_fd(), &mut prime) }?;
        Ok(prime.handle)
    }

    /// PRIME_FD_TO_HANDLE.
    pub(crate) fn import(self, fd: impl AsFd) -> Result<u32, Errno> {
        self.import_number(fd.as_fd().as_raw_fd())
    }

    /// GEM_CLOSE.
    pub(crate) fn close(self, handle: u32) -> Result<(), Errno> {
        drm_ffi::gem::close(self.0, handle).map(drop).map_err(errno)
    }

    /// GEM_FLINK.
    pub(crate) fn flink(self, handle: u32) -> Result<u32, Errno> {
        let mut flink = Flink { handle, name: 0 };
        // SAFETY: the structure is the ioctl's (`include/uapi/drm/drm.h`) and outlives the call.
        unsafe { gem_flink(self.0.as_raw_fd(), &mut flink) }?;
        Ok(flink.name)
    }

    /// GEM_OPEN.
    pub(crate) fn open_name(self, name: u32) -> Result<u32, Errno> {
        let opened = drm_ffi::gem::open(self.0, name).map_err(errno)?;
        Ok(opened.handle)
    }
}

#[repr(C)]
struct Prime {
    handle: u32,
    flags: u32,
    fd: i32,
}

nix::ioctl_readwrite!(prime_fd_to_handle, b'd', 0x2e, Prime);

/// PRIME_HANDLE_TO_FD with flags of the caller's choice.
pub(crate) fn export(device: BorrowedFd<'_>, handle: u32, flags: i32) -> OwnedFd {
    Gem(device).export(handle, flags).unwrap()
}

/// Whether an fd is close-on-exec, and whether it can be read and written.
pub(crate) fn flags(fd: BorrowedFd<'_>) -> (bool, bool) {
    // SAFETY: both take no memory.
    let (descriptor, status) = unsafe {
        (
            libc::fcntl(fd.as_raw_fd(), libc::F_GETFD),
            libc::fcntl(fd.as_raw_fd(), libc::F_GETFL),
        )
    };
    (
        descriptor & libc::FD_CLOEXEC != 0,
        status & libc::O_ACCMODE == libc::O_RDWR,
    )
}

#[repr(C)]
struct Flink {
    handle: u32,
    name: u32,
}

nix::ioctl_readwrite!(gem_flink, b'd', 0x0a, Flink);

/// GEM_FLINK: a global name for an object.
pub(crate) fn flink(device: BorrowedFd<'_>, handle: u32) -> u32 {
    Gem(device).flink(handle).unwrap()
}

/// A framebuffer of a buffer's first plane; removed on drop.
pub(crate) struct Framebuffer<'a> {
    device: &'a Device,
    id: u32,
}

impl<'a> Framebuffer<'a> {
    pub(crate) fn new(device: &'a Device, buffer: &DmaBuf, handle: u32) -> Self {
        let fb = drm_ffi::mode::add_fb2(
            device.as_fd(),
            buffer.width(),
            buffer.height(),
            buffer.fourcc().0,
            &[handle, 0, 0, 0],
            &[buffer.planes()[0].stride, 0, 0, 0],
            &[0; 4],
            &[0; 4],
            0,
        );
        let id = fb.unwrap().fb_id;
        Self { device, id }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// GETFB2's handle for it: a new one with every call.
    pub(crate) fn handle(&self) -> u32 {
        let fb = drm_ffi::mode::get_framebuffer2(self.device.as_fd(), self.id);
        fb.unwrap().handles[0]
    }
}

impl Drop for Framebuffer<'_> {
    fn drop(&mut self) {
        drm_ffi::mode::rm_fb(self.device.as_fd(), self.id).unwrap();
    }
}
