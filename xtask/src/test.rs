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
    "blit::strategies::between",
    "blit::strategies::without",
    "blit::failures::",
    "blit::pairs::",
    "tool::",
];

/// Tests that go into guests of their own: the driver and the validation layer leave so many threads and mappings behind
/// that User-Mode Linux gets slower with every one in the same process.
const APART: &[&str] = &["blit::", "vulkan::", "wgpu::"];

/// Prepares the machine, then checks one thing after the other; the exit status of the first that fails.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    let started = Instant::now();
    host::prepare_for_library()?;
    for kind in Kind::ALL {
        guest::prepare(kind, false)?;
    }
    let mut taken = vec![("preparation".to_owned(), started.elapsed())];
    for (name, mut command) in steps(arguments) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let status = cargo::run(&mut command)?;
        taken.push((name.clone(), start.elapsed()));
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

fn steps(arguments: &[OsString]) -> Vec<(String, Command)> {
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
        ("format".to_owned(), format),
        ("lints".to_owned(), lints),
        ("documentation".to_owned(), documentation),
        ("models".to_owned(), models),
    ];
    if arguments.is_empty() {
        steps.extend(in_parts("tests", Kind::Current, "--workspace", &tests));
        steps.extend(in_parts(
            "compatibility guest",
            Kind::Compat,
            "--test=guest",
            &tests,
        ));
        let mut qemu = tests(Kind::Qemu, "--test=guest");
        qemu.arg("--").args(IN_QEMU);
        steps.push(("QEMU guest".to_owned(), qemu));
        match sanitize::is_possible() {
            true => steps.extend(sanitize::steps().map(|(name, step)| (name.to_owned(), step))),
            false => eprintln!("left out: sanitizers (they need a nightly toolchain)"),
        }
        return steps;
    }
    // With arguments, somebody looks for something; without, everything has to hold.
    eprintln!("left out: the QEMU guest and sanitizers (they need no arguments)");
    steps.push(("tests".to_owned(), tests(Kind::Current, "--workspace")));
    // Documentation tests need no second guest, and cargo does not take them together with another test.
    if !arguments.iter().any(|argument| argument == "--doc") {
        // Only the tests on drivers: the others would find the same.
        let compat = tests(Kind::Compat, "--test=guest");
        steps.push(("compatibility guest".to_owned(), compat));
    }
    steps
}

/// All tests of `selection`, those of [`APART`] in a guest each.
fn in_parts(
    name: &str,
    kind: Kind,
    selection: &str,
    tests: &dyn Fn(Kind, &str) -> Command,
) -> Vec<(String, Command)> {
    let mut most = tests(kind, selection);
    most.arg("--");
    for part in APART {
        most.args(["--skip", part]);
    }
    // What the blitter does with an old Mesa shows in the QEMU guest.
    let apart = APART
        .iter()
        .filter(|part| kind == Kind::Current || **part != "blit::");
    let apart = apart.map(|part| {
        let mut tests = tests(kind, "--test=guest");
        tests.args(["--", part]);
        (format!("{name}, {}", part.trim_end_matches(':')), tests)
    });
    std::iter::once((name.to_owned(), most))
        .chain(apart)
        .collect()
}

fn summary(taken: &[(String, Duration)], total: Duration) {
    eprintln!();
    for (name, time) in taken.iter().chain([&("total".to_owned(), total)]) {
        eprintln!("{name:>26} {:>8}", seconds(*time));
    }
}
