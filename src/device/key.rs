//! One key for all nodes of a device.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::node::{NodeId, kind_of, unless_absent};
use super::{Device, Error, Node};
use crate::negotiate::DeviceKey;
use crate::sys;

/// The device that has a node with this device number (`dev_t`): the same key for its primary and
/// its render node.
///
/// Wayland's dmabuf feedback mostly names the render node, KMS code has the primary node, and Vulkan
/// (`VkPhysicalDeviceDrmPropertiesEXT`) knows either or both: all of them are one device if their
/// keys are equal. Without sysfs, as in some sandboxes, each number is a key of its own, so that nodes of one
/// device seem to belong to two. Nodes of two devices never seem to belong to one.
///
/// Opens no node. [`Error::Sysfs`] if sysfs is there and cannot be read (EMFILE, EACCES …).
pub fn key_of(dev_t: u64) -> Result<DeviceKey, Error> {
    let id = NodeId::of_dev_t(dev_t);
    let nodes = PathBuf::from(format!(
        "/sys/dev/char/{}:{}/device/drm",
        id.major, id.minor
    ));
    let first = nodes_in(&nodes)?.into_iter().min();
    Ok(DeviceKey(first.map_or(dev_t, |(_, id)| id.dev_t())))
}

/// The key of the device of an open fd.
pub(crate) fn key_of_fd(fd: BorrowedFd<'_>) -> Result<DeviceKey, Error> {
    let stat = sys::file::stat(fd).map_err(|errno| Error::Stat { errno })?;
    key_of(stat.st_rdev)
}

impl Node {
    /// The key of its device, the same for all nodes of it: see [`key_of`].
    pub fn key(&self) -> Result<DeviceKey, Error> {
        key_of(self.id.dev_t())
    }
}

impl Device {
    /// Says to [`negotiate`](crate::negotiate::negotiate) which endpoints are of this device: see [`key_of`].
    pub fn key(&self) -> Result<DeviceKey, Error> {
        self.node().key()
    }
}

/// A device's nodes, by its directory `drm` in sysfs.
fn nodes_in(directory: &Path) -> Result<Vec<(super::NodeKind, NodeId)>, Error> {
    let entries = unless_absent(directory, std::fs::read_dir(directory))?;
    let mut nodes = Vec::new();
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(|error| Error::Sysfs {
            path: directory.to_owned(),
            errno: sys::errno(error),
        })?;
        let Some(kind) = entry.file_name().to_str().and_then(kind_of) else {
            continue;
        };
        let file = entry.path().join("dev");
        let text = unless_absent(&file, std::fs::read_to_string(&file))?;
        let id = text.as_deref().and_then(parse_id);
        nodes.extend(id.map(|id| (kind, id)));
    }
    Ok(nodes)
}

/// Reads "226:128".
fn parse_id(text: &str) -> Option<NodeId> {
    let (major, minor) = text.trim_end().split_once(':')?;
    Some(NodeId {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

impl NodeId {
    /// Takes a `dev_t` apart.
    pub fn of_dev_t(dev_t: u64) -> Self {
        NodeId {
            major: major(dev_t),
            minor: minor(dev_t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_sysfs_writes_them() {
        let id = NodeId {
            major: 226,
            minor: 128,
        };
        assert_eq!(parse_id("226:128\n"), Some(id));
        assert_eq!(parse_id("226"), None);
        assert_eq!(NodeId::of_dev_t(id.dev_t()), id);
    }

    #[test]
    fn a_number_that_sysfs_does_not_know_is_its_own_key() {
        let nobody = NodeId {
            major: 226,
            minor: 0xf_ffff,
        };
        assert_eq!(key_of(nobody.dev_t()), Ok(DeviceKey(nobody.dev_t())));
    }
}
