//! `cargo xtask bench`: the benchmark, in the guest.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::{cargo, guest, host};

/// Runs it with `arguments`; its exit status.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    guest::prepare(false)?;
    let mut command = cargo::command();
    command
        .args(["bench", "--quiet", "--bench", "sharing", "--"])
        .args(arguments);
    let status = command
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    Ok(cargo::code(status))
}
