//! Compositors of Debian, for tests of what is linked into them: cage on wlroots 0.18, with seatd, and what a program
//! for wlroots is compiled with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::debian;
use super::kind::Kind;
use super::rootfs;
use crate::cache::Entry;
use crate::progress::{Log, Step};

/// Where programs in the guest find them: `bin`, `lib`, `include`, `xkb`, `protocols`, `tinywl.c`, and `faux.so` to
/// preload.
pub(crate) const VARIABLE: &str = "PRIMESHARE_COMPOSITORS";

/// To be raised when this module makes something else of the same packages.
const RECIPE: &str = "3";
const PACKAGES: &[&str] = &[
    "cage",
    "seatd",
    "libwlroots-0.18-dev",
    "wayland-protocols",
    "xkb-data",
];
/// Its source has tinywl.
const SOURCE: &str = "wlroots";
const FAUX: &str = include_str!("../../../guest/compositors/faux.c");

/// Headers of wlroots and of what its headers include.
const HEADERS: &[&str] = &["libdrm", "pixman-1", "wlroots-0.18", "xkbcommon"];

/// The cache's entry for them.
pub(crate) fn entry() -> Result<Entry> {
    let packages = PACKAGES.join(" ");
    Entry::new("compositors", &[RECIPE, debian::SUITE, &packages, FAUX])
}

/// Makes it in `directory`.
pub(crate) fn make(directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start("Compositors");
    let unpacked = directory.join("unpacked");
    fs::create_dir(&unpacked)?;
    let pick = [
        "./usr/bin",
        "./usr/sbin",
        "./usr/lib",
        "./usr/include",
        "./usr/share/X11",
        "./usr/share/wayland-protocols",
    ];
    debian::unpack(
        Kind::Compat,
        PACKAGES,
        &pick,
        &unpacked,
        log,
        &step.part(0.0..0.9),
    )?;
    for made in ["bin", "lib", "include"] {
        fs::create_dir(directory.join(made))?;
    }
    let usr = unpacked.join("usr");
    fs::rename(usr.join("bin/cage"), directory.join("bin/cage"))?;
    fs::rename(usr.join("sbin/seatd"), directory.join("bin/seatd"))?;
    fs::rename(usr.join("share/X11/xkb"), directory.join("xkb"))?;
    fs::rename(
        usr.join("share/wayland-protocols"),
        directory.join("protocols"),
    )?;
    let tinywl = debian::source_file(SOURCE, "tinywl/tinywl.c", &unpacked, log)?;
    fs::rename(tinywl, directory.join("tinywl.c"))?;
    take_headers(&usr.join("include"), &directory.join("include"))?;
    take_libraries(&usr.join("lib/x86_64-linux-gnu"), &directory.join("lib"))?;
    fs::remove_dir_all(&unpacked)?;
    let source = directory.join("faux.c");
    fs::write(&source, FAUX)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(source.with_extension("so"));
    log.run(cc.arg(&source).arg("-ldl"), |_| {})?;
    step.done();
    Ok(())
}

fn take_headers(from: &Path, to: &Path) -> Result<()> {
    for name in HEADERS {
        fs::rename(from.join(name), to.join(name)).with_context(|| format!("no headers {name}"))?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("wayland-") {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The libraries that some guest lacks. Of the others there is to be one version only.
fn take_libraries(from: &Path, to: &Path) -> Result<()> {
    let of_guests = [Kind::Current, Kind::Compat].map(|kind| -> Result<_> {
        Ok(rootfs::entry(kind)?
            .get()
            .map(|root| root.join("usr/lib/x86_64-linux-gnu")))
    });
    let of_guests: Vec<_> = of_guests.into_iter().collect::<Result<_>>()?;
    // Mesa's and LLVM's are as large as all others together, and have the version in their names.
    const LARGE: [&str; 2] = ["libgallium-", "libLLVM"];
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_there = of_guests
            .iter()
            .flatten()
            .all(|root| root.join(&name).exists());
        let is_library = text.contains(".so") && !entry.file_type()?.is_dir();
        if is_library && !is_there && !LARGE.iter().any(|large| text.starts_with(large)) {
            fs::rename(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
