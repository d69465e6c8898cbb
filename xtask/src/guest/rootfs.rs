//! The guest's root file system: a directory with Debian, Mesa, and little else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::debian;
use super::kind::Kind;
use crate::cache::Entry;
use crate::progress::{Log, Step};

/// To be raised when this module makes something else of the same packages.
const RECIPE: &str = "2";

/// apt's pattern for what every Debian has.
const ESSENTIAL: &str = "?essential";

const PACKAGES: &[&str] = &[
    "mesa-vulkan-drivers",
    "libvulkan1",
    "vulkan-tools",
    "vulkan-validationlayers",
    "libgbm1",
    "libgl1-mesa-dri",
    "libegl1",
    "libgles2",
    "libdrm2",
    "mount",
    "procps",
    "strace",
];

/// Files that are not unpacked: device nodes, which only root may make, documentation, and drivers of hardware that the
/// guest does not have (a quarter of the size).
const UNNEEDED: &[&str] = &[
    "dev",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/lib/x86_64-linux-gnu/libvulkan_asahi.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_freedreno.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_gfxstream.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_intel.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_intel_hasvk.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_nouveau.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_radeon.so",
    "usr/lib/x86_64-linux-gnu/libvulkan_virtio.so",
];

/// A package for the current guest only: the server of vtest, by which venus is a second Vulkan driver on top of lavapipe.
const VTEST: &str = "virgl-server";

/// The driver of [`UNNEEDED`] that a guest needs after all: venus, for virtio-gpu and vtest; or RADV, which in this Mesa,
/// as the last one, can be asked what it would do on a GPU that is not there.
fn needed(kind: Kind) -> &'static str {
    match kind {
        Kind::Current | Kind::Gpu => "usr/lib/x86_64-linux-gnu/libvulkan_virtio.so",
        Kind::Compat | Kind::Qemu => "usr/lib/x86_64-linux-gnu/libvulkan_radeon.so",
    }
}

fn packages(kind: Kind) -> Vec<&'static str> {
    let mut packages = PACKAGES.to_vec();
    if kind == Kind::Current {
        packages.push(VTEST);
    }
    packages
}

fn unneeded(kind: Kind) -> Vec<&'static str> {
    let needed = needed(kind);
    let unneeded = UNNEEDED.iter().copied();
    unneeded.filter(|path| *path != needed).collect()
}

/// The cache's entry for the root file system.
pub(crate) fn entry(kind: Kind) -> Result<Entry> {
    Entry::new(
        &kind.name_of("root"),
        &[
            RECIPE,
            debian::SUITE,
            &packages(kind).join(" "),
            &unneeded(kind).join(" "),
        ],
    )
}

/// Makes the root file system in `directory`.
pub(crate) fn make(kind: Kind, directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start(format!("{}, root file system", kind.title()));
    let mut packages = packages(kind);
    packages.insert(0, ESSENTIAL);
    let pick: Vec<String> = unneeded(kind)
        .iter()
        .map(|path| format!("--exclude=./{path}"))
        .collect();
    let pick: Vec<&str> = pick.iter().map(String::as_str).collect();
    debian::unpack(kind, &packages, &pick, directory, log, &step.part(0.0..1.0))?;
    check_mesa(kind, directory)?;
    let accounts = directory.join("usr/share/base-passwd");
    for (from, to) in [
        ("passwd.master", "etc/passwd"),
        ("group.master", "etc/group"),
    ] {
        fs::copy(accounts.join(from), directory.join(to))
            .with_context(|| format!("cannot make {to}"))?;
    }
    // mmdebstrap copies these from the host, but all guests are to be the same.
    fs::write(directory.join("etc/hostname"), "guest\n")?;
    fs::write(directory.join("etc/hosts"), "127.0.0.1 localhost guest\n")?;
    make_readable(directory)?;
    step.done();
    Ok(())
}

/// Checks that Mesa is the one that this guest is for: the backport, or not the backport.
fn check_mesa(kind: Kind, directory: &Path) -> Result<()> {
    // "libgallium-26.1.6-1~bpo13+1.so": the library's name has the package's version.
    let libraries = directory.join("usr/lib/x86_64-linux-gnu");
    let names = fs::read_dir(&libraries)
        .with_context(|| format!("no libraries in {}", libraries.display()))?;
    let mut names = names
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.find(|name| name.starts_with("libgallium-")) {
        Some(name) if name.contains("~bpo") == kind.has_backports() => Ok(()),
        Some(name) => bail!("{name} is the wrong Mesa for the guest {}", kind.name()),
        None => bail!("Mesa is missing from the root file system"),
    }
}

/// Makes all files readable. If an ordinary user runs the guest, it reads them with this user's rights.
fn make_readable(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            continue;
        }
        let is_dir = metadata.is_dir();
        let mode = metadata.permissions().mode();
        let wanted = mode | if is_dir { 0o700 } else { 0o400 };
        if wanted != mode {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(wanted))?;
        }
        if is_dir {
            make_readable(&entry.path())?;
        }
    }
    Ok(())
}
