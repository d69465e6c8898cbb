//! `cargo xtask fuzz`: fuzzes the code that checks descriptions from outside, with libFuzzer.
//!
//! This works on stable Rust, without cargo-fuzz: LLVM's coverage pass is an option of rustc's code generation,
//! and libFuzzer comes with the libfuzzer-sys crate, which only needs a C++ compiler. There is no
//! AddressSanitizer, since only safe Rust is fuzzed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cargo, host, repository};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Counters on every edge, and the operands of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the target and runs it, beginning with the corpus in the repository. New inputs that it finds go below
/// `target`. Fails if an input does, which is then in `target/fuzz/`.
pub(crate) fn run(runs: u64) -> Result<u8> {
    host::prepare_for_library()?;
    let root = repository::root();
    let target = root.join("target/fuzz");
    let mut build = cargo::command();
    // With `--target`, the flags apply to the target only: build scripts must not be instrumented.
    build
        .args(["build", "--release", "--target", TARGET])
        .arg("--manifest-path")
        .arg(root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", FLAGS);
    let status = cargo::run(&mut build)?;
    if !status.success() {
        return Ok(cargo::code(status).max(1));
    }
    let found = target.join("found");
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut fuzz = Command::new(target.join(TARGET).join("release/descriptions"));
    fuzz.arg(found)
        .arg(root.join("fuzz/corpus/descriptions"))
        .arg(format!("-runs={runs}"))
        .arg(format!("-artifact_prefix={}/", target.display()))
        .args(["-max_len=512", "-print_final_stats=1"]);
    Ok(cargo::code(cargo::run(&mut fuzz)?))
}
