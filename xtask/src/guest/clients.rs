//! Wayland clients of Debian that know nothing of the library, for tests of the example `compositor`: a directory to
//! change the root to, with all that they depend on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::debian;
use super::kind::Kind;
use crate::cache::Entry;
use crate::progress::{Log, Step};

/// Where programs in the guest find them.
pub(crate) const VARIABLE: &str = "PRIMESHARE_CLIENTS";

/// To be raised when this module makes something else of the same packages.
const RECIPE: &str = "2";
const PACKAGES: &[&str] = &[
    "coreutils",
    "dash",
    "featherpad",
    "foot",
    "fonts-dejavu-core",
    "glmark2-es2-wayland",
    "libc-bin",
    "libegl-mesa0",
    "libgl1-mesa-dri",
    "mesa-vulkan-drivers",
    "qt6-wayland",
    "vulkan-tools",
    "weston",
];
/// What no program reads.
const LEFT_OUT: &[&str] = &[
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/perl",
    "./usr/lib/x86_64-linux-gnu/perl",
    "./usr/lib/x86_64-linux-gnu/perl-base",
    "./var/cache",
    "./var/lib/apt",
    "./dev",
];
const FAUX: &str = include_str!("../../../guest/compositors/faux.c");

/// The cache's entry for them.
pub(crate) fn entry() -> Result<Entry> {
    let (packages, left_out) = (PACKAGES.join(" "), LEFT_OUT.join(" "));
    Entry::new(
        "clients",
        &[RECIPE, debian::SUITE, &packages, &left_out, FAUX],
    )
}

/// Makes it in `directory`.
pub(crate) fn make(directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start("Wayland clients");
    let left_out: Vec<_> = LEFT_OUT
        .iter()
        .map(|path| format!("--exclude={path}"))
        .collect();
    let pick: Vec<_> = left_out.iter().map(String::as_str).collect();
    debian::unpack(
        Kind::Compat,
        PACKAGES,
        &pick,
        directory,
        log,
        &step.part(0.0..1.0),
    )?;
    // Not every set of packages brings them along.
    for merged in ["bin", "lib", "lib64", "sbin"] {
        if !directory.join(merged).exists() {
            std::os::unix::fs::symlink(format!("usr/{merged}"), directory.join(merged))?;
        }
    }
    for mount in ["dev", "proc", "sys", "tmp", "run"] {
        fs::create_dir_all(directory.join(mount))?;
    }
    let source = directory.join("faux.c");
    fs::write(&source, FAUX)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(source.with_extension("so"));
    log.run(cc.arg(&source).arg("-ldl"), |_| {})?;
    step.done();
    Ok(())
}
