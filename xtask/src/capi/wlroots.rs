//! The tests of `integrations/wlroots`: both of its libraries are compiled against an installed library and Debian's
//! wlroots, and a compositor that was not changed is run with them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::guest::kind::{self, Kind};
use crate::{cargo, guest, host, jobs, repository};

/// Where tests find the library to preload.
const VARIABLE: &str = "PRIMESHARE_WLROOTS";
/// Where they find tinywl, linked.
const TINYWL: &str = "PRIMESHARE_TINYWL";

/// Builds and runs them. Returns the exit status.
pub(crate) fn run(kind: Kind) -> Result<u8> {
    host::prepare_for_wlroots()?;
    guest::prepare(kind, false)?;
    let compositors = guest::prepare_compositors()?;
    let prefix = super::test::install_for_tests("wlroots")?;
    let build = repository::root().join("target/capi/wlroots");
    make(&prefix, &compositors, &build)?;
    let mut tests = cargo::command();
    tests.args([
        "test",
        "--package=primeshare-integrations",
        "--all-features",
        "--test=wlroots",
    ]);
    tests.env(kind::VARIABLE, kind.name());
    tests.env(VARIABLE, build.join("libprimeshare-wlroots-preload.so"));
    tests.env(TINYWL, build.join("tinywl"));
    jobs::limit(&mut tests);
    Ok(cargo::code(cargo::run(&mut tests)?))
}

fn make(prefix: &Path, compositors: &Path, build: &Path) -> Result<()> {
    let include = compositors.join("include");
    let directories: [PathBuf; 4] = [
        include.join("wlroots-0.18"),
        include.join("pixman-1"),
        include.join("libdrm"),
        include,
    ];
    let flags: Vec<_> = directories
        .iter()
        .map(|one| format!("-I{}", one.display()))
        .collect();
    let mut make = Command::new("make");
    make.arg("--directory")
        .arg(repository::root().join("integrations/wlroots"));
    make.arg(format!("BUILD={}", build.display()));
    make.arg(format!("WLROOTS_CFLAGS={}", flags.join(" ")));
    make.arg(format!("TINYWL={}", compositors.join("tinywl.c").display()));
    make.arg(format!(
        "WAYLAND_PROTOCOLS={}",
        compositors.join("protocols").display()
    ));
    make.arg(format!(
        "WLROOTS_LIBDIR={}",
        compositors.join("lib").display()
    ));
    make.args(["all", "tinywl"]);
    // The headers of the library are no files that make knows of.
    make.arg("--always-make");
    make.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let status = cargo::run(&mut make)?;
    ensure!(
        status.success(),
        "integrations/wlroots was not compiled: {status}"
    );
    Ok(())
}
