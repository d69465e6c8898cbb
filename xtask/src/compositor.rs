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

/// Tests that take minutes: clients that break the rules, what frames cost after many, and clients of Debian.
const SLOW: [&str; 3] = ["malicious::", "cost::", "clients::"];

/// The quick tests, and all of them with Debian's clients.
pub(crate) fn jobs() -> [Job; 2] {
    let mut quick = tests(Kind::Current);
    quick.arg("--");
    quick.args(SLOW.iter().flat_map(|slow| ["--skip", slow]));
    let mut all = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
    all.arg("compositor");
    [
        Job::new("compositor", quick),
        Job::new("compositor, all clients", all).extra(),
    ]
}
