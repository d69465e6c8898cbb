//! DRM device nodes: which there are, and which device each is of.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, major, minor};

use super::{Device, Error};
use crate::Errno;
use crate::sys;

const DIRECTORY: &str = "/dev/dri";
/// `DRM_MAJOR` of `include/drm/drm_drv.h`.
const DRM_MAJOR: u64 = 226;

/// What a DRM node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// `card*`: everything, mode setting and dumb buffers included.
    Primary,
    /// `renderD*`: rendering and PRIME; no dumb buffers, no mode setting.
    Render,
}

/// The device number of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// 226 on Linux.
    pub major: u64,
    /// From 0 for primary, from 128 for render nodes.
    pub minor: u64,
}

impl NodeId {
    /// Both in one, as `stat` and Wayland's dmabuf feedback have it (`dev_t`).
    pub fn dev_t(self) -> u64 {
        nix::sys::stat::makedev(self.major, self.minor)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}:{})", self.major, self.minor)
    }
}

/// Where a device sits: the subsystem and the name it has there, such as `pci` and
/// `0000:01:00.0`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BusId {
    /// `pci`, `usb`, `platform`, `virtio`, `faux` …
    pub subsystem: String,
    /// The name of the device there.
    pub name: String,
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.subsystem, self.name)
    }
}

impl fmt::Debug for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BusId({self})")
    }
}

/// A DRM device node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its path.
    pub path: PathBuf,
    /// Primary or render.
    pub kind: NodeKind,
    /// Its device number.
    pub id: NodeId,
    /// The device behind it, where sysfs says. Equal for the primary and the render node of one
    /// device.
    pub bus: Option<BusId>,
}

impl Node {
    /// The node behind an open fd.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let stat = sys::file::stat(fd).map_err(|errno| Error::Stat { errno })?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() {
            return Err(Error::NotDrm { path: None });
        }
        Self::describe(NodeId {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        })?
        .ok_or(Error::NotDrm { path: None })
    }

    /// The node with this device number (`dev_t`), such as Wayland's dmabuf feedback names. `None`:
    /// the machine has no such DRM node, or none that is to be seen from here.
    ///
    /// It may be a node of either kind: what draws wants its [render node](Self::render_node). Opens
    /// none; fails as [`enumerate`] does.
    pub fn find(dev_t: u64) -> Result<Option<Self>, Error> {
        let mut nodes = enumerate()?.into_iter();
        Ok(nodes.find(|node| node.id.dev_t() == dev_t))
    }

    /// The render node of the same device, where it has one: itself, if it is that.
    ///
    /// `None` also where sysfs does not say which device a primary node is of. Opens none; fails as
    /// [`enumerate`] does.
    pub fn render_node(&self) -> Result<Option<Self>, Error> {
        if self.kind == NodeKind::Render {
            return Ok(Some(self.clone()));
        }
        let Some(bus) = self.bus.as_ref() else {
            return Ok(None);
        };
        let same = |other: &Self| other.kind == NodeKind::Render && other.bus.as_ref() == Some(bus);
        Ok(enumerate()?.into_iter().find(same))
    }

    /// `None` if the number is not that of a DRM node.
    fn describe(id: NodeId) -> Result<Option<Self>, Error> {
        let sysfs = PathBuf::from(format!("/sys/dev/char/{}:{}", id.major, id.minor));
        let name = match target_of(&sysfs)? {
            Some(name) if is_there(&sysfs.join("device/drm"))? => Some(name),
            Some(_) if is_there(&sysfs)? => return Ok(None),
            _ => name_by_number(id),
        };
        let Some((kind, name)) = name.and_then(|name| Some((kind_of(&name)?, name))) else {
            return Ok(None);
        };
        Ok(Some(Self {
            kind,
            path: Path::new(DIRECTORY).join(name),
            id,
            bus: bus_of(&sysfs.join("device"))?,
        }))
    }
}

/// The name of what a link in sysfs leads to. `None` where there is no such link, or a sandbox
/// hides it.
fn target_of(link: &Path) -> Result<Option<String>, Error> {
    let target = unless_absent(link, link.read_link())?;
    Ok(target.and_then(|target| Some(target.file_name()?.to_str()?.to_owned())))
}

