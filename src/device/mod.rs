//! DRM devices: opening, finding and telling them apart.

mod capabilities;
mod error;
mod map;
mod node;

pub use capabilities::Capabilities;
pub use error::Error;
pub use map::DumbMapping;
pub use node::{BusId, Node, NodeId, NodeKind, enumerate};

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::gem::{self, Table};
use crate::sys;

/// One open file description of a DRM node, and the one handle table that belongs to it.
///
/// Clones share both. GEM handles belong to a file description, not to a device: two `Device`s of
/// one node have separate handles, while a `Device` made from a dup of another's fd *is* that
/// other. `Send` and `Sync`; the file description is closed when the last clone and the last
/// object of it have gone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    table: Arc<Table>,
    node: Node,
    driver: String,
    capabilities: OnceLock<Capabilities>,
}

impl Device {
    /// Opens a node such as `/dev/dri/card0` or `/dev/dri/renderD128`: a file description that
    /// nobody else has.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = open_node(path.as_ref())?;
        Self::build(file, gem::table_of_new)
    }

    /// Takes an fd of a DRM node that the program opened, or got from a session manager.
    ///
    /// The fd is the library's from now on, also after an error: give it a dup to keep one. If the
    /// process has a `Device` on the same file description already, this one shares its handle
    /// table. Code that imports, exports or closes handles on the file description by itself
    /// breaks the table: let it go through this `Device`, or give one of the two a file
    /// description of its own.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        Self::build(fd, gem::table_of)
    }

    fn build(file: OwnedFd, table: impl FnOnce(OwnedFd) -> Arc<Table>) -> Result<Self, Error> {
        let node = Node::of(file.as_fd())?;
        let driver = driver_name(file.as_fd())?;
        Ok(Self(Arc::new(Inner {
            table: table(file),
            node,
            driver,
            capabilities: OnceLock::new(),
        })))
    }

    /// Another file description of the same node, with a table of its own.
    pub fn reopen(&self) -> Result<Self, Error> {
        Self::open(&self.0.node.path)
    }

    /// The kernel driver's name, such as `amdgpu` or `vkms`.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// The node this device was opened through.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// What the device can do, found by trying it once.
    pub fn capabilities(&self) -> Capabilities {
        *self
            .0
            .capabilities
            .get_or_init(|| capabilities::probe(self))
    }

    /// What the handle table has done, for debugging and tests.
    pub fn stats(&self) -> gem::Stats {
        self.0.table.stats()
    }

    /// Whether both are the same file description, so that handles of one are good on the other.
    pub fn shares_handles_with(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0.table, &other.0.table)
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.0.table
    }
}

impl AsFd for Device {
    /// The device fd, for ioctls of the caller's own. Not for PRIME or GEM_CLOSE.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.table.as_fd()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.driver(), self.node().path.display())
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("driver", &self.driver())
            .field("node", self.node())
            .field("stats", &self.stats())
            .finish()
    }
}

/// Opens a node. Non-blocking, so that reading its events never stalls an event loop.
pub(crate) fn open_node(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    sys::retry(|| nix::fcntl::open(path, flags, Mode::empty())).map_err(|errno| Error::Open {
        path: path.to_owned(),
        errno,
    })
}

fn driver_name(fd: BorrowedFd<'_>) -> Result<String, Error> {
    let mut name = Vec::new();
    sys::retry(|| {
        drm_ffi::get_version(fd, Some(&mut name), None, None)
            .map(drop)
            .map_err(sys::errno)
    })
    .map_err(|errno| Error::Version { errno })?;
    let bytes: Vec<u8> = name.iter().map(|&c| c as u8).chain([0]).collect();
    Ok(CStr::from_bytes_until_nul(&bytes)
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default())
}
