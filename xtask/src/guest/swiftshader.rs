//! SwiftShader, a Vulkan driver that shares no dma-bufs, for tests that need one that refuses. It is taken from Debian's
//! Chromium, which contains it for machines without a GPU.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::debian;
use super::kind::Kind;
use crate::cache::Entry;
use crate::progress::{Log, Step};

/// Where programs in the guest find what the Vulkan loader wants to know of it.
pub(super) const VARIABLE: &str = "PRIMESHARE_SWIFTSHADER";

/// To be raised when this module makes something else of the same package.
const RECIPE: &str = "1";
const PACKAGE: &str = "chromium-common";
const LIBRARY: &str = "usr/lib/chromium/libvk_swiftshader.so";

/// The cache's entry for it.
pub(super) fn entry() -> Result<Entry> {
    Entry::new("swiftshader", &[RECIPE, debian::SUITE, PACKAGE, LIBRARY])
}

/// Makes it in `directory`.
pub(super) fn make(directory: &Path, log: &mut Log) -> Result<()> {
    let step = Step::start("SwiftShader");
    let pick = format!("./{LIBRARY}");
    debian::unpack(
        Kind::Compat,
        &[PACKAGE],
        &[&pick],
        directory,
        log,
        &step.part(0.0..1.0),
    )?;
    let library = Path::new("/").join(LIBRARY);
    let name = library.file_name().unwrap_or_default();
    fs::rename(directory.join(LIBRARY), directory.join(name))?;
    fs::remove_dir_all(directory.join("usr"))?;
    // The path is from where the description is.
    let description = format!(
        r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": "./{}", "api_version": "1.1.0"}}}}"#,
        name.display()
    );
    fs::write(self::description(directory), description)?;
    step.done();
    Ok(())
}

/// What the Vulkan loader wants to know of it, in the entry.
pub(super) fn description(entry: &Path) -> PathBuf {
    entry.join("vk_swiftshader_icd.json")
}
