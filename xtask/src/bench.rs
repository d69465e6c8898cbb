//! `cargo xtask bench`: the benchmarks, in the guest.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::capi::install;
use crate::cli::BENCHMARKS;
use crate::guest::kind::Kind;
use crate::{cargo, guest, host, repository};

/// Where the frames of the benchmark of screens are shown by Smithay.
const BY_SMITHAY: [&str; 3] = [
    "--package=primeshare-integrations",
    "--features=smithay-kms",
    "--bench=screens",
];

/// One client under several compositors.
const COMPOSITORS: [&str; 2] = ["--package=primeshare-compositor", "--bench=compositors"];

/// A call of the C library beside the same one in Rust.
const THROUGH_C: [&str; 2] = ["--package=primeshare-capi", "--bench=import"];

/// Installs a release build, and gives the path of the shared library.
fn install_c() -> Result<PathBuf> {
    let prefix = repository::root().join("target/capi/prefix/bench");
    install::run(&install::Arguments {
        prefix: prefix.clone(),
        libdir: "lib".into(),
        destdir: None,
        layers: None,
        debug: false,
        without_tool: true,
    })?;
    Ok(prefix.join("lib/libprimeshare.so"))
}

/// Runs the benchmark of this name, or all of them, with `arguments`. Gives the exit status.
pub(crate) fn run(name: Option<&str>, arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    let wanted = |known: &str| name.is_none_or(|name| name == known);
    let with_smithay = wanted("screens");
    if with_smithay {
        host::prepare_for_integrations()?;
    }
    guest::prepare(Kind::from_environment()?, false)?;
    let names = BENCHMARKS
        .iter()
        .filter(|known| wanted(known) && !["c", "compositors"].contains(known));
    let benches: Vec<&str> = names.flat_map(|name| ["--bench", name]).collect();
    let own = [&["--features=kms"], &benches[..]].concat();
    let mut all = match benches.is_empty() {
        true => vec![],
        false => vec![&own[..]],
    };
    if with_smithay {
        all.push(&BY_SMITHAY);
    }
    if wanted("compositors") {
        guest::prepare_compositors()?;
        guest::prepare_clients()?;
        all.push(&COMPOSITORS);
    }
    let library = match wanted("c") {
        true => {
            all.push(&THROUGH_C);
            Some(install_c()?)
        }
        false => None,
    };
    for which in &all {
        cargo::build(&[&["bench", "--no-run"], *which].concat())?;
    }
    for which in all {
        let mut command = cargo::command();
        command.args(["bench", "--quiet"]).args(which);
        command.arg("--").args(arguments);
        if let Some(path) = &library {
            command.env("PRIMESHARE_LIBRARY", path);
        }
        let status = cargo::run(command.env("PRIMESHARE_RUN", "guest"))?;
        if !status.success() {
            return Ok(cargo::code(status));
        }
    }
    Ok(0)
}
