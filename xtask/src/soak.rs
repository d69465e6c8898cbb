//! `cargo xtask soak`: the tests that have a long form, at full length, in the guest.

use std::ffi::OsString;

use anyhow::Result;

use crate::guest::kind::Kind;
use crate::{cargo, guest, host};

/// Asks tests for their full length.
const VARIABLE: &str = "PRIMESHARE_SOAK";

/// The tests that have a long form, also in inner modules, such as `blit::soak::`.
const TESTS: &[&str] = &[
    "soak::",
    "caches::memory",
    "kms::robust::",
    "removal::",
    "unplug::",
];

/// Runs them, or those that `arguments` name; the exit status.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    host::prepare_for_library()?;
    guest::prepare(Kind::from_environment()?, false)?;
    let mut command = cargo::command();
    command.args([
        "test",
        "--release",
        "--features=kms",
        "--test",
        "guest",
        "--",
    ]);
    match arguments {
        [] => command.args(TESTS),
        some => command.args(some),
    };
    command
        .args(["--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .env("PRIMESHARE_RUN", "guest");
    Ok(cargo::code(cargo::run(&mut command)?))
}
