//! `cargo xtask test`: everything that has to hold before a change is in.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guest::kind::{self, Kind};
use crate::jobs::{self, Job};
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

/// Tests that go into processes of their own, in guests of their own, and what of them goes into others: the driver and
/// the validation layer leave so many threads and mappings behind that User-Mode Linux gets slower with every test in
/// the same process, and stands still at the host's limit of mappings.
const APART: &[(&str, &[&str])] = &[
    ("blit::", &["blit::failures::", "blit::strategies::"]),
    ("blit::failures::", &[]),
    ("blit::strategies::", &[]),
    ("vulkan::", &[]),
    ("wgpu::", &["wgpu::sharing::"]),
    ("wgpu::sharing::", &[]),
];

/// Guests that run beside each other. Each keeps little more than one processor busy.
const AT_ONCE: usize = 2;

/// Prepares the machine, then checks one thing after the other; the exit status of the first that fails.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8> {
    let started = Instant::now();
    host::prepare_for_library()?;
    for kind in Kind::ALL {
        guest::prepare_for_tests(kind)?;
    }
    let mut taken = vec![("preparation".to_owned(), started.elapsed())];
    let mut failed = None;
    for Job { name, mut command } in first(arguments) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let status = cargo::run(&mut command)?;
        taken.push((name.clone(), start.elapsed()));
        if !status.success() {
            failed = Some((name, status));
            break;
        }
    }
    if failed.is_none() && arguments.is_empty() {
        eprintln!("\n== tests, {AT_ONCE} at a time, each shown when it ends");
        for ended in jobs::run(beside(), AT_ONCE)? {
            taken.push((ended.name.clone(), ended.took));
            if !ended.status.success() {
                failed.get_or_insert((ended.name, ended.status));
            }
        }
    }
    summary(&taken, started.elapsed());
    match failed {
        None => {
            eprintln!("all passed");
            Ok(0)
        }
        Some((name, status)) => {
            eprintln!("FAILED: {name}");
            // Never success, whatever the way a command failed.
            Ok(cargo::code(status).max(1))
        }
    }
}

fn cargo_with(arguments: &[&str]) -> Command {
    let mut command = cargo::command();
    command.args(arguments);
    command
}

/// `cargo test` in a guest.
fn tests(kind: Kind, selection: &[&str]) -> Command {
    let mut tests = cargo_with(&["test", "--all-features"]);
    tests.args(selection).env(kind::VARIABLE, kind.name());
    if std::env::var_os("PRIMESHARE_GUEST_TIMEOUT").is_none() {
        // A test binary that hangs shall fail, not keep a machine for hours.
        tests.env("PRIMESHARE_GUEST_TIMEOUT", "900");
    }
    tests
}

/// What says most in the shortest time, and what the rest needs: one after the other.
fn first(arguments: &[OsString]) -> Vec<Job> {
    let format = cargo_with(&["fmt", "--all", "--check"]);
    let all = ["--workspace", "--all-targets", "--all-features"];
    let mut lints = cargo_with(&["clippy"]);
    lints.args(all).args(["--", "-D", "warnings"]);
    let mut documentation = cargo_with(&["doc", "--workspace", "--no-deps", "--all-features"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let mut jobs = vec![
        Job::new("format", format),
        Job::new("lints", lints),
        Job::new("documentation", documentation),
    ];
    if arguments.is_empty() {
        // Not with the workspace's other member, whose dependencies have features that the library must not rely on.
        jobs.push(Job::new(
            "build",
            cargo_with(&["test", "--all-features", "--no-run"]),
        ));
        return jobs;
    }
    // With arguments, somebody looks for something; without, everything has to hold.
    eprintln!(
        "left out: models, the QEMU guest, sanitizers and xtask's tests (they need no arguments)"
    );
    let mut looking = vec![("tests", tests(Kind::Current, &[]))];
    // Documentation tests need no second guest, and cargo does not take them together with another test.
    if !arguments.iter().any(|argument| argument == "--doc") {
        // Only the tests on drivers: the others would find the same.
        let compat = tests(Kind::Compat, &["--test=guest"]);
        looking.push(("compatibility guest", compat));
    }
    for (name, mut command) in looking {
        command.args(arguments);
        jobs.push(Job::new(name, command));
    }
    jobs
}

/// What takes its time, the longest first.
fn beside() -> Vec<Job> {
    // loom's models need no devices. With `--cfg loom` everything is another build, so it gets a place of its own.
    let mut models = cargo_with(&["test", "--lib", "--release", "--target-dir", "target/loom"]);
    models
        .args(["models"])
        .env("RUSTFLAGS", "--cfg loom")
        .env("PRIMESHARE_RUN", "host");
    // Where the alias builds it.
    let own = cargo_with(&["test", "--package=xtask", "--profile=xtask"]);
    let mut qemu = tests(Kind::Qemu, &["--test=guest", "--"]);
    qemu.args(IN_QEMU);
    let mut jobs = vec![
        Job::new("QEMU guest", qemu),
        Job::new("tests", without_parts(Kind::Current, &[])),
        Job::new(
            "compatibility guest",
            without_parts(Kind::Compat, &["--test=guest"]),
        ),
        Job::new("models", models),
        Job::new("xtask", own),
    ];
    match sanitize::is_possible() {
        true => jobs.extend(sanitize::jobs()),
        false => eprintln!("left out: sanitizers (they need a nightly toolchain)"),
    }
    for (part, elsewhere) in APART {
        let of_part = |kind| {
            let mut tests = tests(kind, &["--test=guest", "--", part]);
            elsewhere.iter().for_each(|other| {
                tests.args(["--skip", other]);
            });
            tests
        };
        let name = part.trim_end_matches(':');
        // What the blitter does with an old Mesa shows in the QEMU guest.
        if !part.starts_with("blit::") {
            let compat = of_part(Kind::Compat);
            jobs.push(Job::new(format!("compatibility guest, {name}"), compat));
        }
        jobs.push(Job::new(format!("tests, {name}"), of_part(Kind::Current)));
    }
    jobs
}

/// All tests of `selection` but those of [`APART`].
fn without_parts(kind: Kind, selection: &[&str]) -> Command {
    let mut most = tests(kind, selection);
    most.arg("--");
    for (part, _) in APART {
        most.args(["--skip", part]);
    }
    most
}

fn summary(taken: &[(String, Duration)], total: Duration) {
    eprintln!();
    for (name, time) in taken.iter().chain([&("total".to_owned(), total)]) {
        eprintln!("{name:>34} {:>8}", seconds(*time));
    }
}
