//! vkms devices that come and go, through configfs
//! (`Documentation/gpu/vkms.rst`, Linux 6.18 and newer).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use primeshare::device::{self, Node, NodeKind};

use crate::support::can_run;

const CONFIGFS: &str = "/sys/kernel/config/vkms";

/// A vkms device of our own. Unplugged and removed on drop.
pub(crate) struct Vkms {
    directory: PathBuf,
    name: String,
}

/// Whether the kernel makes vkms devices at run time. A test that needs one is left out elsewhere: in
/// the compatibility guest, whose kernel is too old, and where the kernel has no vkms.
pub(crate) fn can_be_plugged() -> bool {
    let can = Path::new(CONFIGFS).exists();
    can_run(can, "vkms devices that can be unplugged")
}

impl Vkms {
    /// Configures a device with one whole pipeline, not plugged in yet.
    pub(crate) fn new(name: &str) -> Self {
        let directory = Path::new(CONFIGFS).join(name);
        fs::create_dir(&directory).unwrap();
        let vkms = Self {
            directory,
            name: name.to_owned(),
        };
        for part in PARTS {
            fs::create_dir(vkms.directory.join(part)).unwrap();
        }
        fs::write(vkms.directory.join("planes/plane/type"), "1").unwrap();
        for (link, to) in LINKS {
            symlink(vkms.directory.join(to), vkms.directory.join(link)).unwrap();
        }
        vkms
    }

    pub(crate) fn plug(&self) {
        fs::write(self.directory.join("enabled"), "1").unwrap();
    }

    pub(crate) fn unplug(&self) {
        fs::write(self.directory.join("enabled"), "0").unwrap();
    }

    /// Whether a screen is plugged into its connector.
    pub(crate) fn set_connected(&self, connected: bool) {
        // `enum drm_connector_status`
        let status = if connected { "1" } else { "2" };
        let file = self.directory.join("connectors/connector/status");
        fs::write(file, status).unwrap();
    }

    /// The primary node it has now.
    pub(crate) fn node(&self) -> Node {
        let nodes = device::enumerate().unwrap();
        let is_it = |node: &Node| {
            node.kind == NodeKind::Primary
                && node.bus.as_ref().is_some_and(|bus| bus.name == self.name)
        };
        nodes.into_iter().find(is_it).expect("it is plugged in")
    }
}

const PARTS: [&str; 4] = [
    "planes/plane",
    "crtcs/crtc",
    "encoders/encoder",
    "connectors/connector",
];

const LINKS: [(&str, &str); 3] = [
    ("planes/plane/possible_crtcs/crtc", "crtcs/crtc"),
    ("encoders/encoder/possible_crtcs/crtc", "crtcs/crtc"),
    (
        "connectors/connector/possible_encoders/encoder",
        "encoders/encoder",
    ),
];

impl Drop for Vkms {
    fn drop(&mut self) {
        self.unplug();
        for (link, _) in LINKS {
            fs::remove_file(self.directory.join(link)).unwrap();
        }
        for part in PARTS {
            fs::remove_dir(self.directory.join(part)).unwrap();
        }
        fs::remove_dir(&self.directory).unwrap();
    }
}
