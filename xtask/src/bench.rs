//! `cargo xtask bench`: the benchmark, in the guest.

use std::ffi::OsString;

use anyhow::Result;

use crate::guest::kind::Kind;
use crate::{cargo, guest, host};

/// Runs it with `arguments`; its exit status.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    guest::prepare(Kind::from_environment()?, false)?;
    cargo::build(&["bench", "--bench", "sharing", "--no-run"])?;
    let mut command = cargo::command();
    command
        .args(["bench", "--quiet", "--bench", "sharing", "--"])
        .args(arguments);
    let status = cargo::run(command.env("PRIMESHARE_RUN", "guest"))?;
    Ok(cargo::code(status))
}
