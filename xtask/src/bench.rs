//! `cargo xtask bench`: the benchmarks, in the guest.

use std::ffi::OsString;

use anyhow::Result;

use crate::cli::BENCHMARKS;
use crate::guest::kind::Kind;
use crate::{cargo, guest, host};

/// Where the frames of the benchmark of screens are shown by Smithay.
const BY_SMITHAY: [&str; 3] = [
    "--package=primeshare-integrations",
    "--features=smithay-kms",
    "--bench=screens",
];

/// Runs the benchmark of this name, or all of them, with `arguments`. Gives the exit status.
pub(crate) fn run(name: Option<&str>, arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    let wanted = |known: &str| name.is_none_or(|name| name == known);
    let with_smithay = wanted("screens");
    if with_smithay {
        host::prepare_for_integrations()?;
    }
    guest::prepare(Kind::from_environment()?, false)?;
    let names = BENCHMARKS.iter().filter(|known| wanted(known));
    let benches: Vec<&str> = names.flat_map(|name| ["--bench", name]).collect();
    let own = [&["--features=kms"], &benches[..]].concat();
    let mut all = vec![&own[..]];
    if with_smithay {
        all.push(&BY_SMITHAY);
    }
    for which in &all {
        cargo::build(&[&["bench", "--no-run"], *which].concat())?;
    }
    for which in all {
        let mut command = cargo::command();
        command.args(["bench", "--quiet"]).args(which);
        command.arg("--").args(arguments);
        let status = cargo::run(command.env("PRIMESHARE_RUN", "guest"))?;
        if !status.success() {
            return Ok(cargo::code(status));
        }
    }
    Ok(0)
}
