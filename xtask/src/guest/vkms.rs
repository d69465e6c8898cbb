//! A second vkms device, made through configfs, so that tests have two devices of one driver.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

const CONFIGFS: &str = "sys/kernel/config/vkms";

/// Makes and enables the vkms device `name`; `root` is where the guest's root file system is at the moment.
pub(crate) fn add(root: &Path, name: &str) -> Result<()> {
    let device = root.join(CONFIGFS).join(name);
    // An enabled device has to have a whole pipeline.
    for part in [
        "",
        "planes/plane",
        "planes/overlay",
        "planes/cursor",
        "crtcs/crtc",
        "encoders/encoder",
        "connectors/connector",
    ] {
        let directory = device.join(part);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    for (plane, kind) in [("plane", "1"), ("overlay", "0"), ("cursor", "2")] {
        write(&device.join("planes").join(plane).join("type"), kind)?;
    }
    write(&device.join("crtcs/crtc/writeback"), "1")?;
    let links = [
        ("planes/plane/possible_crtcs", "crtcs/crtc"),
        ("planes/overlay/possible_crtcs", "crtcs/crtc"),
        ("planes/cursor/possible_crtcs", "crtcs/crtc"),
        ("encoders/encoder/possible_crtcs", "crtcs/crtc"),
        ("connectors/connector/possible_encoders", "encoders/encoder"),
    ];
    for (from, to) in links {
        let link = device.join(from).join("link");
        symlink(device.join(to), &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    write(&device.join("enabled"), "1")
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}
