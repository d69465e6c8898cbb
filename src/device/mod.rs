//! DRM devices: opening, finding and telling them apart.

mod capabilities;
mod error;
mod key;
mod map;
mod node;
mod private_copy;

pub use capabilities::Capabilities;
pub use error::Error;
pub use key::key_of;
pub(crate) use key::key_of_fd;
pub use map::DumbMapping;
pub use node::{BusId, Node, NodeId, NodeKind, enumerate, open_all};

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::Errno;
use crate::gem::{self, Handles};
use crate::sys;

/// One open file description of a DRM node, and the one handle table that belongs to it.
///
/// Clones share both. GEM handles belong to a file description, not to a device: two `Device`s of
/// one node have separate handles, while a `Device` made from a dup of another's fd *is* that
/// other. `Send` and `Sync`; the file description is closed when the last clone, the last object of
/// it and the last buffer allocated on it have gone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    handles: Handles,
    node: Node,
    driver: String,
}

impl Device {
    /// Opens a node such as `/dev/dri/card0` or `/dev/dri/renderD128`: a file description that
    /// nobody else has.
    ///
    /// If a primary node has no DRM master, the kernel makes the process that opens it the master
    /// (`drm_master_open`). The library gives that up at once, so that a compositor can become master. To set
    /// modes, hand in an fd of your own.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = open_node(path)?;
        let node = Node::of(file.as_fd()).map_err(|error| match error {
            Error::NotDrm { .. } => Error::NotDrm {
                path: Some(path.to_owned()),
            },
            error => error,
        })?;
        // With the path that was opened: a container may have another name for it than the kernel.
        let node = Node {
            path: path.to_owned(),
            ..node
        };
        Self::build(file, node, |file, name| Ok(gem::handles_of_new(file, name)))
    }

    /// Opens the node with this device number (`dev_t`), such as Wayland's dmabuf feedback names.
    /// [`Error::NoNode`] if the machine has none, or if it is hidden from this process.
    pub fn find(dev_t: u64) -> Result<Self, Error> {
        let node = Node::find(dev_t)?.ok_or(Error::NoNode(NodeId::of_dev_t(dev_t)))?;
        Self::open(node.path)
    }

    /// Takes an fd of a DRM node that the program opened, or got from a session manager.
    ///
    /// Takes ownership of the fd, and closes it even on error. Pass a dup to keep yours. If the process has a
    /// `Device` on the same file description already, this one shares its handle table. (The kernel is asked
    /// by `F_DUPFD_QUERY`, Linux 6.10, then `kcmp`, then `drm-client-id` in fdinfo. If all three are missing
    /// or forbidden, a dup is taken for another file description, and a warning is logged: make only one
    /// `Device` then.)
    ///
    /// If asking fails, nothing is guessed: [`Error::Compare`]. Before Linux 6.10, and if there is another
    /// `Device`, a seccomp filter that kills on `kcmp` ends the process here: a sandbox has to allow the call
    /// or answer it with an error.
    ///
    /// A file description may also have come from another process, by a socket or by `exec`. Then that process
    /// shares its handles, but has a table of its own: each process would close handles that the other uses.
    /// Only one process may have a `Device` on it, and the other can [`reopen`](Self::reopen) the node for a
    /// file description of its own. A `Device` that `fork` has copied stays the parent's: in the child it may
    /// be dropped, which closes nothing, and calls that need the kernel fail with [`gem::Error::Forked`].
    ///
    /// Code of the program that creates, imports, exports or closes handles on this file
    /// description by itself breaks the table, which closes what it takes for its own. Such programs
    /// work on a [`private_copy`](Self::private_copy).
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let node = Node::of(fd.as_fd())?;
        Self::build(fd, node, gem::handles_of)
    }

    fn build(
        file: OwnedFd,
        node: Node,
        handles: impl FnOnce(OwnedFd, String) -> Result<Handles, Errno>,
    ) -> Result<Self, Error> {
        let path = || node.path.clone();
        let driver = sys::drm::driver_name(file.as_fd()).map_err(|errno| match errno {
            Errno::ENODEV => Error::Gem(gem::Error::Lost {
                device: path().display().to_string(),
            }),
            errno => Error::Version {
                path: path(),
                errno,
            },
        })?;
        let name = format!("{driver} ({})", node.path.display());
        let handles = handles(file, name).map_err(|errno| Error::Compare {
            path: path(),
            errno,
        })?;
        Ok(Self(Arc::new(Inner {
            handles,
            node,
            driver,
        })))
    }

    /// Another file description of the same node, with a table of its own. [`gem::Error::Lost`] if another
    /// device has the node's path by now.
    pub fn reopen(&self) -> Result<Self, Error> {
        let device = Self::open(&self.0.node.path)?;
        match device.node().id == self.node().id {
            true => Ok(device),
            false => Err(Error::Gem(gem::Error::Lost {
                device: self.to_string(),
            })),
        }
    }

    /// The kernel driver's name, such as `amdgpu` or `vkms`.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// The node this device was opened through.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// What the device can do, found by trying it: a few ioctls and small allocations. Not
    /// remembered.
    ///
    /// An error if trying failed for another reason than the device: no memory, or no room for an fd. Or
    /// [`gem::Error::Lost`].
    pub fn capabilities(&self) -> Result<Capabilities, Error> {
        capabilities::probe(self)
    }

    /// What the handle table has done, for debugging and tests. [`Self::capabilities`] imports, too, to find out.
    pub fn stats(&self) -> gem::Stats {
        self.0.handles.stats()
    }

    /// Whether both are the same file description, so that handles of one are valid on the other.
    pub fn shares_handles_with(&self, other: &Device) -> bool {
        self.0.handles.is(&other.0.handles)
    }

    /// Whether both belong to one device, through any nodes and file descriptions. Memory of one is no foreign
    /// memory on the other, but handles of one are not valid on the other.
    ///
    /// If a buffer was made on another file description of the device, its import here is
    /// [`gem::ImportOrigin::New`]: the kernel gives it another handle. (A device that was unplugged cannot be
    /// told from one that took its place.)
    pub fn is_same_device(&self, other: &Device) -> bool {
        let (node, other) = (self.node(), other.node());
        node.id == other.id || (node.bus.is_some() && node.bus == other.bus)
    }

    /// Makes the library the owner of a handle of this file description that the program got by
    /// itself, from a driver's ioctl for example: from now on only the library closes it.
    ///
    /// The handle must be open, and nobody else may close it. [`gem::Object::release`] is the way back. GETFB
    /// and GETFB2 give a new handle with every call: adopt each, or close it yourself.
    ///
    /// # Imports of the same buffer
    /// If the buffer is imported here afterwards, the import gives a clone of this object, and reports
    /// [`AlreadyImported`](gem::ImportOrigin::AlreadyImported) and never
    /// [`SelfImport`](gem::ImportOrigin::SelfImport): the library cannot know whether the program created the
    /// object on this device or imported it. A program that has to recognise its own buffers compares the
    /// import's object with the adopted one (`==`), or keeps the [`BufferId`](crate::buffer::BufferId) that
    /// [`gem::Object::export`] gives.
    ///
    /// The other way round, do not import a dma-buf by an ioctl of your own to adopt the handle: use
    /// [`Self::import_fd`]. If the library has the same buffer here, the kernel gives both the same handle,
    /// and the library may close it before this call. The program would have to hold a [`gem::Object`] of it
    /// from before its import until this returns.
    ///
    /// The handle is exported, once, to learn which dma-buf it is of. After an error it is still the
    /// program's; [`gem::Error::Export`] with ENOENT says that it is not open.
    pub fn adopt(&self, handle: u32) -> Result<gem::Object, gem::Error> {
        self.0.handles.adopt(handle)
    }

    /// Opens an object by its flink name, for old clients. Primary nodes only.
    ///
    /// The kernel gives a new handle with every call, so the object is no clone of one that is
    /// here already; once exported it is known to be the same dma-buf.
    pub fn open_name(&self, name: u32) -> Result<gem::Object, gem::Error> {
        self.0.handles.open_name(name)
    }

    pub(crate) fn handles(&self) -> &Handles {
        &self.0.handles
    }
}

impl AsFd for Device {
    /// The device fd, for ioctls of the caller's own. Not for PRIME or GEM_CLOSE.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.handles.as_fd()
    }
}

impl AsRawFd for Device {
    /// As [`AsFd`]: for interfaces that take numbers.
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.handles.name())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("driver", &self.driver())
            .field("node", self.node())
            .field("stats", &self.stats())
            .field("handles", &self.handles().list())
            .finish()
    }
}

/// Opens a node, without becoming its master. Non-blocking, so that reading its events never
/// stalls an event loop.
pub(crate) fn open_node(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let open = || nix::fcntl::open(path, flags, Mode::empty());
    let file = sys::uninterrupted(open).map_err(|errno| Error::Open {
        path: path.to_owned(),
        errno,
    })?;
    // EINVAL if somebody else is master, EACCES on a render node: there is nothing to give up then.
    let _ = sys::drm::drop_master(file.as_fd());
    Ok(file)
}
