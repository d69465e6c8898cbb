//! `cargo xtask bench`: the benchmarks, in the guest.

use std::ffi::OsString;

use anyhow::Result;

use crate::cli::BENCHMARKS;
use crate::guest::kind::Kind;
use crate::{cargo, guest, host};

/// Runs the benchmark of this name, or all of them, with `arguments`. Gives the exit status.
pub(crate) fn run(name: Option<&str>, arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    guest::prepare(Kind::from_environment()?, false)?;
    let names = BENCHMARKS
        .iter()
        .filter(|known| name.is_none_or(|name| name == **known));
    let benches: Vec<&str> = names.flat_map(|name| ["--bench", name]).collect();
    cargo::build(&[&["bench", "--no-run", "--features=kms"], &benches[..]].concat())?;
    let mut command = cargo::command();
    command
        .args(["bench", "--quiet", "--features=kms"])
        .args(benches)
        .arg("--")
        .args(arguments);
    let status = cargo::run(command.env("PRIMESHARE_RUN", "guest"))?;
    Ok(cargo::code(status))
}
