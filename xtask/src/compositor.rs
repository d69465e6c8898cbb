//! The tests of the example `compositor`: with clients of the project's own, and with clients of Debian, which know nothing
//! of the library.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::guest::kind::{self, Kind};
use crate::jobs::Job;
use crate::{cargo, guest, jobs};

/// Fetches the clients, and runs the tests. Returns the exit status.
pub(crate) fn run(kind: Kind, arguments: &[OsString]) -> Result<u8> {
    guest::prepare(kind, false)?;
    guest::prepare_clients()?;
    let mut tests = tests(kind);
    tests.arg("--").args(arguments);
    Ok(cargo::code(cargo::run(&mut tests)?))
}

fn tests(kind: Kind) -> Command {
    let mut tests = cargo::command();
    tests.args(["test", "--package=primeshare-compositor"]);
    tests.env(kind::VARIABLE, kind.name());
    jobs::limit(&mut tests);
    tests
}

/// The tests with the project's own clients, and those with all clients.
pub(crate) fn jobs() -> [Job; 2] {
    let mut all = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
    all.arg("compositor");
    [
        Job::new("compositor", tests(Kind::Current)),
        Job::new("compositor with clients of Debian", all).extra(),
    ]
}
