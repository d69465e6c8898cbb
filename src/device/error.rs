//! Why a device could not be opened or asked.

use std::path::PathBuf;

use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// Why a device could not be opened or asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `open` failed.
    #[error("cannot open {path}: {errno}", path = path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The fd could not be duplicated.
    #[error("cannot duplicate the device fd: {errno}")]
    Duplicate {
        /// EMFILE …
        errno: Errno,
    },
    /// `fstat` failed.
    #[error("cannot stat the device fd: {errno}")]
    Stat {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The machine has no DRM node with this number.
    #[error("there is no DRM node {}:{}", .0.major, .0.minor)]
    NoNode(super::NodeId),
    /// The file is something else than a DRM node.
    #[error("{} is not a DRM device node", named(path))]
    NotDrm {
        /// The file's path; `None` if only an fd was given.
        path: Option<PathBuf>,
    },
    /// DRM_IOCTL_VERSION failed.
    #[error("{path}: DRM_IOCTL_VERSION: {errno}", path = path.display())]
    Version {
        /// The node.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The kernel could not say whether the fd shares a file description with a `Device` that the
    /// process has.
    #[error("{path}: cannot tell whether its file description has a table: {errno}", path = path.display())]
    Compare {
        /// The node.
        path: PathBuf,
        /// EMFILE, ENOMEM …
        errno: Errno,
    },
    /// MODE_CREATE_LEASE failed.
    #[error("{device}: MODE_CREATE_LEASE: {errno}")]
    Lease {
        /// The device.
        device: String,
        /// EMFILE, ENOMEM …
        errno: Errno,
    },
    /// The device could not be looked up in sysfs.
    #[error("cannot look at {path}: {errno}", path = path.display())]
    Sysfs {
        /// The place in sysfs.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The directory of nodes, or a node in it, could not be read.
    #[error("cannot list {path}: {errno}", path = path.display())]
    List {
        /// The directory or node.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// `mmap` of a dumb buffer failed.
    #[error("{device}: cannot map {length} bytes of handle {handle}: {errno}")]
    Map {
        /// The device.
        device: String,
        /// The handle.
        handle: u32,
        /// Bytes asked for.
        length: usize,
        /// The kernel's reason.
        errno: Errno,
    },
    /// A handle operation failed.
    #[error(transparent)]
    Gem(#[from] crate::gem::Error),
    /// There was no system memory, or no room for its fd, to try an import with.
    #[error("cannot find out what {device} imports: {errno}")]
    Probe {
        /// The device.
        device: String,
        /// EMFILE, ENOMEM …
        errno: Errno,
    },
    /// The object belongs to another file description.
    #[error("{device}: the object belongs to another file description")]
    WrongDevice {
        /// The device.
        device: String,
    },
}

fn named(path: &Option<PathBuf>) -> String {
    match path {
        Some(path) => path.display().to_string(),
        None => "the fd".to_owned(),
    }
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotDrm { .. } | Self::NoNode(_) | Self::WrongDevice { .. } => ErrorKind::Invalid,
            // There is no such file.
            Self::Open {
                errno: Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR,
                ..
            } => ErrorKind::Invalid,
            Self::Gem(error) => error.kind(),
            _ => self.errno().map_or(ErrorKind::Other, ErrorKind::of),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NotDrm { .. } | Self::NoNode(_) | Self::WrongDevice { .. } => None,
            Self::Gem(error) => error.errno(),
            Self::Open { errno, .. }
            | Self::Duplicate { errno }
            | Self::Stat { errno }
            | Self::Version { errno, .. }
            | Self::Compare { errno, .. }
            | Self::Lease { errno, .. }
            | Self::Sysfs { errno, .. }
            | Self::List { errno, .. }
            | Self::Map { errno, .. }
            | Self::Probe { errno, .. } => Some(*errno),
        }
    }
}

into_io_error!(Error);
