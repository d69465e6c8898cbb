//! `cargo xtask fuzz`: fuzzes the code that checks what comes from outside, with libFuzzer.
//!
//! This works on stable Rust, without cargo-fuzz: LLVM's coverage pass is an option of rustc's code generation,
//! and libFuzzer comes with the libfuzzer-sys crate, which only needs a C++ compiler. There is no
//! AddressSanitizer, since only safe Rust is fuzzed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, host, repository};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Counters on every edge, and the operands of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Descriptions of buffers, and requests of Wayland's clients. Each with the most bytes of an input.
const TARGETS: [(&str, u32); 2] = [("descriptions", 512), ("wayland", 256)];

/// Builds the targets and runs one after the other, or the one of this name, beginning with the corpus in the repository.
/// New inputs that they find go below `target`. Fails if an input does, which is then in `target/fuzz/`.
pub(crate) fn run(name: Option<&str>, runs: u64) -> Result<u8> {
    let is_chosen = |target: &&(&str, u32)| name.is_none_or(|name| name == target.0);
    let chosen: Vec<_> = TARGETS.iter().filter(is_chosen).collect();
    ensure!(
        !chosen.is_empty(),
        "the targets are {}",
        TARGETS.map(|target| target.0).join(", ")
    );
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
    for (name, longest) in chosen {
        let found = target.join("found").join(name);
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let mut fuzz = Command::new(target.join(TARGET).join("release").join(name));
        fuzz.arg(found)
            .arg(root.join("fuzz/corpus").join(name))
            .arg(format!("-runs={runs}"))
            .arg(format!("-artifact_prefix={}/{name}-", target.display()))
            .arg(format!("-max_len={longest}"))
            .arg("-print_final_stats=1");
        let status = cargo::run(&mut fuzz)?;
        if !status.success() {
            return Ok(cargo::code(status).max(1));
        }
    }
    Ok(0)
}
