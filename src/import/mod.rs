//! From a dma-buf to GEM objects on a device, and from another process to a dma-buf.

mod receive;

pub use crate::buffer::message::Malformed;
pub use receive::ReceiveError;

use std::os::fd::AsFd;

use arrayvec::ArrayVec;

use crate::buffer::{DmaBuf, LinuxDmabufAnswer, MAX_PLANES};
use crate::device::Device;
use crate::gem::{self, Handle, ImportOrigin, Object};
use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a buffer could not be imported. The planes imported before the failing one have been
/// released again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}{}", object_suffix(*object))]
pub struct Error {
    /// Index into [`DmaBuf::objects`].
    pub object: usize,
    /// What failed, and on which device.
    pub cause: gem::Error,
}

/// Most buffers have one dma-buf.
fn object_suffix(object: usize) -> String {
    match object {
        0 => String::new(),
        object => format!(" (dma-buf {object} of the buffer)"),
    }
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// What a Wayland server answers to the client that sent the buffer: that a device does not import it is
    /// never the client's fault.
    pub fn linux_dmabuf_answer(&self) -> LinuxDmabufAnswer {
        LinuxDmabufAnswer::Failed
    }
}

into_io_error!(Error);

/// A buffer on a device: a GEM object per memory plane.
///
/// Planes in one dma-buf share one object. The handles are closed when the last user of each goes.
#[derive(Clone, Debug)]
pub struct Imported {
    objects: ArrayVec<(Object, ImportOrigin), MAX_PLANES>,
    /// Indices into `objects`, small because this is copied with every import.
    planes: ArrayVec<u8, MAX_PLANES>,
}

impl Imported {
    /// The object a memory plane lies in. `None` past the last plane.
    pub fn plane(&self, plane: usize) -> Option<&Object> {
        self.planes
            .get(plane)
            .map(|&object| &self.objects[usize::from(object)].0)
    }

    /// The handle of each plane, `None` past the last one: as `DRM_IOCTL_MODE_ADDFB2` takes them. They are
    /// valid on this device's file description, while this lives.
    pub fn handles(&self) -> [Option<Handle>; MAX_PLANES] {
        std::array::from_fn(|plane| self.plane(plane).map(Object::handle))
    }

    /// The objects, in the order of [`DmaBuf::objects`], and what the import met of each.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = (&Object, ImportOrigin)> {
        self.objects.iter().map(|(object, found)| (object, *found))
    }

    /// The object of a buffer's first plane: its only one, in most cases.
    pub fn object(&self) -> &Object {
        &self.objects[0].0
    }

    /// What the import met of the first plane's object.
    pub fn origin(&self) -> ImportOrigin {
        self.objects[0].1
    }
}

impl Device {
    /// Imports a buffer: its objects on this file description, and whether they were here before.
    ///
    /// A buffer that is in use here already costs no system call. The buffer's fds stay its own.
    /// Thread-safe; does not block on the GPU.
    ///
    /// A buffer whose handle the program [adopted](Self::adopt) is reported as
    /// [`ImportOrigin::AlreadyImported`], also if the program created it on this device. To recognise such a
    /// buffer, compare [`Imported::object`] with the adopted object.
    pub fn import(&self, buffer: &DmaBuf) -> Result<Imported, Error> {
        let mut objects = ArrayVec::new();
        for (index, object) in buffer.objects().iter().enumerate() {
            let imported = self.handles().import(object.as_fd(), object.id());
            objects.push(imported.map_err(|cause| Error {
                object: index,
                cause,
            })?);
        }
        Ok(Imported {
            objects,
            planes: buffer.planes().iter().map(|p| p.object as u8).collect(),
        })
    }

    /// Imports a bare dma-buf fd, about which nothing else is known. Borrows the fd. What is reported of
    /// [adopted](Self::adopt) handles is said at [`Self::import`].
    ///
    /// If the dma-buf is in use here already, this costs one `fstat`.
    pub fn import_fd(&self, fd: impl AsFd) -> Result<(Object, ImportOrigin), gem::Error> {
        self.handles().import_fd(fd.as_fd())
    }
}
