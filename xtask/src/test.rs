//! `cargo xtask test`: everything that has to hold before a change is in.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guest::kind::{self, Kind};
use crate::progress::seconds;
use crate::{cargo, guest, host, sanitize};

/// What to run in the QEMU guest, whose processor is emulated in most places: what depends on drivers, and races
/// between two CPUs. Not what needs the faults that only the other guests' kernels produce.
const IN_QEMU: &[&str] = &[
    "refusals::",
    "facts::",
    "unplug::",
    "devices::",
    "handles::",
    "handover::",
    "identity::",
    "allocation::",
    "races::",
    "fences::",
    "cpu::",
    "blit::",
];

/// Prepares the machine, then checks one thing after the other; the exit status of the first that fails.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    let started = Instant::now();
    host::prepare_for_library()?;
    for kind in Kind::ALL {
        guest::prepare(kind, false)?;
    }
    let mut taken = vec![("preparation", started.elapsed())];
    for (name, mut command) in steps(arguments) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let status = cargo::run(&mut command)?;
        taken.push((name, start.elapsed()));
        if !status.success() {
            summary(&taken, started.elapsed());
            eprintln!("FAILED: {name}");
            // Never success, whatever the way a command failed.
            return Ok(cargo::code(status).max(1));
        }
    }
    summary(&taken, started.elapsed());
    eprintln!("all passed");
    Ok(0)
}

fn steps(arguments: &[OsString]) -> Vec<(&'static str, Command)> {
    let cargo = |arguments: &[&str]| {
        let mut command = cargo::command();
        command.args(arguments);
        command
    };
    let format = cargo(&["fmt", "--all", "--check"]);
    let lints = cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]);
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let mut models = cargo(&["test", "--lib", "--release", "--target-dir", "target/loom"]);
    // loom's models need no devices. With `--cfg loom` everything is another build, so it gets a place of its own.
    models
        .args(["models"])
        .env("RUSTFLAGS", "--cfg loom")
        .env("PRIMESHARE_RUN", "host");
    let tests = |kind: Kind, selection: &str| {
        let mut tests = cargo(&["test", "--all-features", selection]);
        tests.args(arguments).env(kind::VARIABLE, kind.name());
        if std::env::var_os("PRIMESHARE_GUEST_TIMEOUT").is_none() {
            // A test binary that hangs shall fail, not keep a machine for hours.
            tests.env("PRIMESHARE_GUEST_TIMEOUT", "900");
        }
        tests
    };
    let mut steps = vec![
        ("format", format),
        ("lints", lints),
        ("documentation", documentation),
        ("models", models),
        ("tests", tests(Kind::Current, "--workspace")),
    ];
    // Documentation tests need no second guest, and cargo does not take them together with another test.
    if !arguments.iter().any(|argument| argument == "--doc") {
        // Only the tests on drivers: the others would find the same.
        let compat = tests(Kind::Compat, "--test=guest");
        steps.push(("tests, compatibility guest", compat));
    }
    // With arguments, somebody looks for something; without, everything has to hold.
    if !arguments.is_empty() {
        eprintln!("left out: the QEMU guest and sanitizers (they need no arguments)");
        return steps;
    }
    let mut qemu = tests(Kind::Qemu, "--test=guest");
    qemu.arg("--").args(IN_QEMU);
    steps.push(("tests, QEMU guest", qemu));
    match sanitize::is_possible() {
        true => steps.extend(sanitize::steps()),
        false => eprintln!("left out: sanitizers (they need a nightly toolchain)"),
    }
    steps
}

fn summary(taken: &[(&str, Duration)], total: Duration) {
    eprintln!();
    for (name, time) in taken.iter().copied().chain([("total", total)]) {
        eprintln!("{name:>26} {:>8}", seconds(time));
    }
}
