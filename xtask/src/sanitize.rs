//! `cargo xtask sanitize`: tests under the compiler's sanitizers, which stable Rust does not have.
//!
//! AddressSanitizer goes with the tests in the guest, on real drivers. ThreadSanitizer would need a std that is built
//! for it, and rustup has none: the table of handles is loaded outside of the guest instead, over a model of the
//! kernel, with synchronisation that the sanitizer can follow (`--cfg tsan`).

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::guest::kind::Kind;
use crate::jobs::{self, Job};
use crate::{guest, host, repository, summary};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests that say nothing, cannot work or take too long with AddressSanitizer. It aborts if there is no memory, keeps
/// freed memory for a while, and example programs are started from the directory in which cargo builds them without it.
pub(crate) const NOT_WITH_ADDRESSES: &[&str] = &[
    "faults::",
    "caches::memory_is_as_before",
    "example::",
    "vulkan::matrix",
    "vulkan::shared::four_thousand",
    "blit::",
];

/// Runs both sanitizers, also if the first one fails. Gives the exit status of the first failure.
pub(crate) fn run() -> Result<u8> {
    if !is_possible() {
        bail!(
            "sanitizers need the nightly toolchain beside the stable one: rustup toolchain install nightly"
        );
    }
    host::prepare_for_library()?;
    guest::prepare(Kind::Current, false)?;
    let start = Instant::now();
    let ended = jobs().map(jobs::show);
    eprint!("\n{}", summary::of(&ended, &[], start.elapsed()));
    let mut failures = ended.iter().filter_map(|job| job.failure.as_ref());
    Ok(failures.next().map_or(0, |failure| failure.code))
}

/// Whether there is a nightly toolchain.
fn is_possible() -> bool {
    let mut nightly = Command::new("rustup");
    nightly.args(["run", "nightly", "rustc", "--version"]);
    nightly.stdin(Stdio::null()).stdout(Stdio::null());
    let status = nightly.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Both jobs. They need nightly Rust, which the machine may lack.
pub(crate) fn jobs() -> [Job; 2] {
    let lacks = (!is_possible()).then_some("nightly Rust: rustup toolchain install nightly");
    let mut addresses = nightly("target/asan", "-Zsanitizer=address");
    addresses.args(["--test=guest", "--"]);
    for test in NOT_WITH_ADDRESSES {
        addresses.args(["--skip", test]);
    }
    jobs::limit(&mut addresses);
    addresses
        // The tests look for leaks themselves; the sanitizer would need ptrace in the guest. The quarantine is memory
        // that was freed and is kept: if it is large, thousands of Vulkan imports get very slow.
        .env("ASAN_OPTIONS", "detect_leaks=0:quarantine_size_mb=16");
    let suppressions = repository::root().join("xtask/tsan.supp");
    let flags = "--cfg tsan -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";
    let mut threads = nightly("target/tsan", flags);
    threads
        .args(["--lib", "stress"])
        .env("PRIMESHARE_RUN", "host")
        .env(
            "TSAN_OPTIONS",
            format!("suppressions={}", suppressions.display()),
        );
    [
        Job::new("address sanitizer", addresses).lacks(lacks),
        Job::new("thread sanitizer", threads).lacks(lacks),
    ]
}

/// `cargo test` of the nightly toolchain.
fn nightly(directory: &str, flags: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "test", "--target", TARGET])
        .args(["--target-dir", directory])
        .current_dir(repository::root())
        .env("RUSTFLAGS", flags);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO" || text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(&name);
        }
    }
    command
}