fn is_there(path: &Path) -> Result<bool, Error> {
    Ok(unless_absent(path, path.metadata())?.is_some())
}

pub(super) fn unless_absent<T>(path: &Path, found: std::io::Result<T>) -> Result<Option<T>, Error> {
    match found.map_err(sys::errno) {
        Ok(found) => Ok(Some(found)),
        Err(errno) if sys::is_absence(errno) => Ok(None),
        Err(errno) => Err(Error::Sysfs {
            path: path.to_owned(),
            errno,
        }),
    }
}

/// The name of a node where there is no sysfs to ask, as in some sandboxes: the kernel gives each
/// kind a block of 64 numbers (`drm_minor_alloc`).
fn name_by_number(id: NodeId) -> Option<String> {
    match (id.major, id.minor) {
        (DRM_MAJOR, minor @ 0..64) => Some(format!("card{minor}")),
        (DRM_MAJOR, minor @ 128..192) => Some(format!("renderD{minor}")),
        _ => None,
    }
}

pub(super) fn kind_of(name: &str) -> Option<NodeKind> {
    let numbered = |prefix| {
        let number: Option<&str> = name.strip_prefix(prefix);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
    };
    if numbered("card") {
        Some(NodeKind::Primary)
    } else if numbered("renderD") {
        Some(NodeKind::Render)
    } else {
        None
    }
}

fn bus_of(device: &Path) -> Result<Option<BusId>, Error> {
    let subsystem = target_of(&device.join("subsystem"))?;
    let name = target_of(device)?;
    let both = subsystem.zip(name);
    Ok(both.map(|(subsystem, name)| BusId { subsystem, name }))
}

/// Lists the machine's DRM nodes, primary nodes first, by number. Opens none of them.
///
/// No nodes, or no `/dev/dri`, is an empty list.
pub fn enumerate() -> Result<Vec<Node>, Error> {
    let failed = |error: std::io::Error| Error::List {
        path: DIRECTORY.into(),
        errno: sys::errno(error),
    };
    let entries = match std::fs::read_dir(DIRECTORY) {
        Err(error) if sys::errno_is(&error, Errno::ENOENT) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut nodes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().and_then(kind_of).is_none() {
            continue;
        }
        let stat = match nix::sys::stat::stat(&entry.path()).map_err(sys::errno) {
            Ok(stat) => stat,
            // A node may disappear meanwhile, by hot unplug.
            Err(errno) if sys::is_absence(errno) => continue,
            Err(errno) => {
                return Err(Error::List {
                    path: entry.path(),
                    errno,
                });
            }
        };
        let node = Node::describe(NodeId {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        })?;
        // With the path that it has here: a container may have another name for it than the kernel.
        nodes.extend(node.map(|node| Node {
            path: entry.path(),
            ..node
        }));
    }
    nodes.sort_by_key(|node| (node.kind, node.id));
    Ok(nodes)
}

/// Opens every DRM device of the machine once: its primary node or, where that cannot be opened, its
/// render node. With the devices comes why others could not be opened.
///
/// Wakes suspended GPUs; [`enumerate`] does not. Fails as [`enumerate`] does.
pub fn open_all() -> Result<(Vec<Device>, Vec<Error>), Error> {
    let (mut devices, mut failed) = (Vec::<Device>::new(), Vec::new());
    for node in enumerate()? {
        let is_known = |device: &Device| node.bus.is_some() && device.node().bus == node.bus;
        if node.kind == NodeKind::Render && devices.iter().any(is_known) {
            continue;
        }
        match Device::open(&node.path) {
            Ok(device) => devices.push(device),
            Err(error) => failed.push(error),
        }
    }
    Ok((devices, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind() {
        assert_eq!(kind_of("card0"), Some(NodeKind::Primary));
        assert_eq!(kind_of("renderD128"), Some(NodeKind::Render));
        assert_eq!(kind_of("card"), None);
        assert_eq!(kind_of("card0-HDMI-A-1"), None);
        assert_eq!(kind_of("by-path"), None);
    }
}
