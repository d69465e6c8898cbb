//! A file description for the library alone, beside a program's own code on the device.
//!
//! It must never make the program lose its place as DRM master, and must not need a right that the program lacks.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::{Device, Error, Node, open_node};
use crate::Errno;
use crate::{gem, sys};

impl Device {
    /// Another file description of the same device and node, with a handle table of its own: for
    /// programs whose own code uses this one.
    ///
    /// The kernel keeps one set of handles for a file description and counts no users, so code that
    /// imports, exports or closes handles there (gbm, EGL, Vulkan drivers, another library, the
    /// program itself) closes the library's handles and the library closes theirs. Hand the program's
    /// fd in with [`Self::from_fd`], take the private copy, drop the first, and use the copy for all
    /// calls of the library. Buffers, framebuffers and modes belong to the device: a framebuffer that
    /// is made from a handle of the copy on the copy ([`AsFd`]) can be shown by the program's own fd.
    ///
    /// Where the program is the device's DRM master, the copy is an empty DRM lease: the program may
    /// have no right to open the node by itself, since a session manager opened it. An empty lease
    /// controls nothing of the screen. It needs Linux 5.15; before, and without master, the node is
    /// opened again by its path or, if another node has the path by now, through `/proc/self/fd`.
    /// The copy never becomes the device's master.
    ///
    /// [`Error::Open`] if the program may not open the node, [`Error::Lease`] if the lease failed for
    /// a reason of the moment such as EMFILE.
    pub fn private_copy(&self) -> Result<Self, Error> {
        let file = match sys::drm::lease_nothing(self.as_fd()) {
            Ok(lease) => lease,
            Err(errno) if sys::is_transient(errno) => {
                return Err(Error::Lease {
                    device: self.to_string(),
                    errno,
                });
            }
            Err(Errno::ENODEV) if gem::is_lost(self.as_fd()) => {
                return Err(Error::Gem(gem::Error::Lost {
                    device: self.to_string(),
                }));
            }
            Err(_) => self.open_again()?,
        };
        let node = self.node().clone();
        Self::build(file, node, |file, name| Ok(gem::handles_of_new(file, name)))
    }

    /// As [`Self::private_copy`], for an fd that stays the program's: nothing is made on its file
    /// description.
    pub fn private_copy_of(fd: impl AsFd) -> Result<Self, Error> {
        let dup = fd.as_fd().try_clone_to_owned();
        let dup = dup.map_err(|error| Error::Duplicate {
            errno: sys::errno(error),
        })?;
        Self::from_fd(dup)?.private_copy()
    }

    /// Opens the node of this device again, whatever its path leads to by now.
    fn open_again(&self) -> Result<OwnedFd, Error> {
        let by_path = open_node(&self.node().path).and_then(|file| {
            match Node::of(file.as_fd())?.id == self.node().id {
                true => Ok(file),
                false => Err(Error::Gem(gem::Error::Lost {
                    device: self.to_string(),
                })),
            }
        });
        let refused = match by_path {
            Err(refused) if !is_of_the_moment(&refused) => refused,
            opened_or_failed => return opened_or_failed,
        };
        let by_number = PathBuf::from(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd()));
        match open_node(&by_number) {
            // There is no /proc, or the program may not open the node: its own path says it better.
            Err(Error::Open { errno, .. }) if sys::is_absence(errno) => Err(refused),
            opened => opened,
        }
    }
}

/// Whether the error is a lack of memory or of room for an fd, and not a path that leads elsewhere.
fn is_of_the_moment(error: &Error) -> bool {
    matches!(error, Error::Open { errno, .. } if sys::is_transient(*errno))
}
